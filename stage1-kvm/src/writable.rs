//! The scratch disk: what the pod's apps write.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nix::sys::statvfs::fstatvfs;
use uuid::Uuid;

use crate::error::Error;

/// The size of a disk that nobody asked for. Its file is sparse: it takes as much of the host as the apps have written and not
/// removed.
const DEFAULT_BYTES: u64 = 8 << 30;

/// Makes an empty scratch disk of the size that is wanted. It is not larger than what the host's file system has free: an app is to
/// be told that the disk is full, not that it is broken.
pub fn make(path: &Path, wanted: Option<u64>, uuid: Uuid) -> Result<File, Error> {
    let failed = |source| Error::ScratchFile { path: path.to_owned(), source };
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).map_err(failed)?;
    let host = fstatvfs(&file).map_err(|errno| failed(errno.into()))?;
    let free = host.blocks_available().saturating_mul(host.fragment_size());
    let bytes = size(wanted, free).ok_or_else(|| Error::NoSpace {
        path: path.to_owned(),
        wanted: wanted.unwrap_or_default(),
        free,
    })?;
    scratch::format(&file, bytes, uuid.into_bytes())
        .map_err(|source| Error::Scratch { path: path.to_owned(), source })?;
    Ok(file)
}

/// The disk's size; `None` if the host does not have what somebody asked for.
fn size(wanted: Option<u64>, free: u64) -> Option<u64> {
    match wanted {
        Some(wanted) => (wanted <= free).then_some(wanted),
        None => Some(DEFAULT_BYTES.min(free)),
    }
}

#[cfg(test)]
mod tests {
    use pod::disk_space::{MAX_DISK_BYTES, MIN_DISK_BYTES};

    use super::*;

    #[test]
    fn what_is_asked_for_is_there() {
        assert_eq!([None, Some(1 << 30)].map(|wanted| size(wanted, 1 << 40)), [Some(8 << 30), Some(1 << 30)]);
        assert_eq!([None, Some(1 << 30)].map(|wanted| size(wanted, 100 << 20)), [Some(100 << 20), None]);
    }

    #[test]
    fn a_disk_can_have_every_size_that_can_be_asked_for() {
        assert_eq!((scratch::MIN_BYTES, scratch::MAX_BYTES), (MIN_DISK_BYTES, MAX_DISK_BYTES));
    }
}
