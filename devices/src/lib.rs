//! The device filter of a cgroup v2: the kernel asks a BPF program before a process of the cgroup, or of one below it,
//! opens a device or makes a node of one. The program is computed from a pod's [`DevicePolicy`] ([`program`]), and the
//! cgroup keeps it for as long as it exists.

pub mod program;
mod sys;

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use pod::devices::DevicePolicy;

/// Why a cgroup has no device filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not take the program.
    #[error(
        "the kernel takes no device filter for cgroups: it needs CONFIG_CGROUP_BPF, and root with CAP_BPF and \
        CAP_NET_ADMIN (or CAP_SYS_ADMIN)"
    )]
    Load(#[source] Errno),
    /// The cgroup does not.
    #[error(
        "the cgroup takes no device filter: it may have a filter above it that allows no other (BPF_F_ALLOW_MULTI)"
    )]
    Attach(#[source] Errno),
}

/// Keeps the processes of a cgroup v2, an open directory, to the devices that `policy` allows.
pub fn confine(cgroup: BorrowedFd<'_>, policy: &DevicePolicy) -> Result<(), Error> {
    let program = sys::load(&program::of(policy)).map_err(Error::Load)?;
    sys::attach(&program, cgroup).map_err(Error::Attach)
}

/// Whether this kernel, and this process's privileges, allow [`confine`], as far as it can be told without a cgroup.
pub fn check() -> Result<(), Error> {
    sys::load(&program::of(&DevicePolicy::closed())).map(drop).map_err(Error::Load)
}
