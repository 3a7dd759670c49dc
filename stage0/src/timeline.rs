//! `--timeline`: the marks of stage0 (stage1 ABI, [`pod::abi::ENV_TIMELINE`]), and what a stage1 is to do with all of them.

use std::io;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{AccessFlags, access};

/// What is wanted of when what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    #[default]
    No,
    /// It is printed.
    Printed,
    /// It is printed, and drawn into a file.
    Drawn(PathBuf),
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the timeline into {}", path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// What a stage1 gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Marks.
    pub marks: String,
    /// The file that it is drawn into, by an absolute path.
    pub file: Option<PathBuf>,
}

impl Wanted {
    /// The file, by a path that holds in every working directory, if it can be made.
    pub fn file(&self) -> Result<Option<PathBuf>, Error> {
        let Self::Drawn(path) = self else { return Ok(None) };
        let absolute = writable(path).map_err(|source| Error { path: path.clone(), source })?;
        Ok(Some(absolute))
    }
}

fn writable(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize()?,
        _ => std::env::current_dir()?,
    };
    let absolute = directory.join(name);
    if absolute.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // A name below a file is none, which access(2) does not say of the file itself.
    if !directory.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    access(&directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
    Ok(absolute)
}

/// Microseconds of CLOCK_MONOTONIC, which every stage shares.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    now.0.unsigned_abs() * 1_000_000 + now.1.unsigned_abs() / 1000
}

/// The marks of stage0: `rkt`, its first instruction, `images`, when all images were in the store, and `exec`, just
/// before it becomes the stage1.
pub fn marks(started: u64, images: u64, exec: u64) -> String {
    format!("rkt={started},images={images},exec={exec}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        let drawn = |name: &str| Wanted::Drawn(folder.path().join(name)).file();
        assert_eq!(drawn("a.svg").unwrap(), Some(home.join("a.svg")));
        std::fs::write(home.join("old.svg"), "old").unwrap();
        assert_eq!(drawn("old.svg").unwrap(), Some(home.join("old.svg")));
        std::fs::create_dir(home.join("directory.svg")).unwrap();
        for bad in ["directory.svg", "none/a.svg", "old.svg/a.svg"] {
            assert!(drawn(bad).unwrap_err().to_string().contains(bad));
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(Wanted::Drawn("b.svg".into()).file().unwrap(), Some(here.join("b.svg")));
        assert_eq!(Wanted::Printed.file().unwrap(), None);
    }
}
