//! Apps that come into a pod, and leave it: what of them is in the pod's directory. The manifest of a running pod is its
//! stage1's to write.

use std::fs::{self, File};
use std::io;

use pod::abi::PodDirectory;
use pod::pod_manifest::{PodManifest, RuntimeApp};
use pod::types::AcName;

use super::create::{AppImage, fill_app, make_log, write};
use super::{Error, Pod};
use crate::remove;

/// Nobody else changes the pod's apps while it is there.
#[derive(Debug)]
pub struct AppsLock {
    _file: File,
}

impl Pod {
    /// Waits for whoever changes the pod's apps at the moment.
    pub fn lock_apps(&self) -> Result<AppsLock, Error> {
        let path = PodDirectory::new(&self.path).images();
        let locked = File::open(&path).and_then(|file| file.lock().map(|()| file));
        locked.map(|file| AppsLock { _file: file }).map_err(Error::io("lock", &path))
    }

    /// Prepares the directory for an app that is to come. What an earlier attempt has left gives way.
    pub fn prepare_app(&self, lock: &AppsLock, app: &RuntimeApp, image: &AppImage) -> Result<(), Error> {
        let layout = PodDirectory::new(&self.path);
        self.remove_app(lock, &app.name)?;
        fill_app(&layout, image)?;
        make_log(&layout, app)?;
        let json = serde_json::to_vec(app).map_err(|source| pod::Error::Json { what: "app", source })?;
        write(&layout.addition(&app.name), &json)
    }

    /// Removes all that an app that has left, or never came, has in the directory.
    pub fn remove_app(&self, _lock: &AppsLock, app: &AcName) -> Result<(), Error> {
        let layout = PodDirectory::new(&self.path);
        let mut directories = vec![layout.overlay(app), layout.log(app)];
        // Volumes of its own have a dot after its name, which no other's has.
        let volumes = layout.path().join("sharedVolumes");
        let prefix = format!("{app}.");
        match fs::read_dir(&volumes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries.map_err(Error::io("read", &volumes))? {
                    let name = entry.map_err(Error::io("read", &volumes))?.file_name();
                    if name.to_str().is_some_and(|name| name.starts_with(&prefix)) {
                        directories.push(volumes.join(name));
                    }
                }
            }
        }
        // Last: as long as it is there, something may be.
        directories.push(layout.images().join(app.as_str()));
        directories.iter().try_for_each(|path| remove::tree(path).map_err(Error::io("remove", path)))
    }

    /// The same of a pod that has ended, whose manifest then does not have it any more.
    pub fn remove_app_for_good(&self, lock: &AppsLock, app: &AcName) -> Result<(), Error> {
        let directory = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        if directory.try_lock().is_err() {
            return Err(Error::InUse { uuid: self.uuid, state: self.state });
        }
        let (layout, manifest) = (PodDirectory::new(&self.path), self.manifest()?.without(app));
        replace_manifest(&layout, &manifest)?;
        for path in layout.told_of(app) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        self.remove_app(lock, app)
    }
}

/// On the disk before it takes the place of the old one.
pub(super) fn replace_manifest(layout: &PodDirectory, manifest: &PodManifest) -> Result<(), Error> {
    let (path, new) = (layout.manifest(), layout.new_manifest());
    let json =
        serde_json::to_vec(manifest).map_err(|source| pod::Error::Json { what: "pod manifest", source })?;
    let written = fs::write(&new, json)
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path));
    written.map_err(Error::io("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::create::{NewPod, Tree};
    use crate::pods::startable::Startable;
    use crate::pods::{Pods, State};
    use crate::stage1::Installed;
    use pod::pod_manifest::ANNOTATION_MUTABLE;
    use uuid::Uuid;

    fn app(name: &str) -> RuntimeApp {
        let id = format!("sha512-{}", "0".repeat(64));
        serde_json::from_value(serde_json::json!({
            "name": name, "image": {"id": id}, "app": {"exec": ["/a"], "user": "0", "group": "0"},
            "annotations": [{"name": pod::streams::ANNOTATION_STDOUT, "value": "log"}],
        }))
        .unwrap()
    }

    #[test]
    fn an_app_comes_and_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let (pods, store) = (Pods::new(data.path()), data.path().join("store"));
        fs::write(&store, "x").unwrap();
        let mut new = NewPod::create(&pods, Uuid::from_u128(1)).unwrap();
        let annotation = serde_json::json!({"name": ANNOTATION_MUTABLE, "value": "true"});
        let mut manifest = PodManifest::new(vec![app("web-2")]);
        manifest.annotations.push(serde_json::from_value(annotation).unwrap());
        new.fill(&manifest, &[], &Installed { binary: "/lib/stage1".into(), manifest: "{}" }).unwrap();
        new.start().unwrap();
        let pod = pods.find("0").unwrap();
        let layout = PodDirectory::new(&pod.path);
        let lock = pod.lock_apps().unwrap();
        let web = app("web");
        let image = AppImage { app: web.name.clone(), manifest: store.clone(), tree: Tree::Erofs(store) };
        for _ in 0..2 {
            pod.prepare_app(&lock, &web, &image).unwrap();
        }
        let addition: RuntimeApp =
            serde_json::from_slice(&fs::read(layout.addition(&web.name)).unwrap()).unwrap();
        assert_eq!(addition, web);
        let volumes = ["web.data", "web..own", "web-2.data", "web"].map(|key| layout.shared_volume(key));
        volumes.iter().for_each(|path| fs::create_dir_all(path).unwrap());
        fs::create_dir_all(layout.overlay(&web.name)).unwrap();
        pod.remove_app(&lock, &web.name).unwrap();
        assert_eq!(volumes.map(|path| path.exists()), [false, false, true, true]);
        for path in [layout.overlay(&web.name), layout.log(&web.name), layout.app_image(&web.name)] {
            assert!(!path.exists(), "{}", path.display());
        }
        let other = app("web-2").name;
        assert!(pod.remove_app_for_good(&lock, &other).is_err(), "it runs");
        let (path, lock_of_pod) = (pod.path.clone(), new.lock().try_clone_to_owned().unwrap());
        std::mem::forget(new);
        File::from(lock_of_pod).unlock().unwrap();
        assert_eq!(pods.find("0").unwrap().state, State::Exited);
        fs::create_dir_all(layout.app_started(&other).parent().unwrap()).unwrap();
        fs::write(layout.app_started(&other), "").unwrap();
        pod.remove_app_for_good(&lock, &other).unwrap();
        assert!(pod.manifest().unwrap().apps.is_empty() && !layout.app_started(&other).exists());
        assert!(path.join("pod").exists() && !path.join("pod.new").exists());
    }
}
