//! The scratch disk: what the pod's apps write.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::sys::statvfs::fstatvfs;
use uuid::Uuid;

use crate::error::Error;

/// The disk's size. Its file is sparse: it takes as much of the host as the apps have written and not removed.
pub const SCRATCH_BYTES: u64 = 8 << 30;

/// Makes an empty scratch disk of [`SCRATCH_BYTES`], or of what the host's file system has free if that is less: an app
/// is to be told that the disk is full, not that it is broken.
pub fn make(path: &Path, uuid: Uuid) -> Result<File, Error> {
    let failed = |source| Error::ScratchFile { path: path.to_owned(), source };
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map_err(failed)?;
    let host = fstatvfs(&file).map_err(|errno| failed(errno.into()))?;
    let free = host.blocks_available().saturating_mul(host.fragment_size());
    scratch::format(&file, SCRATCH_BYTES.min(free), uuid.into_bytes())
        .map_err(|source| Error::Scratch { path: path.to_owned(), source })?;
    Ok(file)
}
