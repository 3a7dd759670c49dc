//! The system calls that nix does not have.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

/// linux/capability.h.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// linux/landlock.h.
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;

/// Forks the calling process, which must have one thread; in the child, the answer is `None`.
pub fn fork(namespaces: CloneFlags) -> nix::Result<Option<(i32, OwnedFd)>> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all zeros is a valid clone_args: no flags, nothing pointed to.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (namespaces.bits() | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM the child has a copy of the memory and goes on with its only thread, as after fork(2). The
    // kernel writes one descriptor to `pidfd`, which lives through the call.
    let result = Errno::result(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    })?;
    if result == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has made this descriptor for the caller, who has no other owner of it.
    Ok(Some((result as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

/// Sends a signal to the process of a pidfd.
pub fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    // SAFETY: the call takes numbers, and no information of the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as libc::c_int, 0, 0) };
    Errno::result(result).map(drop)
}

/// Closes the descriptors from `first` up to but not including `end`.
pub fn close_range(first: u32, end: u32) -> nix::Result<()> {
    if first >= end {
        return Ok(());
    }
    // SAFETY: the call takes numbers. Whoever in this process owns one of these descriptors is not used any more, by
    // the contract of `Jail::enter`.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) }).map(drop)
}

/// Drops every capability from the bounding set.
pub fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0..=63 {
        // SAFETY: the call takes numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // The first number that this kernel does not know.
            Err(Errno::EINVAL) if capability > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes the calling thread, the only one, that of a user and of the group of the same number, without further groups. The C
/// library's functions would look for threads that the parent had.
pub fn become_user(user: u32) -> nix::Result<()> {
    // SAFETY: no group is read, and the other calls take numbers.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, 0, 0))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, user, user, user))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, user, user, user))?;
    }
    Ok(())
}

/// Drops every capability of the calling thread.
pub fn drop_capabilities() -> nix::Result<()> {
    let header = [CAPABILITY_VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: this version of the call reads two words of header and twice three words of sets.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }).map(drop)
}

/// The version of Landlock that the kernel has.
pub fn landlock_version() -> nix::Result<u32> {
    // SAFETY: with this flag, the call takes no attributes.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION) };
    Errno::result(version).map(|version| version as u32)
}

/// Takes these rights on files from the calling thread, with no exception.
pub fn landlock_restrict(rights: u64) -> nix::Result<()> {
    // SAFETY: the attributes are one word, as their length says.
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rights, size_of::<u64>(), 0) };
    let ruleset = Errno::result(ruleset)?;
    // SAFETY: the kernel has just made this descriptor for the caller.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    // SAFETY: the call takes numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
