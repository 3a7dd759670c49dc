//! What a running pod tells in its directory.

use std::io;
use std::path::{Path, PathBuf};

use ::pod::abi::PodDirectory;
use ::pod::control::ExitStatus;
use ::pod::types::AcName;

use crate::Error;

/// Writes the exit status of an app.
pub fn write_exit(directory: &PodDirectory, app: &AcName, status: ExitStatus) -> Result<(), Error> {
    write(directory.status(app), status.code().to_string().as_bytes())
}

/// Forgets how an app has ended, which runs again.
pub fn remove_exit(directory: &PodDirectory, app: &AcName) -> Result<(), Error> {
    remove(directory.status(app))
}

/// Writes how often an app has been started again.
pub fn write_restarts(directory: &PodDirectory, app: &AcName, restarts: u32) -> Result<(), Error> {
    write(directory.restarts(app), restarts.to_string().as_bytes())
}

/// Writes how many processes of an app were killed for want of memory.
pub fn write_oom_kills(directory: &PodDirectory, app: &AcName, kills: u64) -> Result<(), Error> {
    write(directory.oom_kills(app), kills.to_string().as_bytes())
}

/// Marks that an app has come into a pod that runs.
pub fn write_created(directory: &PodDirectory, app: &AcName) -> Result<(), Error> {
    write(directory.app_created(app), b"")
}

/// Marks that an app of a pod whose apps come and go runs.
pub fn write_started(directory: &PodDirectory, app: &AcName) -> Result<(), Error> {
    write(directory.app_started(app), b"")
}

/// Writes that this process is the pod's parent, which `stop` signals.
pub fn write_parent(directory: &PodDirectory) -> Result<(), Error> {
    write(directory.ppid(), format!("{}\n", std::process::id()).as_bytes())
}

/// Forgets all that was told of an app.
pub fn remove_app(directory: &PodDirectory, app: &AcName) -> Result<(), Error> {
    directory.told_of(app).into_iter().try_for_each(remove)
}

/// Tells that every app has started.
pub fn write_ready(directory: &PodDirectory) -> Result<(), Error> {
    link("ready", &directory.supervisor_status())
}

/// Writes the process that `enter` enters.
pub fn write_pid(directory: &PodDirectory, pid: u32) -> Result<(), Error> {
    write(directory.pid(), format!("{pid}\n").as_bytes())
}

/// Writes the machine's process.
pub fn write_vmm_pid(directory: &PodDirectory, pid: i32) -> Result<(), Error> {
    write(directory.vmm_pid(), format!("{pid}\n").as_bytes())
}

/// Writes the isolation's name.
pub fn write_flavor(directory: &PodDirectory, flavor: &str) -> Result<(), Error> {
    link(flavor, &directory.flavor())
}

fn link(target: &str, path: &Path) -> Result<(), Error> {
    match make(path, || std::os::unix::fs::symlink(target, path)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn remove(path: PathBuf) -> Result<(), Error> {
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

fn write(path: PathBuf, content: &[u8]) -> Result<(), Error> {
    make(&path, || std::fs::write(&path, content)).map_err(|error| failed(&path, error))
}

/// Makes a file by `how`, and its directory if that is missing.
fn make(path: &Path, how: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match how() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| how())
        }
        other => other,
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { action: "write", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_when_missing() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        let app: AcName = "web".parse().unwrap();
        write_ready(&directory).unwrap();
        write_exit(&directory, &app, ExitStatus::Signal(9)).unwrap();
        assert_eq!(std::fs::read_to_string(directory.status(&app)).unwrap(), "137");
        write_restarts(&directory, &app, 3).unwrap();
        assert_eq!(std::fs::read_to_string(directory.restarts(&app)).unwrap(), "3");
        remove_exit(&directory, &app).unwrap();
        remove_exit(&directory, &app).unwrap();
        assert!(!directory.status(&app).exists());
        write_oom_kills(&directory, &app, 2).unwrap();
        assert_eq!(std::fs::read_to_string(directory.oom_kills(&app)).unwrap(), "2");
        write_flavor(&directory, "nspawn").unwrap();
        write_flavor(&directory, "nspawn").unwrap();
        assert_eq!(std::fs::read_link(directory.flavor()).unwrap(), Path::new("nspawn"));
        write_ready(&directory).unwrap();
        assert_eq!(std::fs::read_link(directory.supervisor_status()).unwrap(), Path::new("ready"));
    }
}
