//! Mounts and bind mounts.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use pod::plan::MountFlags;

use crate::error::Error;
use crate::scope::Scope;
use crate::sys;

/// What is mounted.
pub struct Kind<'a> {
    /// The file system's type.
    pub file_system: &'a str,
    /// The device, or a name.
    pub source: &'a Path,
    /// How.
    pub flags: MountFlags,
    /// The file system's options.
    pub options: &'a str,
}

pub fn enslave_root() -> Result<(), Error> {
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(Error::system("keep the pod's mounts from the host"))
}

pub fn mount(scope: &Scope, kind: &Kind<'_>, target: &Path) -> Result<(), Error> {
    let action = format!("mount {} on", kind.file_system);
    try_mount(scope, kind, target, &action)?.map_err(Error::path(action, target))
}

/// Like [`mount`], with the kernel's own answer apart for who wants to act on it.
pub fn try_mount(
    scope: &Scope,
    kind: &Kind<'_>,
    target: &Path,
    action: &str,
) -> Result<nix::Result<()>, Error> {
    // The place that was found is made the working directory, for "." cannot be led elsewhere.
    let place = scope.find(target, action)?;
    nix::unistd::fchdir(&place).map_err(Error::path(action, target))?;
    let options = (!kind.options.is_empty()).then_some(kind.options);
    Ok(nix::mount::mount(Some(kind.source), ".", Some(kind.file_system), ms_flags(kind.flags), options))
}

fn ms_flags(flags: MountFlags) -> MsFlags {
    let table = [
        (flags.read_only, MsFlags::MS_RDONLY),
        (flags.no_suid, MsFlags::MS_NOSUID),
        (flags.no_dev, MsFlags::MS_NODEV),
        (flags.no_exec, MsFlags::MS_NOEXEC),
    ];
    table.into_iter().filter(|(on, _)| *on).fold(MsFlags::empty(), |all, (_, flag)| all | flag)
}

/// Binds a tree; the flags are set before it is attached, so that nobody ever sees it without. What is mounted below
/// the source comes along as it is.
pub fn bind(scope: &Scope, source: &Path, target: &Path, flags: MountFlags) -> Result<(), Error> {
    let action = format!("bind {} to", source.display());
    let place = scope.find(target, &action)?;
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::path(action.as_str(), target)(Errno::EINVAL))?;
    let bound = sys::open_tree(&path).and_then(|tree| {
        match attributes(flags) {
            0 => {}
            attributes => sys::mount_setattr(tree.as_fd(), attributes)?,
        }
        sys::move_mount(tree.as_fd(), place.as_fd())
    });
    bound.map_err(Error::path(action, target))
}

/// Lays over the mount at `path` the same with its owners shifted into a user namespace.
pub fn idmap(scope: &Scope, descriptors: &[OwnedFd], path: &Path) -> Result<(), Error> {
    const ACTION: &str = "shift the owners of";
    let place = scope.find(path, ACTION)?;
    let users =
        descriptors.first().ok_or_else(|| Error::Impossible("no user namespace was handed over".into()))?;
    let shifted = sys::open_tree_of(place.as_fd()).and_then(|tree| {
        sys::idmap(tree.as_fd(), users.as_fd())?;
        sys::move_mount(tree.as_fd(), place.as_fd())
    });
    shifted.map_err(|errno| Error::Because {
        what: "this kernel cannot shift the owners of the file system that images are on, which --private-users needs \
            (Linux 5.19 or later)"
            .into(),
        source: Box::new(Error::path(ACTION, path)(errno)),
    })
}

/// Makes what is at `path` read-only and inert; nothing to do where this kernel has nothing there.
pub fn protect(scope: &Scope, path: &Path) -> Result<(), Error> {
    const ACTION: &str = "make read-only";
    let place = match scope.find(path, ACTION) {
        Err(Error::Path { source: Errno::ENOENT, .. }) => return Ok(()),
        other => other?,
    };
    let protected = sys::open_tree_of(place.as_fd()).and_then(|tree| {
        sys::mount_setattr(tree.as_fd(), attributes(MountFlags::INERT.read_only()))?;
        sys::move_mount(tree.as_fd(), place.as_fd())
    });
    protected.map_err(Error::path(ACTION, path))
}

/// Detaches what is mounted at `path`, and removes what it was mounted on. Whoever still uses it keeps it.
pub fn detach(scope: &Scope, path: &Path) -> Result<(), Error> {
    const ACTION: &str = "detach";
    let (directory, name) = match scope.find_parent(path, ACTION) {
        Err(Error::Path { source: Errno::ENOENT, .. }) => return Ok(()),
        other => other?,
    };
    // The parent is what was found, and its entry nobody else's to change: no app has this directory.
    nix::unistd::fchdir(&directory).map_err(Error::path(ACTION, path))?;
    let unmounted = nix::mount::umount2(Path::new(name), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    let removed = match unmounted {
        Ok(()) | Err(Errno::EINVAL) => unlinkat(&directory, name, UnlinkatFlags::RemoveDir),
        Err(errno) => Err(errno),
    };
    let removed = match removed {
        Err(Errno::ENOTDIR) => unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir),
        other => other,
    };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::path(ACTION, path)(errno)),
    }
}

/// Lays `file` or `directory`, whichever it is, over what is at `path`; nothing to do where this kernel has nothing there.
pub fn hide(scope: &Scope, path: &Path, file: &Path, directory: &Path) -> Result<(), Error> {
    const ACTION: &str = "hide";
    let place = match scope.find(path, ACTION) {
        Err(Error::Path { source: Errno::ENOENT, .. }) => return Ok(()),
        other => other?,
    };
    let kind = fstat(&place).map_err(Error::path(ACTION, path))?.st_mode & SFlag::S_IFMT.bits();
    let empty = if kind == SFlag::S_IFDIR.bits() { directory } else { file };
    bind(scope, empty, path, MountFlags::INERT.read_only())
}

/// As mount_setattr(2) has them.
fn attributes(flags: MountFlags) -> u64 {
    let table = [
        (flags.read_only, libc::MOUNT_ATTR_RDONLY),
        (flags.no_suid, libc::MOUNT_ATTR_NOSUID),
        (flags.no_dev, libc::MOUNT_ATTR_NODEV),
        (flags.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ];
    table.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, attribute)| all | attribute)
}
