//! Changing the root.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::error::Error;

/// Makes a mount point the root, and drops the old one with all that is mounted below it.
pub fn change(path: &Path) -> Result<(), Error> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let changed = open(path, flags, Mode::empty()).and_then(fchdir).and_then(|()| {
        match pivot_root(".", ".") {
            // The old root now lies over the new one.
            Ok(()) => umount2(".", MntFlags::MNT_DETACH),
            Err(Errno::EINVAL) => cover_old_root(),
            other => other,
        }
    });
    changed.and_then(|()| chdir("/")).map_err(Error::path("change the root to", path))
}

/// The initial ramfs of a guest cannot be pivoted away from: the new root is laid over it.
fn cover_old_root() -> nix::Result<()> {
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")
}
