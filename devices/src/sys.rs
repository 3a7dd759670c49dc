//! The two commands of bpf(2) that a device filter needs.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::program::Instruction;

// <linux/bpf.h>
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// What `bpftool prog` shows.
const NAME: [u8; 16] = *b"rkt_devices\0\0\0\0\0";
/// Matters only to programs that call the kernel's GPL functions.
const LICENSE: &CStr = c"Apache-2.0";

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes the rest for zero.
#[repr(C)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target_fd: libc::c_int,
    attach_bpf_fd: libc::c_int,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a device filter, which is gone with the descriptor unless it is attached to something.
pub fn load(program: &[Instruction]) -> nix::Result<OwnedFd> {
    let attributes = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
    };
    let size = size_of_val(&attributes);
    // SAFETY: the attributes are as large as is said; the instructions, as many as is said, and the license are read
    // during the call, which they outlive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size) };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Attaches a device filter to a cgroup, beside those of others there and above: an access needs the consent of all.
pub fn attach(program: &OwnedFd, cgroup: BorrowedFd<'_>) -> nix::Result<()> {
    let attributes = AttachAttributes {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    let size = size_of_val(&attributes);
    // SAFETY: the attributes are as large as is said, and hold no pointer.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size) };
    Errno::result(result).map(drop)
}
