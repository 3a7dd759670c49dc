//! The system calls that nix does not have.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::landlock::Handled;

/// linux/capability.h.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// linux/landlock.h.
const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
const LANDLOCK_RULE_NET_PORT: u32 = 2;

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

/// A ruleset of Landlock.
pub fn landlock_create_ruleset(handled: &Handled) -> nix::Result<OwnedFd> {
    let handled: *const Handled = handled;
    // SAFETY: the call reads as many bytes as the attributes have.
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, handled, size_of::<Handled>(), 0) };
    let ruleset = Errno::result(ruleset)?;
    // SAFETY: the kernel has just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(ruleset as i32) })
}

/// `landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    rights: u64,
    parent: i32,
}

/// `landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    rights: u64,
    port: u64,
}

/// A rule for a file, or for a directory and all below it.
pub fn landlock_add_path(ruleset: &OwnedFd, place: BorrowedFd<'_>, rights: u64) -> nix::Result<()> {
    let rule = PathBeneath { rights, parent: place.as_raw_fd() };
    landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, (&raw const rule).cast())
}

/// A rule for a TCP port.
pub fn landlock_add_port(ruleset: &OwnedFd, port: u16, rights: u64) -> nix::Result<()> {
    let rule = NetPort { rights, port: port.into() };
    landlock_add_rule(ruleset, LANDLOCK_RULE_NET_PORT, (&raw const rule).cast())
}

/// `rule` is of the type that `kind` says.
fn landlock_add_rule(ruleset: &OwnedFd, kind: u32, rule: *const libc::c_void) -> nix::Result<()> {
    // SAFETY: the call reads one rule of this kind, by the contract of the callers, which own it.
    let result = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0) };
    Errno::result(result).map(drop)
}

/// Puts the calling thread under a ruleset.
pub fn landlock_restrict(ruleset: &OwnedFd) -> nix::Result<()> {
    // SAFETY: the call takes numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
