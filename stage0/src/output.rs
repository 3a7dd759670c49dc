//! Files and directories that users ask for. Each gets its name when all of it is there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use tempfile::NamedTempFile;

use crate::remove;
use crate::store::Workspace;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would replace something.
    #[error("{} is there already; --overwrite replaces it", .0.display())]
    Exists(PathBuf),
    /// Nothing that can be replaced.
    #[error("{} cannot be replaced: name a directory in an existing one", .0.display())]
    NoName(PathBuf),
    /// It cannot be written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Makes a file; what is there stays unless it is to be replaced.
pub fn file<E: From<Error>>(
    path: &Path,
    overwrite: bool,
    fill: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(Error::Exists(path.to_owned()).into());
    }
    let (parent, name) = place(path)?;
    let mut unfinished = Unfinished::new(&parent).map_err(failed("write", path))?;
    fill(unfinished.file())?;
    unfinished.file().sync_all().map_err(failed("write", path))?;
    match unfinished.name(&parent.join(&name), &name, overwrite) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists(path.to_owned()).into())
        }
        Err(error) => Err(failed("write", path)(error).into()),
        Ok(()) => Ok(()),
    }
}

/// Permission bits of files that are made, less the caller's umask.
const MODE: u32 = 0o644;

/// A file that is not yet where it is to be.
enum Unfinished {
    /// It has no name: a kill leaves nothing. Its directory is open, for whoever fills it may change what paths mean.
    Unnamed(File, File),
    /// Where the file system has no such files.
    Named(NamedTempFile),
}

impl Unfinished {
    fn new(parent: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).mode(MODE).custom_flags(libc::O_TMPFILE);
        match options.open(parent) {
            Ok(file) => Ok(Self::Unnamed(file, File::open(parent)?)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let mut builder = tempfile::Builder::new();
                builder.permissions(Permissions::from_mode(MODE)).tempfile_in(parent).map(Self::Named)
            }
            Err(error) => Err(error),
        }
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Unnamed(file, _) => file,
            Self::Named(file) => file.as_file_mut(),
        }
    }

    /// Gives it its name in its directory, where `path` is; what has that stays unless it is to be replaced.
    fn name(self, path: &Path, name: &OsStr, replace: bool) -> io::Result<()> {
        match self {
            Self::Named(file) if replace => file.persist(path).map(drop).map_err(|error| error.error),
            Self::Named(file) => file.persist_noclobber(path).map(drop).map_err(|error| error.error),
            Self::Unnamed(file, parent) if replace => {
                // Only what has a name can take another's place. What a kill leaves is a whole file, and cleared here.
                let beside = unfinished_name(name);
                match unlinkat(&parent, beside.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
                link(&file, &parent, &beside)?;
                Ok(renameat(&parent, beside.as_os_str(), &parent, name)?)
            }
            Self::Unnamed(file, parent) => link(&file, &parent, name),
        }
    }
}

fn link(file: &File, parent: &File, name: &OsStr) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, open.as_str(), parent, name, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// The name beside `name` of what is yet to get that.
fn unfinished_name(name: &OsStr) -> OsString {
    [OsStr::new("."), name, OsStr::new(".rkt-unfinished")].into_iter().collect()
}

/// Makes a directory; what is there stays unless it is to be replaced.
pub fn directory<E: From<Error>>(
    path: &Path,
    overwrite: bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let (parent, name) = place(path)?;
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(Error::Exists(path.to_owned()).into());
    }
    // What a kill leaves is cleared by the next who makes the same.
    let unfinished = Workspace::acquire(parent.join(unfinished_name(&name)))
        .map_err(failed("make a directory beside", path))?;
    fill(unfinished.path())?;
    let named = if overwrite { replace(&unfinished, path) } else { unfinished.rename(path) };
    match named {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists(path.to_owned()).into())
        }
        Err(error) => Err(failed("make", path)(error).into()),
        Ok(()) => Ok(()),
    }
}

/// Gives a directory its name, whatever has that.
fn replace(unfinished: &Workspace, path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(there) if there.is_dir() => match unfinished.replace(path) {
            // Some file systems cannot exchange two.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => remove::tree(path)?,
            replaced => return replaced,
        },
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    unfinished.rename(path)
}

/// The directory that something is to be made in, and its name there.
fn place(path: &Path) -> Result<(PathBuf, OsString), Error> {
    let absolute = std::path::absolute(path).map_err(failed("find", path))?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(Error::NoName(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn listing(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("f");
        let write = |overwrite, text: &'static str| {
            file(&path, overwrite, |file| file.write_all(text.as_bytes()).map_err(failed("write", &path)))
        };
        let half = file(&path, false, |file| {
            file.write_all(b"half").unwrap();
            // As far as a kill would leave it.
            assert!(listing(parent.path()).is_empty());
            Err(Error::NoName("x".into()))
        });
        assert!(half.is_err() && listing(parent.path()).is_empty());
        write(false, "1").unwrap();
        assert!(matches!(write(false, "2"), Err(Error::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
        fs::write(parent.path().join(".f.rkt-unfinished"), "left by a kill").unwrap();
        write(true, "3").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "3");
        assert_eq!(listing(parent.path()), ["f"]);
    }

    #[test]
    fn a_directory_likewise() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("d");
        let make = |overwrite, name: &'static str| {
            directory(&path, overwrite, |made| {
                fs::write(made.join(name), "").map_err(failed("write", made))?;
                if name == "bad" { Err(Error::NoName("x".into())) } else { Ok(()) }
            })
        };
        assert!(make(false, "bad").is_err() && listing(parent.path()).is_empty());
        make(false, "a").unwrap();
        assert!(matches!(make(false, "b"), Err(Error::Exists(_))));
        assert!(make(true, "bad").is_err());
        assert_eq!(listing(&path), ["a"]);
        make(true, "b").unwrap();
        assert_eq!((listing(&path), listing(parent.path())), (vec!["b".into()], vec!["d".into()]));
        std::thread::scope(|scope| {
            let threads = [0; 8].map(|_| scope.spawn(|| (0..50).try_for_each(|_| make(true, "c"))));
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert_eq!((listing(&path), listing(parent.path())), (vec!["c".into()], vec!["d".into()]));
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        make(true, "b").unwrap();
        assert_eq!(listing(&path), ["b"]);
        for root in ["/", "/.."] {
            let root = directory(Path::new(root), true, |_| Ok::<(), Error>(()));
            assert!(matches!(root, Err(Error::NoName(_))));
        }
    }
}
