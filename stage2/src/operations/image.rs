//! Mounting EROFS images.

use std::path::Path;

use nix::errno::Errno;
use pod::plan::MountFlags;

use super::loop_device;
use super::mounts::{Kind, try_mount};
use crate::error::Error;
use crate::scope::Scope;

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

fn through_loop(scope: &Scope, kind: Kind<'_>, target: &Path, action: &str) -> Result<(), Error> {
    let attached = loop_device::attach(kind.source)?;
    let kind = Kind { source: &attached.path, ..kind };
    try_mount(scope, &kind, target, action)?.map_err(Error::path(action, target))
}
