//! Volumes: trees that are attached, and bound to their places in the apps.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};
use pod::volumes::EmptyVolume;

use crate::error::Error;
use crate::scope::Scope;
use crate::sys;

/// Attaches a tree that was handed over.
pub fn attach(scope: &Scope, trees: &[OwnedFd], tree: usize, target: &Path) -> Result<(), Error> {
    const ACTION: &str = "attach a volume to";
    let missing = || Error::Impossible(format!("no tree {tree} was handed over for {}", target.display()));
    let tree = trees.get(tree).ok_or_else(missing)?;
    let place = scope.find(target, ACTION)?;
    sys::move_mount(tree.as_fd(), place.as_fd()).map_err(Error::path(ACTION, target))
}

/// Binds a volume with all that is mounted in it. What is read-only already stays so.
pub fn bind(scope: &Scope, source: &Path, target: &Path, read_only: bool) -> Result<(), Error> {
    const ACTION: &str = "mount a volume on";
    let place = scope.find(target, ACTION)?;
    // Volumes are where no app can put anything.
    let from = Scope::new(Path::new("/"))?.find(source, ACTION)?;
    let bound = sys::open_tree_of(from.as_fd()).and_then(|tree| {
        if read_only {
            sys::mount_setattr_recursive(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0)?;
        }
        sys::move_mount(tree.as_fd(), place.as_fd())
    });
    match bound {
        // The kernel's word for a file on a directory, and for the reverse.
        Err(Errno::ENOTDIR) => Err(Error::Because {
            what: format!("the volume and the image's {} are not both directories", target.display()),
            source: Box::new(Error::path(ACTION, target)(Errno::ENOTDIR)),
        }),
        bound => bound.map_err(Error::path(ACTION, target)),
    }
}

/// Makes an empty file unless something is there.
pub fn make_empty_file(scope: &Scope, path: &Path) -> Result<(), Error> {
    const ACTION: &str = "make file";
    match scope.find(path, ACTION) {
        Err(Error::Path { source: Errno::ENOENT, .. }) => {}
        other => return other.map(drop),
    }
    if let Some(parent) = path.parent() {
        scope.make_directory(parent, 0o755)?;
    }
    let (directory, name) = scope.find_parent(path, ACTION)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&directory, name, flags, Mode::from_bits_truncate(0o644));
    made.map(drop).map_err(Error::path(ACTION, path))
}

/// Makes the directory of an empty volume.
pub fn make_empty(scope: &Scope, path: &Path, volume: &EmptyVolume) -> Result<(), Error> {
    const ACTION: &str = "make the volume";
    if let Some(parent) = path.parent() {
        scope.make_directory(parent, 0o755)?;
    }
    let (parent, name) = scope.find_parent(path, ACTION)?;
    let made = mkdirat(&parent, name, Mode::S_IRWXU).and_then(|()| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        give(&File::from(openat(&parent, name, flags, Mode::empty())?), volume)
    });
    made.map_err(Error::path(ACTION, path))
}

/// Sets a file's or directory's owner and mode; in this order, for a change of the owner may take bits of the mode away.
pub fn give(place: &impl AsFd, volume: &EmptyVolume) -> nix::Result<()> {
    let EmptyVolume { mode, uid, gid } = *volume;
    let is = fstat(place)?;
    if (is.st_uid, is.st_gid) != (uid, gid) {
        fchown(place, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(place, Mode::from_bits_truncate(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_and_directories_to_mount_on() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let scope = Scope::new(root.path()).unwrap();
        fs::write(at("kept"), "old").unwrap();
        symlink("/kept", at("link")).unwrap();
        for path in ["kept", "link", "a/b"] {
            make_empty_file(&scope, &at(path)).unwrap();
        }
        assert_eq!(fs::read(at("kept")).unwrap(), b"old");
        assert_eq!(fs::read(at("a/b")).unwrap(), b"");
        let own = fstat(File::open(root.path()).unwrap()).unwrap();
        let volume = EmptyVolume { mode: 0o1770, uid: own.st_uid, gid: own.st_gid };
        make_empty(&scope, &at("v/data"), &volume).unwrap();
        assert_eq!(fs::metadata(at("v/data")).unwrap().permissions().mode() & 0o7777, 0o1770);
        assert!(make_empty(&scope, &at("v/data"), &volume).is_err(), "it is somebody else's");
    }
}
