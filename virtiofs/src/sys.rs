//! The system calls that nix does not have, each with a safe face.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use crate::request::Time;

const CAP_FSETID: u32 = 4;

/// Sets the times of what is open as a place; `None` stays.
pub fn set_times(place: impl AsFd, accessed: Option<Time>, modified: Option<Time>) -> nix::Result<()> {
    let time = |time| match time {
        None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some(Time::Now) => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        Some(Time::At(tv_sec, nanoseconds)) => libc::timespec { tv_sec, tv_nsec: nanoseconds.into() },
    };
    let times = [time(accessed), time(modified)];
    let fd = place.as_fd().as_raw_fd();
    // SAFETY: the path is an empty C string, and there are two times.
    let result = unsafe { libc::utimensat(fd, c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    Errno::result(result).map(drop)
}

/// Reads entries of a directory (`struct linux_dirent64`) into `buffer`; how many bytes there are.
pub fn read_directory(directory: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a writable slice.
    let result = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(result).map(|count| count as usize)
}

/// copy_file_range(2) between offsets of files; how many bytes it took.
pub fn copy_range(from: (impl AsFd, i64), to: (impl AsFd, i64), length: usize) -> nix::Result<usize> {
    let (source, target) = (from.0.as_fd().as_raw_fd(), to.0.as_fd().as_raw_fd());
    let (mut at, mut to) = (from.1, to.1);
    // SAFETY: both offsets are there to be read and written.
    let result = unsafe { libc::copy_file_range(source, &raw mut at, target, &raw mut to, length, 0) };
    Errno::result(result).map(isize::cast_unsigned)
}

/// fsetxattr(2).
pub fn set_xattr(file: impl AsFd, name: &CStr, value: &[u8], flags: i32) -> nix::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the name is a C string; the pointer and the length are those of a slice.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    Errno::result(result).map(drop)
}

/// fgetxattr(2); with an empty buffer, the length that is needed.
pub fn get_xattr(file: impl AsFd, name: &CStr, value: &mut [u8]) -> nix::Result<usize> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the name is a C string; the pointer and the length are those of a writable slice.
    let result = unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    Errno::result(result).map(isize::cast_unsigned)
}

/// flistxattr(2); with an empty buffer, the length that is needed.
pub fn list_xattrs(file: impl AsFd, names: &mut [u8]) -> nix::Result<usize> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of a writable slice.
    let result = unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) };
    Errno::result(result).map(isize::cast_unsigned)
}

/// fremovexattr(2).
pub fn remove_xattr(file: impl AsFd, name: &CStr) -> nix::Result<()> {
    // SAFETY: the name is a C string.
    Errno::result(unsafe { libc::fremovexattr(file.as_fd().as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Lets changes of this thread's file system user leave its capabilities as they are (SECBIT_NO_SETUID_FIXUP), for good.
pub fn keep_capabilities() -> nix::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2 | 1 << 3;
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) }).map(drop)
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

/// Runs `action` without CAP_FSETID, so that a file that it writes loses set-user-ID and set-group-ID.
pub fn without_fsetid<T>(action: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let mut header = CapabilityHeader { version: 0x2008_0522, pid: 0 };
    let mut had = [CapabilityData::default(); 2];
    // SAFETY: version 3 reads one header and writes two parts, and that is what they are.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, had.as_mut_ptr()) };
    Errno::result(result)?;
    let mut less = had;
    if let Some(low) = less.first_mut() {
        low.effective &= !(1 << CAP_FSETID);
    }
    let mut set = |data: &[CapabilityData; 2]| {
        // SAFETY: as above; here the two parts are read.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
        Errno::result(result).map(drop)
    };
    set(&less)?;
    let done = action();
    set(&had)?;
    done
}
