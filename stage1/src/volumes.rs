//! A pod's volumes, opened before anything runs: each becomes a detached mount that the supervisor attaches. So the place
//! that was checked is the place that is mounted, whatever becomes of its path.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use ::pod::abi::PodDirectory;
use ::pod::devices::DeviceKind;
use ::pod::plan::OpenedVolume;
use ::pod::users::UserRange;
use ::pod::volumes::{EmptyVolume, PodVolume, VolumeSource, assign};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, major, minor};
use stage2::sys;

use crate::Error;
use crate::pod::Pod;

/// The users that a pod has for itself.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a> {
    /// Who they are on the host.
    pub range: UserRange,
    /// Their user namespace.
    pub namespace: BorrowedFd<'a>,
}

/// The volumes of a pod, and what each is, in the order of the plan's; with the host's users, if it has none of its own.
pub fn open(pod: &Pod, users: Option<Users<'_>>) -> Result<(Vec<OwnedFd>, Vec<OpenedVolume>), Error> {
    let assigned = assign(&pod.manifest)
        .map_err(|source| Error::Pod { what: "cannot use the pod's volumes".into(), source })?;
    let opened = assigned.volumes.iter().map(|volume| open_one(&pod.directory, volume, users));
    Ok(opened.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

/// Opens one.
pub fn open_one(
    directory: &PodDirectory,
    volume: &PodVolume,
    users: Option<Users<'_>>,
) -> Result<(OwnedFd, OpenedVolume), Error> {
    let (path, recursive, idmap) = match &volume.source {
        VolumeSource::Host { path, recursive, idmap } => (path.clone(), *recursive, *idmap),
        VolumeSource::Empty(empty) => {
            let owned = on_host(&volume.key, empty, users.map(|users| users.range))?;
            (make_empty(&directory.shared_volume(&volume.key), &owned)?, false, false)
        }
    };
    let opened = open_tree(&path, recursive, volume.read_only).and_then(|tree| {
        let kind = kind(&tree)?;
        Ok((tree, kind))
    });
    let (tree, kind) =
        opened.map_err(|source| Error::Volume { volume: volume.key.clone(), path: path.clone(), source })?;
    if let (true, Some(users)) = (idmap, users) {
        sys::idmap(tree.as_fd(), users.namespace).map_err(|source| Error::Idmap {
            volume: volume.key.clone(),
            path,
            source,
        })?;
    }
    Ok((tree, kind))
}

/// The volume with its owner as the host knows him.
fn on_host(name: &str, volume: &EmptyVolume, users: Option<UserRange>) -> Result<EmptyVolume, Error> {
    let Some(range) = users else { return Ok(*volume) };
    let EmptyVolume { mode, uid, gid } = *volume;
    match (range.on_host(uid), range.on_host(gid)) {
        (Some(uid), Some(gid)) => Ok(EmptyVolume { mode, uid, gid }),
        _ => Err(Error::NoSuchUser { volume: name.to_owned(), uid, gid, count: range.count }),
    }
}

/// A detached mount of a file or directory of the host, with the mounts in it if it is `recursive`.
pub fn open_tree(path: &Path, recursive: bool, read_only: bool) -> nix::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let tree = if recursive { sys::open_tree(&path) } else { sys::open_mount(&path) }?;
    let attributes = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    // What the host mounts in there is seen in the pod; nothing goes the other way.
    sys::mount_setattr_recursive(tree.as_fd(), attributes, libc::MS_SLAVE)?;
    Ok(tree)
}

fn kind(tree: &OwnedFd) -> nix::Result<OpenedVolume> {
    let stat = fstat(tree)?;
    // Linux's numbers have 12 and 20 bits.
    let device = |kind| OpenedVolume::Device {
        kind,
        major: major(stat.st_rdev) as u32,
        minor: minor(stat.st_rdev) as u32,
    };
    Ok(match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => OpenedVolume::Directory,
        SFlag::S_IFCHR => device(DeviceKind::Character),
        SFlag::S_IFBLK => device(DeviceKind::Block),
        _ => OpenedVolume::File,
    })
}

/// Makes the directory of an empty volume, in the pod's own directory: it goes with the pod.
fn make_empty(path: &Path, volume: &EmptyVolume) -> Result<PathBuf, Error> {
    let EmptyVolume { mode, uid, gid } = *volume;
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .and_then(|()| chown(path, Some(uid), Some(gid)))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map(|()| path.to_owned()).map_err(Error::file("make the volume", path))
}
