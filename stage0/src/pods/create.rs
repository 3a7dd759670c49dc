//! Makes a pod's directory. All of it is made while the directory is locked and not yet in `run`, so whoever finds a pod
//! there finds it whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use pod::abi::PodDirectory;
use pod::pod_manifest::{PodManifest, RuntimeApp};
use pod::streams::StreamModes;
use pod::types::AcName;
use uuid::Uuid;

use super::startable::Startable;
use super::{Error, Place, Pods};
use crate::remove;
use crate::stage1::{ENTRYPOINTS, Installed};

/// Where an app's image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppImage {
    /// The app.
    pub app: AcName,
    /// The store's file with the image manifest.
    pub manifest: PathBuf,
    /// The tree.
    pub tree: Tree,
}

/// A tree in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// An EROFS file, of which the pod gets a hard link.
    Erofs(PathBuf),
    /// A directory, to which the pod gets a symbolic link.
    Directory(PathBuf),
}

/// A pod in the making. Dropped, it is removed again: it only stays if this process becomes its stage1, or if it is kept for
/// another one.
pub struct NewPod<'a> {
    pods: &'a Pods,
    uuid: Uuid,
    place: Place,
    lock: File,
    is_kept: bool,
}

impl<'a> NewPod<'a> {
    /// Makes and locks the directory. Until it is locked, gc takes it for one that a crash has left; then it is made again.
    pub fn create(pods: &'a Pods, uuid: Uuid) -> Result<Self, Error> {
        loop {
            if let Some(new) = Self::try_create(pods, uuid)? {
                return Ok(new);
            }
        }
    }

    /// The same; `None` if gc was faster.
    fn try_create(pods: &'a Pods, uuid: Uuid) -> Result<Option<Self>, Error> {
        let place = Place::Embryo;
        let path = pods.path(place, uuid);
        match make_directory(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                pods.make_directories().map_err(Error::io("make the directories in", &pods.root))?;
                make_directory(&path)
            }
            result => result,
        }
        .map_err(Error::io("create", &path))?;
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        lock.lock().map_err(Error::io("lock", &path))?;
        let mut new = Self { pods, uuid, place, lock, is_kept: false };
        match new.move_to(Place::Prepare) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            moved => moved.map(|()| Some(new)),
        }
    }

    /// Fills the directory.
    pub fn fill(&self, manifest: &PodManifest, images: &[AppImage], stage1: &Installed) -> Result<(), Error> {
        let layout = PodDirectory::new(self.path());
        self.write_manifest(&layout, manifest)?;
        let rootfs = layout.stage1_rootfs();
        let (stage1_directory, rkt) = (layout.path().join("stage1"), rootfs.join("rkt"));
        for path in [&stage1_directory, &rootfs, &rkt, &rkt.join("status"), &layout.images()] {
            make_directory(path).map_err(Error::io("create", path))?;
        }
        write(&layout.stage1_manifest(), stage1.manifest.as_bytes())?;
        for entrypoint in ENTRYPOINTS {
            symbolic_link(&stage1.binary, &rootfs.join(entrypoint))?;
        }
        make_logs(&layout, manifest)?;
        images.iter().try_for_each(|image| fill_app(&layout, image))
    }

    /// The pod's manifest, and when it was made.
    pub(super) fn write_manifest(&self, layout: &PodDirectory, manifest: &PodManifest) -> Result<(), Error> {
        let json = serde_json::to_vec(manifest)
            .map_err(|source| pod::Error::Json { what: "pod manifest", source })?;
        write(&layout.manifest(), &json)?;
        write(&layout.created(), b"")
    }

    /// Notes that the pod has users for itself; which, is for whoever runs it.
    pub fn want_users(&self) -> Result<(), Error> {
        write(&PodDirectory::new(self.path()).private_users(), b"")
    }

    /// Leaves the pod to whoever will run it. All of it is on disk before it is in its place.
    pub fn keep_prepared(mut self) -> Result<(), Error> {
        let path = self.path();
        nix::unistd::syncfs(&self.lock).map_err(|error| Error::io("sync", &path)(error.into()))?;
        self.move_to(Place::Prepared)?;
        self.is_kept = true;
        let parent = self.pods.root.join(Place::Prepared.directory());
        File::open(&parent).and_then(|parent| parent.sync_all()).map_err(Error::io("sync", &parent))
    }

    fn move_to(&mut self, place: Place) -> Result<(), Error> {
        let from = self.path();
        fs::rename(&from, self.pods.path(place, self.uuid)).map_err(Error::io("move", &from))?;
        self.place = place;
        Ok(())
    }
}

impl Startable for NewPod<'_> {
    fn path(&self) -> PathBuf {
        self.pods.path(self.place, self.uuid)
    }

    fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    fn start(&mut self) -> Result<(), Error> {
        self.move_to(Place::Run)
    }
}

impl Drop for NewPod<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody is to see half of it, and what cannot be removed now is found by gc.
            let _ = self.move_to(Place::Garbage);
            let _ = remove::tree(&self.path());
        }
    }
}

/// Makes the directory of an app.
pub(super) fn fill_app(layout: &PodDirectory, image: &AppImage) -> Result<(), Error> {
    let manifest = layout.app_manifest(&image.app);
    if let Some(directory) = manifest.parent() {
        make_directory(directory).map_err(Error::io("create", directory))?;
    }
    hard_link(&image.manifest, &manifest)?;
    match &image.tree {
        Tree::Erofs(file) => hard_link(file, &layout.app_image(&image.app)),
        Tree::Directory(tree) => symbolic_link(tree, &layout.app_tree(&image.app)),
    }
}

/// The directories of the apps' logs, so that they can be followed before there is anything in them.
fn make_logs(layout: &PodDirectory, manifest: &PodManifest) -> Result<(), Error> {
    manifest.apps.iter().try_for_each(|app| make_log(layout, app))
}

/// The directory of an app's log, if it has one.
pub(super) fn make_log(layout: &PodDirectory, app: &RuntimeApp) -> Result<(), Error> {
    if StreamModes::of(app, true, false)?.has_log() {
        let path = layout.log(&app.name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(&path);
        made.map_err(Error::io("create", &path))?;
    }
    Ok(())
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o750).create(path)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o640).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(Error::io("write", path))
}

fn hard_link(from: &Path, to: &Path) -> Result<(), Error> {
    fs::hard_link(from, to).map_err(|source| match source.kind() {
        io::ErrorKind::CrossesDevices => {
            Error::io("link (cas and pods must be on one file system)", to)(source)
        }
        _ => Error::io("link from the store", to)(source),
    })
}

fn symbolic_link(target: &Path, path: &Path) -> Result<(), Error> {
    symlink(target, path).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    fn world() -> (tempfile::TempDir, Pods, Installed, AppImage) {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let store = data.path().join("store");
        fs::write(&store, "x").unwrap();
        let installed = Installed { binary: "/lib/stage1".into(), manifest: "{}" };
        let tree = Tree::Erofs(store.clone());
        (data, pods, installed, AppImage { app: "a".parse().unwrap(), manifest: store, tree })
    }

    fn pods_on_disk(pods: &Pods) -> Vec<super::super::Pod> {
        pods.list(&Place::ALL).unwrap()
    }

    #[test]
    fn the_first_pods_of_a_host_may_come_at_once() {
        for _ in 0..50 {
            let (_data, pods, _, _) = world();
            std::thread::scope(|scope| {
                let create = |number| {
                    let pods = &pods;
                    move || NewPod::create(pods, Uuid::from_u128(number)).map(drop)
                };
                let threads: Vec<_> = (0..8).map(|number| scope.spawn(create(number))).collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
            });
        }
    }

    #[test]
    fn gc_takes_no_pod_that_is_being_made() {
        use crate::pods::gc::{Collection, Event, Told};
        let (_data, pods, ..) = world();
        let now = Collection { grace: Duration::ZERO, expire_prepared: Duration::MAX, mark_only: false };
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let told = Told { debug: false, local_config: Path::new("/nowhere") };
                    let report = &mut |event| assert!(!matches!(event, Event::Failed(_)), "{event:?}");
                    pods.gc(now, told, report).unwrap();
                }
            });
            for number in 0..500 {
                let new = NewPod::create(&pods, Uuid::from_u128(number)).unwrap();
                assert!(new.path().exists());
            }
            is_over.store(true, Ordering::SeqCst);
            collector.join().unwrap();
        });
    }

    #[test]
    fn a_pod_comes_to_be() {
        let (_data, pods, stage1, image) = world();
        let uuid = Uuid::from_u128(1);
        let mut new = NewPod::create(&pods, uuid).unwrap();
        assert_eq!(pods_on_disk(&pods)[0].state, super::super::State::Preparing);
        new.fill(&PodManifest::new(Vec::new()), std::slice::from_ref(&image), &stage1).unwrap();
        new.start().unwrap();
        let found = pods.find("00000000-0000").unwrap();
        assert_eq!((found.uuid, found.state), (uuid, super::super::State::Running));
        let layout = PodDirectory::new(new.path());
        assert_eq!(fs::read_link(layout.stage1_rootfs().join("init")).unwrap(), Path::new("/lib/stage1"));
        assert_eq!(fs::read(layout.app_image(&image.app)).unwrap(), b"x");
        assert!(layout.created().exists() && layout.status(&image.app).parent().unwrap().is_dir());
        drop(new);
        assert!(pods_on_disk(&pods).is_empty());
    }

    #[test]
    fn a_pod_is_kept() {
        let (_data, pods, stage1, image) = world();
        let new = NewPod::create(&pods, Uuid::from_u128(1)).unwrap();
        new.fill(&PodManifest::new(Vec::new()), &[image], &stage1).unwrap();
        new.want_users().unwrap();
        new.keep_prepared().unwrap();
        let found = pods.find("0").unwrap();
        assert_eq!(found.state, super::super::State::Prepared);
        assert_eq!(fs::read(PodDirectory::new(found.path).private_users()).unwrap(), b"");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let (_data, pods, stage1, image) = world();
        let new = NewPod::create(&pods, Uuid::from_u128(1)).unwrap();
        let missing = AppImage { manifest: "/nowhere".into(), ..image };
        assert!(new.fill(&PodManifest::new(Vec::new()), &[missing], &stage1).is_err());
        drop(new);
        assert!(pods_on_disk(&pods).is_empty());
        assert!(pods.find("0").is_err());
    }

    #[test]
    fn a_pod_that_moves_on_meanwhile_is_one() {
        let (_data, pods, ..) = world();
        let uuid = Uuid::from_u128(1);
        let _one = NewPod::create(&pods, uuid).unwrap();
        // As it is seen by who looked into the one place before it moved, and into the other after that.
        make_directory(&pods.path(Place::Run, uuid)).unwrap();
        assert_eq!(pods.find("0").unwrap().place, Place::Run);
        assert_eq!(pods.list(&Place::VISIBLE).unwrap().len(), 1);
    }

    #[test]
    fn prefixes() {
        let (_data, pods, ..) = world();
        let _one = NewPod::create(&pods, Uuid::from_u128(1)).unwrap();
        let _two = NewPod::create(&pods, Uuid::from_u128(1 << 64)).unwrap();
        assert!(matches!(pods.find("0000"), Err(Error::Ambiguous(_, 2))));
        assert!(matches!(pods.find(""), Err(Error::NoMatch(_))));
        assert!(matches!(pods.find("f"), Err(Error::NoMatch(_))));
    }
}
