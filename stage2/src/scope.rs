//! Paths under a root that may be hostile. An image can hold `/proc -> /etc` or `/dev -> ../../..`: every path of an
//! app's set-up is looked up with the app's root as the root (openat2, RESOLVE_IN_ROOT), so that no link of the image
//! leads out of it, and what is done is done to the descriptor that was found, never to a path once more.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::error::Error;

/// A directory that paths do not lead out of.
#[derive(Debug)]
pub struct Scope {
    path: PathBuf,
    root: OwnedFd,
}

impl Scope {
    /// The scope of what is at `path`, which itself is trusted.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(path, flags, Mode::empty()).map_err(Error::path("open", path))?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// Opens an existing file or directory as a place (O_PATH), for `action` if that fails.
    pub fn find(&self, path: &Path, action: &str) -> Result<OwnedFd, Error> {
        self.open(self.inside(path)?, OFlag::empty()).map_err(Error::path(action, path))
    }

    /// Opens the directory that holds `path`'s last component.
    pub fn find_parent<'p>(&self, path: &'p Path, action: &str) -> Result<(OwnedFd, &'p OsStr), Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::path(action, path)(Errno::EISDIR));
        };
        Ok((self.find(parent, action)?, name))
    }

    /// Makes a directory and those above it; see [`pod::plan::Operation::Directory`].
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<(), Error> {
        self.make(self.inside(path)?, Mode::from_bits_truncate(mode))
            .map_err(Error::path("make directory", path))
    }

    fn make(&self, relative: &Path, mode: Mode) -> nix::Result<()> {
        match self.open(relative, OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {}
            other => return other.map(drop),
        }
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
            return Err(Errno::ENOENT);
        };
        self.make(parent, Mode::from_bits_truncate(0o755))?;
        nix::sys::stat::mkdirat(self.open(parent, OFlag::O_DIRECTORY)?, name, mode)
    }

    fn open(&self, relative: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, relative, how)
    }

    fn inside<'p>(&self, path: &'p Path) -> Result<&'p Path, Error> {
        path.strip_prefix(&self.path).map_err(|_| {
            Error::Impossible(format!("{} is not inside {}", path.display(), self.path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::causes;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_do_not_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir(outside.path().join("secret")).unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
        symlink("/etc", root.join("inside")).unwrap();
        let scope = Scope::new(&root).unwrap();

        for hostile in ["up", "absolute", "up/x", "../secret"] {
            let _ = scope.make_directory(&root.join(hostile).join("made"), 0o755);
        }
        assert_eq!(std::fs::read_dir(outside.path().join("secret")).unwrap().count(), 0);
        scope.make_directory(&root.join("inside/made"), 0o755).unwrap();
        assert!(root.join("etc/made").is_dir(), "a link inside the root works as it does for the app");
        assert!(scope.make_directory(outside.path(), 0o755).is_err());
    }

    #[test]
    fn directories_above_are_made_and_modes_are_exact() {
        use std::os::unix::fs::PermissionsExt;
        let before = nix::sys::stat::umask(Mode::empty());
        let root = tempfile::tempdir().unwrap();
        let scope = Scope::new(root.path()).unwrap();
        scope.make_directory(&root.path().join("a/b/c"), 0o1777).unwrap();
        scope.make_directory(&root.path().join("a/b/c"), 0o700).unwrap();
        nix::sys::stat::umask(before);
        let mode = |path: &str| root.path().join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b/c")), (0o755, 0o1777));
    }

    #[test]
    fn a_file_or_a_dangling_link_is_no_directory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        symlink("nowhere", root.path().join("dangling")).unwrap();
        let scope = Scope::new(root.path()).unwrap();
        for bad in ["file", "file/below", "dangling"] {
            let error = scope.make_directory(&root.path().join(bad), 0o755).unwrap_err();
            assert!(causes(&error).concat().contains(bad), "{error}");
        }
    }
}
