//! The system calls that nix does not have, each with a safe face.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use pod::control::TerminalSize;
use pod::seccomp::program::Instruction;

/// As much of a file system tree as a bind mount shows: a detached copy.
pub fn open_tree(path: &CStr) -> nix::Result<OwnedFd> {
    clone_tree(libc::AT_FDCWD, path, libc::AT_RECURSIVE)
}

/// The same without what is mounted below it.
pub fn open_mount(path: &CStr) -> nix::Result<OwnedFd> {
    clone_tree(libc::AT_FDCWD, path, 0)
}

/// The same of what is open as a place.
pub fn open_tree_of(place: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    clone_tree(place.as_raw_fd(), c"", libc::AT_RECURSIVE | libc::AT_EMPTY_PATH)
}

fn clone_tree(directory: RawFd, path: &CStr, flags: libc::c_int) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | flags as u32;
    // SAFETY: `path` is a C string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) };
    owned(fd)
}

/// Attaches a detached tree to a directory or file.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> nix::Result<()> {
    const FROM_AND_TO_EMPTY_PATH: u32 = 0x4 | 0x40;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are empty C strings.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), FROM_AND_TO_EMPTY_PATH)
    };
    Errno::result(result).map(drop)
}

/// Adds attributes (MOUNT_ATTR_*) to the mount at the top of a tree.
pub fn mount_setattr(tree: BorrowedFd<'_>, attributes: u64) -> nix::Result<()> {
    set_attributes(tree, attributes, 0, None, 0)
}

/// Adds attributes to every mount of a tree, and sets the propagation of each (MS_SLAVE, ...) unless it is 0.
pub fn mount_setattr_recursive(tree: BorrowedFd<'_>, attributes: u64, propagation: u64) -> nix::Result<()> {
    set_attributes(tree, attributes, propagation, None, libc::AT_RECURSIVE)
}

/// Shifts the owners of all files in a detached tree as a user namespace maps them; `EINVAL` where one of its file systems
/// cannot be.
pub fn idmap(tree: BorrowedFd<'_>, users: BorrowedFd<'_>) -> nix::Result<()> {
    set_attributes(tree, libc::MOUNT_ATTR_IDMAP, 0, Some(users), libc::AT_RECURSIVE)
}

fn set_attributes(
    tree: BorrowedFd<'_>,
    attributes: u64,
    propagation: u64,
    users: Option<BorrowedFd<'_>>,
    flags: libc::c_int,
) -> nix::Result<()> {
    let userns_fd = users.map_or(0, |users| users.as_raw_fd() as u64);
    let mount_attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd };
    // SAFETY: the path is an empty C string; `mount_attr` is what the call reads, with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const mount_attr,
            size_of_val(&mount_attr),
        )
    };
    Errno::result(result).map(drop)
}

/// A new file system of a type that needs no options, mounted nowhere: it is there as long as the descriptor, or
/// anything opened in it, is.
pub fn mount_detached(file_system: &CStr) -> nix::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    // SAFETY: the name is a C string that outlives the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), FSOPEN_CLOEXEC) })?;
    let (fd, null) = (context.as_raw_fd(), std::ptr::null::<u8>());
    // SAFETY: this command takes neither key nor value.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, null, null, 0) };
    Errno::result(created)?;
    // SAFETY: no memory is involved.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })
}

/// Sends a signal by its number: real-time signals have no name in nix. A process that is gone is no matter.
pub fn kill(process: Pid, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(process.as_raw(), signal) };
}

/// A descriptor that is readable when the process, a child of this one, has ended.
pub fn pidfd_open(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) })
}

/// Forks into new namespaces (CLONE_NEW*); `None` in the new process. The process must have one thread.
pub fn fork(namespaces: CloneFlags) -> nix::Result<Option<Pid>> {
    clone(namespaces, libc::SIGCHLD, None)
}

/// The same, but the new process begins in a cgroup, of which this is the directory in cgroup v2.
pub fn fork_into_cgroup(namespaces: CloneFlags, cgroup: BorrowedFd<'_>) -> nix::Result<Option<Pid>> {
    clone(namespaces, libc::SIGCHLD, Some(cgroup))
}

/// The same, but the new process is a child of this one's parent, and tells that of its end as this one does.
pub fn fork_sibling(namespaces: CloneFlags) -> nix::Result<Option<Pid>> {
    clone(namespaces | CloneFlags::CLONE_PARENT, 0, None)
}

fn clone(
    flags: CloneFlags,
    exit_signal: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> nix::Result<Option<Pid>> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: all zero is a valid clone_args: nothing asked for.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.bits().cast_unsigned());
    arguments.exit_signal = exit_signal as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork; with one thread no lock is held by
    // somebody who does not exist there.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    let child = Errno::result(result)?;
    Ok((child != 0).then(|| Pid::from_raw(child as libc::pid_t)))
}

/// A copy of a descriptor with a number that is free, from `first` on; no program inherits it.
pub fn duplicate_from(fd: BorrowedFd<'_>, first: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) }.into())
}

/// Gives a copy of a descriptor this other number, which is closed if it is open; the next program inherits it. Whoever thinks to
/// own that number in this process has the copy instead.
pub fn give_number(fd: BorrowedFd<'_>, number: RawFd) -> nix::Result<()> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Keeps every descriptor from `first` on from the program that is executed next.
pub fn close_descriptors_on_exec(first: RawFd) -> nix::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no memory is involved, and nothing is closed before the execution.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Gives this process an empty session keyring of its own. A kernel without keys has none to keep from it, and a filter around
/// rkt that refuses the call (EPERM) refuses it to every app, too.
pub fn join_new_session_keyring() -> nix::Result<()> {
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name there is nothing to read.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives every signal its default action again, also those that were ignored when this process was started.
pub fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL needs no handler; numbers that cannot be changed are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Takes a capability out of what this process and those it starts can ever have; `false` past the kernel's last.
pub fn drop_from_bounding_set(capability: u32) -> nix::Result<bool> {
    // SAFETY: no memory is involved.
    match Errno::result(unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0)
    }) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3: 64 bits in two parts.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Limits what this process may to `set`; nothing is inheritable, and so nothing ambient.
pub fn limit_capabilities(set: u64) -> nix::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 reads one header and writes two parts, and that is what they are.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(result)?;
    for (part, wanted) in data.iter_mut().zip([set as u32, (set >> 32) as u32]) {
        part.permitted &= wanted;
        part.effective = part.permitted;
        part.inheritable = 0;
    }
    // SAFETY: as above; here the two parts are read.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// A filter of system calls as the kernel takes it.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// From a program.
    pub fn new(program: &[Instruction]) -> Self {
        let instruction = |instruction: &Instruction| {
            let Instruction { code, if_true: jt, if_false: jf, operand: k } = *instruction;
            libc::sock_filter { code, jt, jf, k }
        };
        Self(program.iter().map(instruction).collect())
    }

    /// Puts this process under it, for good. It makes no other system call, and takes no memory.
    pub fn install(&self) -> nix::Result<()> {
        let length = u16::try_from(self.0.len()).map_err(|_| Errno::EINVAL)?;
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the call reads one sock_fprog and as many instructions as that says; it writes nothing.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        Errno::result(result).map(drop)
    }
}

/// Strings as an execution takes them, laid out before.
pub struct Strings {
    /// Into the strings; a null pointer at the end.
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Strings {
    /// Of these.
    pub fn new(strings: Vec<CString>) -> Self {
        // Moving a CString does not move its bytes.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Executes a program; returns only if that failed. Unlike nix's, it takes no memory, which a filter might refuse.
pub fn execve(path: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: the path is a C string, and both arrays hold pointers to such and end in null; all outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    Errno::last()
}

mod ioctl {
    #![allow(missing_docs)]
    nix::ioctl_write_ptr_bad!(lock_terminal, libc::TIOCSPTLCK, libc::c_int);
    nix::ioctl_write_int_bad!(open_peer, libc::TIOCGPTPEER);
    nix::ioctl_write_int_bad!(control, libc::TIOCSCTTY);
    nix::ioctl_write_ptr_bad!(resize, libc::TIOCSWINSZ, libc::winsize);
    // linux/fs.h: BLKROSET
    nix::ioctl_write_ptr_bad!(block_read_only, 0x125d, libc::c_int);
}

/// The app's side of the terminal whose master side is given.
pub fn open_terminal_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the call reads one integer.
    unsafe { ioctl::lock_terminal(master.as_raw_fd(), &raw const unlocked) }?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is a number.
    owned(unsafe { ioctl::open_peer(master.as_raw_fd(), flags) }?.into())
}

/// Makes a terminal the controlling one of this process, which leads its session.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the argument is a number: nothing is taken away from another session.
    unsafe { ioctl::control(terminal.as_raw_fd(), 0) }.map(drop)
}

/// Sets a terminal's size.
pub fn resize_terminal(master: impl AsFd, size: TerminalSize) -> nix::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call reads one winsize.
    unsafe { ioctl::resize(master.as_fd().as_raw_fd(), &raw const size) }.map(drop)
}

/// Makes a block device and its partitions refuse writes.
pub fn set_read_only(device: BorrowedFd<'_>) -> nix::Result<()> {
    let read_only: libc::c_int = 1;
    // SAFETY: the call reads one integer.
    unsafe { ioctl::block_read_only(device.as_raw_fd(), &raw const read_only) }.map(drop)
}

/// Takes over a descriptor that a system call has just returned.
pub(crate) fn owned(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Closes every descriptor above standard error but these.
pub fn close_all_but(kept: &mut [RawFd]) -> nix::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()).chain([libc::c_uint::MAX]) {
        if fd > first {
            // SAFETY: no memory is involved. Whoever thinks to own one of them in this process gets EBADF.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            Errno::result(result)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}
