//! The system calls that nix does not have, each with a safe face.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

/// A descriptor of the process with a number: it stays that process's, whoever gets the number later.
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Sends a signal, by its number, to the process of a descriptor.
pub fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    let (pidfd, none) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: without a siginfo no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, none, 0) };
    Errno::result(result).map(drop)
}

/// Whether a file has an extended attribute that is "1".
pub fn has_flag(file: &Path, attribute: &CStr) -> bool {
    let Ok(file) = CString::new(file.as_os_str().as_bytes()) else { return false };
    let mut value = [0u8; 2];
    // SAFETY: both names are strings that end with a zero, and the kernel writes no more than the array has.
    let length =
        unsafe { libc::getxattr(file.as_ptr(), attribute.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length == 1 && value.starts_with(b"1")
}
