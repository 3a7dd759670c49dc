//! Pods whose stage1 is an image of somebody's. It gets what upstream's stage0 gives it without overlays: its own tree and the
//! apps' are copies in the pod's directory, so that nothing is mounted and nothing shared.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;
use pod::abi::PodDirectory;
use pod::pod_manifest::{PodManifest, RuntimeApp};
use pod::types::AcName;

use super::alter::replace_manifest;
use super::create::{NewPod, make_directory, write};
use super::startable::Startable;
use super::{Error, Pod};
use crate::remove;
use crate::store::{Image, Store};

/// Nobody else changes the pod's apps while it is there (upstream's `pod.lck`).
#[derive(Debug)]
pub struct ManifestLock {
    _file: File,
}

impl NewPod<'_> {
    /// Fills the directory. The images are in the order of the apps.
    pub fn fill_for_image(
        &self,
        manifest: &PodManifest,
        stage1: &Image,
        store: &Store,
        images: &[Image],
    ) -> Result<(), Error> {
        let layout = PodDirectory::new(self.path());
        self.write_manifest(&layout, manifest)?;
        write(&layout.stage1_image(), stage1.id.as_str().as_bytes())?;
        let lock = File::options().write(true).create_new(true).mode(0o600).open(layout.apps_lock());
        lock.map_err(Error::io("create", &layout.apps_lock()))?;
        let rootfs = layout.stage1_rootfs();
        for path in [&layout.path().join("stage1"), &rootfs, &layout.images()] {
            make_directory(path).map_err(Error::io("create", path))?;
        }
        copy(&stage1.manifest_path(), &layout.stage1_manifest())?;
        unpack(store, stage1, &rootfs)?;
        for name in ["rkt/status", "rkt/env", "opt/stage2"] {
            make_directories(&rootfs.join(name))?;
        }
        let apps = manifest.apps.iter().zip(images);
        apps.clone().try_for_each(|(app, image)| fill_app(&layout, store, &app.name, image))
    }
}

/// The two places of an app's image: what is known of it, and its tree.
fn fill_app(layout: &PodDirectory, store: &Store, app: &AcName, image: &Image) -> Result<(), Error> {
    let known = layout.app_manifest(app);
    if let Some(directory) = known.parent() {
        make_directory(directory).map_err(Error::io("create", directory))?;
    }
    copy(&image.manifest_path(), &known)?;
    let stage2 = layout.stage2(app);
    make_directories(&stage2)?;
    copy(&image.manifest_path(), &stage2.join("manifest"))?;
    let rootfs = stage2.join("rootfs");
    make_directories(&rootfs)?;
    let root = unpack(store, image, &rootfs)?;
    link_mtab(&root).map_err(|error| Error::io("make etc/mtab in", &rootfs)(error.into()))
}

fn unpack(store: &Store, image: &Image, target: &Path) -> Result<File, Error> {
    let root = File::open(target).map_err(Error::io("open", target))?;
    store.extract(image, root.as_fd()).map_err(|source| Error::Store(Box::new(source)))?;
    Ok(root)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::read(from).map_err(Error::io("read", from)).and_then(|bytes| write(to, &bytes))
}

fn make_directories(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(Error::io("create", path))
}

/// `/etc/mtab`, as mount(8) and others want it, if the image has an `/etc` and none (upstream's `ensureMtabExists`).
fn link_mtab(root: &File) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let etc: OwnedFd = match openat(root, "etc", flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        opened => opened?,
    };
    match symlinkat("../proc/self/mounts", &etc, "mtab") {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

/// Apps that come and go: here the manifest is stage0's to write.
impl Pod {
    /// Waits for whoever changes the pod's apps at the moment.
    pub fn lock_manifest(&self) -> Result<ManifestLock, Error> {
        let path = PodDirectory::new(&self.path).apps_lock();
        let locked =
            OpenOptions::new().read(true).write(true).open(&path).and_then(|file| file.lock().map(|()| file));
        locked.map(|file| ManifestLock { _file: file }).map_err(Error::io("lock", &path))
    }

    /// Gives the pod an app more, of which its stage1 does not know yet.
    pub fn take_in(
        &self,
        lock: &ManifestLock,
        app: &RuntimeApp,
        image: &Image,
        store: &Store,
    ) -> Result<(), Error> {
        let layout = PodDirectory::new(&self.path);
        let manifest = self.manifest()?.with(app.clone())?;
        self.clear(lock, &app.name)?;
        fill_app(&layout, store, &app.name, image)?;
        let variables = app.app.iter().flat_map(|section| &section.environment);
        let variables = variables.map(|variable| format!("{}={}\n", variable.name, variable.value));
        let name = format!("AC_APP_NAME={}\n", app.name);
        let environment: String = variables.chain([name]).collect();
        write(&layout.environment(&app.name), environment.as_bytes())?;
        replace_manifest(&layout, &manifest)?;
        mark(&layout.created_marker(&app.name))
    }

    /// Takes an app out that its stage1 does not know any more, or never did.
    pub fn leave_out(&self, lock: &ManifestLock, app: &AcName) -> Result<(), Error> {
        replace_manifest(&PodDirectory::new(&self.path), &self.manifest()?.without(app))?;
        self.clear(lock, app)
    }

    /// Notes that an app is about to be started, so that what it was before does not count.
    pub fn note_start(&self, app: &AcName) -> Result<(), Error> {
        let layout = PodDirectory::new(&self.path);
        remove_file(&layout.started_marker(app))?;
        remove_file(&layout.status(app))?;
        mark(&layout.started_marker(app))
    }

    /// Removes all that an app has in the directory.
    fn clear(&self, _lock: &ManifestLock, app: &AcName) -> Result<(), Error> {
        let layout = PodDirectory::new(&self.path);
        for path in [layout.stage2(app), layout.images().join(app.as_str())] {
            remove::tree(&path).map_err(Error::io("remove", &path))?;
        }
        let files = [
            layout.status(app),
            layout.environment(app),
            layout.created_marker(app),
            layout.started_marker(app),
        ];
        files.iter().try_for_each(|path| remove_file(path))
    }
}

fn mark(path: &Path) -> Result<(), Error> {
    File::create(path).map(drop).map_err(Error::io("create", path))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
