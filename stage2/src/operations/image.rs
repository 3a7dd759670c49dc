//! Mounting EROFS images.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use pod::plan::MountFlags;

use super::loop_device;
use super::mounts::{Kind, try_mount};
use crate::error::{Error, errno};
use crate::scope::Scope;
use crate::sys;

/// Nobody sees an image but through the overlay, which says for itself what its programs may.
const FLAGS: MountFlags = MountFlags { read_only: true, no_suid: false, no_dev: true, no_exec: false };

pub fn mount(scope: &Scope, source: &Path, target: &Path, dax: bool) -> Result<(), Error> {
    let action = format!("mount image {} on", source.display());
    let kind =
        Kind { file_system: "erofs", source, flags: FLAGS, options: if dax { "dax=always" } else { "" } };
    match try_mount(scope, &kind, target, &action)? {
        // Before Linux 6.12 an image has to be a block device.
        Err(Errno::ENOTBLK) => through_loop(scope, kind, target, &action),
        other => other.map_err(Error::path(action, target)),
    }
}

/// Makes a disk refuse writes, which the device itself has no bit to say of.
pub fn make_read_only(disk: &Path) -> Result<(), Error> {
    let open = File::open(disk).map_err(|error| Error::path("open", disk)(errno(&error)))?;
    sys::set_read_only(open.as_fd()).map_err(Error::path("make read-only", disk))
}

fn through_loop(scope: &Scope, kind: Kind<'_>, target: &Path, action: &str) -> Result<(), Error> {
    let attached = loop_device::attach(kind.source)?;
    let kind = Kind { source: &attached.path, ..kind };
    try_mount(scope, &kind, target, action)?.map_err(Error::path(action, target))
}
