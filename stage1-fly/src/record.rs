//! What a pod tells in its directory: what its app was to be, for the entrypoints that come later; and, by the lock, which is a
//! descriptor of that directory, how far it has come once its root is another.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{symlinkat, write};
use pod::abi::PodDirectory;
use pod::plan::AppPlan;

use crate::error::Error;

/// Writes what the app is to be.
pub fn write_app(directory: &PodDirectory, app: &AppPlan) -> Result<(), Error> {
    let path = directory.runtime_config();
    let json = serde_json::to_vec(app).map_err(io::Error::from);
    json.and_then(|json| fs::write(&path, json)).map_err(Error::path("write", &path))
}

/// What the app was to be; `None` as long as the pod has not come so far.
pub fn read_app(directory: &PodDirectory) -> Result<Option<AppPlan>, Error> {
    let path = directory.runtime_config();
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read
            .and_then(|json| serde_json::from_slice(&json).map_err(io::Error::from))
            .map(Some)
            .map_err(Error::path("read", &path)),
    }
}

/// Tells that this process has the app's root, and can be entered.
pub fn tell_entrance(lock: impl AsFd) -> Result<(), Error> {
    let path = PodDirectory::new("").pid();
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let text = format!("{}\n", std::process::id());
    openat(lock, &path, flags, Mode::from_bits_truncate(0o644))
        .and_then(|file| write(file, text.as_bytes()))
        .map(drop)
        .map_err(|errno| Error::path("write", &path)(errno.into()))
}

/// Tells that everything is done but the execution of the app's program.
pub fn tell_ready(lock: impl AsFd) -> Result<(), Error> {
    let path = PodDirectory::new("").supervisor_status();
    symlinkat("ready", lock, &path).map_err(|errno| Error::path("write", &path)(errno.into()))
}
