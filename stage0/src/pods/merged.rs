//! What an app of an ended pod sees: its image with what it has written over it. The overlay is mounted, read-only, in a mount
//! namespace of this process, so that nothing of it is left however the process ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use pod::abi::PodDirectory;
use pod::types::AcName;

use super::Error;
use crate::store::Workspace;

/// No program of the tree is run, and no device of it opened.
const FLAGS: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// All is mounted below a directory that every pod has, and that is not needed here.
const BASE: &str = "stage1";

/// A mounted tree.
pub struct Merged {
    /// Its root, from this process's working directory.
    pub root: PathBuf,
    /// The image's tree, where the kernel cannot mount the image.
    _unpacked: Option<Workspace>,
}

/// Mounts an app's tree. From then on this process has a mount namespace and a working directory of its own. `spare` is a
/// directory that can be made, and whose content is nobody's when this process is gone.
///
/// `rkt gc` may move the pod's directory at any time. So what is in it is opened before anything is mounted, and after that nothing is
/// looked for by a path: whoever does all of this again, where the pod is by then, would find the mount in it.
pub fn mount_app(directory: &PodDirectory, app: &AcName, spare: PathBuf) -> Result<Merged, Error> {
    let (base, changes) = (&directory.path().join(BASE), directory.overlay(app).join("upper"));
    let failed = |what: &'static str| move |error: Errno| Error::io(what, base)(error.into());
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace for"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("make a mount namespace for"))?;
    // Of a pod that has been moved by now there is no image here either.
    let upper = open_if_there(&changes)?;
    let image = match open_if_there(&directory.app_image(app))? {
        Some(image) => ImageTree::Erofs(image),
        None => ImageTree::Directory(open(&directory.app_tree(app))?),
    };
    std::env::set_current_dir(directory.path()).map_err(Error::io("enter", directory.path()))?;
    mount(Some("tmpfs"), BASE, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700"))
        .map_err(failed("mount on"))?;
    // Overlayfs has signs of its own in paths; those that it gets have none.
    let made = std::env::set_current_dir(BASE)
        .and_then(|()| ["image", "upper", "root"].iter().try_for_each(fs::create_dir));
    made.map_err(Error::io("make a directory in", base))?;
    let unpacked = match image {
        ImageTree::Erofs(image) => mount_image(&image, directory, app, spare)?,
        ImageTree::Directory(tree) => {
            bind(&fd_path(&tree), "image").map_err(Error::io("mount", &directory.app_tree(app)))?;
            None
        }
    };
    let root = match upper {
        // It never ran.
        None => "image",
        Some(upper) => {
            bind(&fd_path(&upper), "upper").map_err(Error::io("mount", &changes))?;
            mount(Some("overlay"), "root", Some("overlay"), FLAGS, Some("lowerdir=upper:image"))
                .map_err(failed("mount an overlay on"))?;
            "root"
        }
    };
    Ok(Merged { root: root.into(), _unpacked: unpacked })
}

/// What an app's image is.
enum ImageTree {
    Erofs(File),
    Directory(File),
}

/// Makes the image's tree at `image`: mounted, or unpacked where the kernel has no EROFS or not from files (before Linux 6.12).
fn mount_image(
    image: &File,
    directory: &PodDirectory,
    app: &AcName,
    spare: PathBuf,
) -> Result<Option<Workspace>, Error> {
    match mount(Some(&fd_path(image)), "image", Some("erofs"), FLAGS, None::<&str>) {
        Ok(()) => return Ok(None),
        Err(Errno::ENOTBLK | Errno::ENODEV) => {}
        Err(error) => return Err(Error::io("mount", &directory.app_image(app))(error.into())),
    }
    let workspace = Workspace::acquire(spare.clone()).map_err(Error::io("make", &spare))?;
    let target = open(workspace.path())?;
    let image = image.try_clone().map_err(Error::io("open", &directory.app_image(app)))?;
    erofs::Reader::open(image)
        .and_then(|reader| erofs::extract(&reader, target.as_fd()))
        .map_err(|source| Error::Image { app: app.to_string(), source })?;
    bind(workspace.path(), "image").map_err(Error::io("mount", &spare))?;
    Ok(Some(workspace))
}

fn open_if_there(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(Error::io("open", path)),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(Error::io("open", path))
}

fn bind(source: &Path, target: &str) -> io::Result<()> {
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

fn fd_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
