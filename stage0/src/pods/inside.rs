//! What is in a pod's directory. That is opened once, and its files are found from there: the pod may move to another place
//! meanwhile, and the way to it is not walked again for each.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use pod::abi::PodDirectory;

use super::Error;

/// More than a pod's manifest usually has.
const USUAL_BYTES: usize = 4096;

/// The open directory of a pod.
#[derive(Debug)]
pub struct Inside {
    directory: File,
    /// Where it was when it was opened, for messages.
    path: PathBuf,
}

impl Inside {
    /// The names of a pod's files, relative to its directory.
    pub fn names() -> PodDirectory {
        PodDirectory::new("")
    }

    /// Opens the directory at a path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: File::open(path)?, path: path.into() })
    }

    /// Opens a directory in this one.
    pub fn enter(&self, name: &str) -> io::Result<Self> {
        Ok(Self { directory: self.open_file(Path::new(name))?, path: self.path.join(name) })
    }

    /// The directory itself, whose lock is the pod's.
    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// A file's content, if it is there.
    pub fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, Error> {
        match self.try_read(file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.path.join(file))(error)),
        }
    }

    /// The pod's manifest, as it stands there.
    pub fn manifest(&self) -> Result<Vec<u8>, Error> {
        let file = Self::names().manifest();
        self.try_read(&file).map_err(|error| Error::io("read", &self.path.join(&file))(error))
    }

    /// When the pod was made.
    pub fn created(&self) -> Option<SystemTime> {
        self.modified(&Self::names().created())
    }

    /// When it began to run.
    pub fn started(&self) -> Option<SystemTime> {
        self.modified(&Self::names().ppid()).or_else(|| self.modified(&Self::names().pid()))
    }

    fn try_read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let file = self.open_file(file)?;
        let mut content = Vec::with_capacity(USUAL_BYTES);
        // Read as far as there is anything: to ask for the size first takes longer than to read.
        file.take(u64::MAX).read_to_end(&mut content)?;
        Ok(content)
    }

    fn open_file(&self, file: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(openat(&self.directory, file, flags, Mode::empty())?.into())
    }

    /// The number in a file that is there in time; one that is being written is not there yet.
    pub fn number<T: std::str::FromStr>(&self, file: &Path) -> Result<Option<T>, Error> {
        let content = self.read(file)?;
        Ok(content.and_then(|content| std::str::from_utf8(&content).ok()?.trim().parse().ok()))
    }

    /// When a file was last modified, if it is there.
    pub fn modified(&self, file: &Path) -> Option<SystemTime> {
        let found = fstatat(&self.directory, file, AtFlags::empty()).ok()?;
        let seconds = Duration::from_secs(found.st_mtime.try_into().ok()?);
        let rest = Duration::from_nanos(found.st_mtime_nsec.try_into().ok()?);
        Some(SystemTime::UNIX_EPOCH + seconds + rest)
    }

    /// Whether there is something of that name, be it a link to nowhere.
    pub fn has(&self, file: &Path) -> bool {
        match fstatat(&self.directory, file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => true,
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_found_wherever_the_directory_is_by_now() {
        let parent = tempfile::tempdir().unwrap();
        let (before, after) = (parent.path().join("a"), parent.path().join("b"));
        fs::create_dir(&before).unwrap();
        fs::write(before.join("number"), "7\n").unwrap();
        fs::write(before.join("text"), "x".repeat(2 * USUAL_BYTES)).unwrap();
        std::os::unix::fs::symlink("nowhere", before.join("link")).unwrap();
        let inside = Inside::open(&before).unwrap();
        fs::rename(&before, &after).unwrap();
        let name = Path::new;
        assert_eq!(inside.number::<u32>(name("number")).unwrap(), Some(7));
        assert_eq!(inside.number::<u32>(name("text")).unwrap(), None);
        assert_eq!(inside.read(name("text")).unwrap().unwrap().len(), 2 * USUAL_BYTES);
        assert_eq!(inside.read(name("nothing")).unwrap(), None);
        assert!(inside.has(name("link")) && !inside.has(name("nothing")) && !inside.has(name("text/x")));
        let modified = fs::metadata(after.join("text")).unwrap().modified().unwrap();
        assert_eq!(inside.modified(name("text")), Some(modified));
        assert_eq!(inside.modified(name("link")), None);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let inside = Inside::open(parent.path()).unwrap();
        fs::create_dir(parent.path().join("d")).unwrap();
        let error = inside.read(Path::new("d")).unwrap_err().to_string();
        assert!(error.contains(parent.path().join("d").to_str().unwrap()), "{error}");
    }
}
