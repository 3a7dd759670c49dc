//! The lock between those who attach and detach, and garbage collection: what is half attached is in no list of what
//! is valid, and must not be taken for garbage.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::Error;

/// In the cache's directory, so that all who share a cache share the lock.
const FILE: &str = "rkt.lock";

/// Held by any number of processes that attach and detach.
pub fn shared(directory: &Path) -> Result<File, Error> {
    take(directory, File::lock_shared)
}

/// Held by one that collects garbage, and by nobody else then.
pub fn exclusive(directory: &Path) -> Result<File, Error> {
    take(directory, File::lock)
}

fn take(directory: &Path, lock: fn(&File) -> std::io::Result<()>) -> Result<File, Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(directory).map_err(Error::io("make", directory))?;
    let path = directory.join(FILE);
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    lock(&file).map_err(Error::io("lock", &path))?;
    Ok(file)
}
