//! What an image has at a mount point becomes the beginning of its volume, as docker has it: directories, files, links and
//! pipes, with their owners, modes and times. Devices and sockets are left out: an app could not use them in its image either.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, mkfifoat, symlinkat};
use pod::volumes::EmptyVolume;

use super::volume::give;
use crate::error::{Error, errno};
use crate::scope::Scope;

/// Each level takes two descriptors.
const DEEPEST: usize = 200;
const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Copies the directory `path` of the app's root at `root` into `volume`.
pub fn populate(scope: &Scope, root: &Path, path: &Path, volume: &Path) -> Result<(), Error> {
    const ACTION: &str = "copy into its volume what the image has in";
    let from = root.join(path.strip_prefix("/").unwrap_or(path));
    // The root itself was made by us; nothing of the image leads out of it.
    let place = match Scope::new(root)?.find(&from, ACTION) {
        Err(Error::Path { source: Errno::ENOENT, .. }) => return Ok(()),
        other => other?,
    };
    let to = scope.find(volume, ACTION)?;
    let copied = openat(&to, ".", DIRECTORY, Mode::empty())
        .and_then(|to| Ok((openat(&place, ".", DIRECTORY, Mode::empty())?, to)))
        .and_then(|(from, to)| copy_directory(from, &to, 0));
    match copied {
        // A file of the image is for the mount to complain of.
        Err(Errno::ENOTDIR) => Ok(()),
        copied => copied.map_err(Error::path(ACTION, from)),
    }
}

/// Copies a directory's content, then its own metadata, which writing in it would change.
fn copy_directory(from: OwnedFd, to: &OwnedFd, depth: usize) -> nix::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::ELOOP);
    }
    let stat = fstat(&from)?;
    let mut directory = Dir::from_fd(from)?;
    let entries: Vec<_> = directory.iter().collect::<nix::Result<_>>()?;
    for entry in entries.iter().filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
        copy(&directory, to, entry.file_name(), entry.file_type(), depth)?;
    }
    give(to, &owner_and_mode(&stat))?;
    let [accessed, modified] = times(&stat);
    futimens(to, &accessed, &modified)
}

fn copy(from: &Dir, to: &OwnedFd, name: &CStr, kind: Option<Type>, depth: usize) -> nix::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = match kind {
        Some(kind) => kind,
        None => type_of(&stat),
    };
    match kind {
        Type::Directory => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let inner = openat(to, name, DIRECTORY, Mode::empty())?;
            return copy_directory(openat(from, name, DIRECTORY, Mode::empty())?, &inner, depth + 1);
        }
        Type::File => return copy_file(from, to, name, &stat),
        Type::Symlink => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
        Type::Fifo => mkfifoat(to, name, Mode::from_bits_truncate(stat.st_mode))?,
        Type::Socket | Type::CharacterDevice | Type::BlockDevice => return Ok(()),
    }
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    fchownat(to, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let [accessed, modified] = times(&stat);
    utimensat(to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)
}

fn copy_file(from: &Dir, to: &OwnedFd, name: &CStr, stat: &FileStat) -> nix::Result<()> {
    let reading = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let writing = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut source = File::from(openat(from, name, reading, Mode::empty())?);
    let mut copy = File::from(openat(to, name, writing, Mode::S_IRUSR | Mode::S_IWUSR)?);
    std::io::copy(&mut source, &mut copy).map_err(|error| errno(&error))?;
    give(&copy.as_fd(), &owner_and_mode(stat))?;
    let [accessed, modified] = times(stat);
    futimens(&copy, &accessed, &modified)
}

fn owner_and_mode(stat: &FileStat) -> EmptyVolume {
    EmptyVolume { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
}

fn times(stat: &FileStat) -> [TimeSpec; 2] {
    [TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)]
}

fn type_of(stat: &FileStat) -> Type {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Type::Directory,
        SFlag::S_IFREG => Type::File,
        SFlag::S_IFLNK => Type::Symlink,
        SFlag::S_IFIFO => Type::Fifo,
        SFlag::S_IFSOCK => Type::Socket,
        SFlag::S_IFCHR => Type::CharacterDevice,
        _ => Type::BlockDevice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_as_it_is() {
        let world = tempfile::tempdir().unwrap();
        let (root, volume) = (world.path().join("root"), world.path().join("volume"));
        fs::create_dir_all(root.join("srv/data/inner")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(root.join("srv/data/inner/file"), "content").unwrap();
        symlink("../../../outside", root.join("srv/data/link")).unwrap();
        symlink("/srv", root.join("alias")).unwrap();
        fs::set_permissions(root.join("srv/data/inner"), fs::Permissions::from_mode(0o2750)).unwrap();
        fs::set_permissions(root.join("srv/data/inner/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(root.join("srv/data"), fs::Permissions::from_mode(0o1777)).unwrap();
        let scope = Scope::new(world.path()).unwrap();
        populate(&scope, &root, Path::new("/alias/data"), &volume).unwrap();
        for path in ["", "inner", "inner/file", "link"] {
            let [one, other] = [root.join("srv/data"), volume.clone()]
                .map(|at| fs::symlink_metadata(at.join(path)).unwrap());
            let described = |of: &fs::Metadata| (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec());
            assert_eq!(described(&one), described(&other), "{path}");
        }
        assert_eq!(fs::read(volume.join("inner/file")).unwrap(), b"content");
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("../../../outside"));
    }

    #[test]
    fn nothing_comes_from_outside_of_the_root() {
        let world = tempfile::tempdir().unwrap();
        let (root, volume) = (world.path().join("root"), world.path().join("volume"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::create_dir(world.path().join("secret")).unwrap();
        fs::write(world.path().join("secret/key"), "").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(world.path().join("secret"), root.join("absolute")).unwrap();
        let scope = Scope::new(world.path()).unwrap();
        for path in ["/up", "/absolute", "/nowhere"] {
            populate(&scope, &root, Path::new(path), &volume).unwrap();
        }
        assert_eq!(fs::read_dir(volume).unwrap().count(), 0);
    }
}
