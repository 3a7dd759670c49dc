//! Apps that come into a pod that runs, and leave it. What only root of the host may mount is mounted outside, as a detached
//! tree that the supervisor attaches, like a volume; with and without a user namespace.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::volumes::{VM_VOLUMES, VOLUMES, Volumes};
use super::{
    AppPlan, ImageSource, Isolation, Layers, MountFlags, Operation, VM_DEVICES, VM_SCRATCH, World, app_path,
    app_root, directory, mount, users, whole_app_plan,
};
use crate::Error;
use crate::limits::PodLimits;
use crate::pod_manifest::{PodManifest, RuntimeApp};
use crate::rates::MachineRates;
use crate::streams::InputMode;
use crate::types::AcName;
use crate::volumes::{PodVolume, VolumeSource, assign};

/// By what a VM mounts the directory in which the images of apps to come are, `<app>/image.erofs`.
pub const VM_LATE_IMAGES_TAG: &str = "images";
/// Where.
const VM_LATE_IMAGES: &str = "/late";

/// All that is to be done for an app that comes into a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Carried out by root of the host, in a mount namespace of its own.
    pub outside: Vec<Operation>,
    /// Where the app's root is mounted after that: the first of [`NewApp::setup`]'s trees. A VM mounts it itself.
    pub root: PathBuf,
    /// What the supervisor does.
    pub new: NewApp,
}

/// What the supervisor does for an app that comes into the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewApp {
    /// Carried out in the pod's root, where other apps run. The trees are the app's root, then the [`new_volumes`].
    pub setup: Vec<Operation>,
    /// How many trees were handed over.
    pub trees: usize,
    /// How many `cgroup.procs` files were, with one directory if it is not none.
    pub cgroups: usize,
    /// The app.
    pub app: AppPlan,
    /// What takes back what `setup` has done of itself.
    pub teardown: Vec<Operation>,
}

/// What is to be done for the last app of `after`, which `before` has not. The `world` has its layers alone.
pub fn addition(before: &PodManifest, after: &PodManifest, world: &World) -> Result<Addition, Error> {
    let (Some(app), [layers]) = (after.apps.last(), world.layers.as_slice()) else {
        return Err(Error::Invalid("one app is added, with its image".into()));
    };
    let index = after.apps.len() - 1;
    world.check_rates(after)?;
    // What keeps them was made for those that were there.
    MachineRates::of(before)?.admit(app)?;
    let (limits, volumes) = (PodLimits::of(after)?, Volumes::of(after, world)?);
    let limits =
        limits.apps.get(index).ok_or_else(|| Error::Invalid(format!("no limits of app \"{}\"", app.name)))?;
    let plan = whole_app_plan(index, app, limits, world, &volumes, false)?;
    if plan.streams.stdin == InputMode::Inherit {
        return Err(Error::Invalid(format!(
            "app \"{}\" comes into a pod that runs, and cannot have the input of whoever started that (--stdin=inherit)",
            app.name
        )));
    }
    let (outside, root, mut setup) = match &world.isolation {
        Isolation::Namespaces { pod_root, users, .. } => {
            let (outside, root) = outside(pod_root, app, layers, users.is_some());
            let place = Path::new("/").join(app_path(&app.name));
            (outside, root, vec![directory(&place, 0o755), Operation::Attach { tree: 0, target: place }])
        }
        Isolation::Vm { .. } => (Vec::new(), PathBuf::new(), app_root(Path::new("/"), app, layers)),
        Isolation::Fly { .. } => {
            return Err(Error::Unsupported("apps that come into a pod without isolation (fly)".into()));
        }
    };
    let new = new_volumes(before, after)?;
    for (tree, (index, volume)) in (1..).zip(&new) {
        if let (Isolation::Vm { .. }, VolumeSource::Host { .. }) = (&world.isolation, &volume.source) {
            return Err(Error::Invalid(format!(
                "app \"{}\" comes into a micro-VM that runs, and brings a volume of the host: give that to the pod \
                 (rkt app sandbox --volume)",
                app.name
            )));
        }
        setup.extend(volumes.mount_one(*index, tree, Path::new("/")));
    }
    setup.extend(volumes.populate(index, Path::new("/")));
    let teardown = teardown(after, before)?;
    let trees = if outside.is_empty() { 0 } else { 1 + new.len() };
    let new = NewApp { setup, trees, cgroups: 0, app: plan, teardown };
    Ok(Addition { outside, root, new })
}

/// Mounts the root of an app outside; where.
fn outside(pod_root: &Path, app: &RuntimeApp, layers: &Layers, shifted: bool) -> (Vec<Operation>, PathBuf) {
    let mut operations =
        vec![Operation::SlaveRoot, mount("tmpfs", pod_root, MountFlags::default(), "mode=0755")];
    if shifted {
        operations.extend(users::shifted_root(pod_root, &app.name, layers));
        return (operations, users::layer(pod_root, &app.name));
    }
    operations.extend(app_root(pod_root, app, layers));
    (operations, pod_root.join(app_path(&app.name)))
}

/// What a VM keeps in sight for apps to come, where no app sees it: devices for their images, the disk for their layers, and
/// the images.
pub(super) fn vm_supplies(pod_root: &Path) -> Vec<Operation> {
    let images = pod_root.join(VM_LATE_IMAGES.trim_start_matches('/'));
    let kept = [VM_DEVICES, VM_SCRATCH].into_iter().flat_map(|kept| {
        let target = pod_root.join(kept.trim_start_matches('/'));
        let flags = MountFlags { no_suid: true, ..MountFlags::default() };
        [directory(&target, 0o700), Operation::Bind { source: kept.into(), target, flags }]
    });
    kept.chain([
        directory(&images, 0o700),
        Operation::Mount {
            file_system: "virtiofs".into(),
            source: VM_LATE_IMAGES_TAG.into(),
            target: images,
            flags: MountFlags::INERT.read_only(),
            options: String::new(),
        },
    ])
    .collect()
}

/// The image of an app that comes late, as the supervisor of a VM finds it.
pub fn vm_late_image(app: &AcName) -> ImageSource {
    ImageSource::File(Path::new(VM_LATE_IMAGES).join(app.as_str()).join("image.erofs"))
}

/// The volumes in use by `after` that are not by `before`, with their places in [`assign`]'s list.
pub fn new_volumes(before: &PodManifest, after: &PodManifest) -> Result<Vec<(usize, PodVolume)>, Error> {
    let known = assign(before)?.volumes;
    let is_new = |volume: &PodVolume| known.iter().all(|known| known.key != volume.key);
    let volumes = assign(after)?.volumes.into_iter().enumerate();
    Ok(volumes.filter(|(_, volume)| is_new(volume)).collect())
}

/// What takes the apps and volumes out of the pod's root that `before` has and `after` has not, and in a VM off its disk; in
/// namespaces that is not in sight, and nothing to do.
pub fn teardown(before: &PodManifest, after: &PodManifest) -> Result<Vec<Operation>, Error> {
    let (top, disk) = (Path::new("/"), Path::new(VM_SCRATCH));
    let leaves = |app: &&RuntimeApp| after.apps.iter().all(|kept| kept.name != app.name);
    let mut operations = Vec::new();
    for app in before.apps.iter().filter(leaves) {
        let image = top.join("images").join(app.name.as_str());
        operations.extend([top.join(app_path(&app.name)), image].map(|path| Operation::Detach { path }));
        operations.push(Operation::Remove { path: disk.join(app.name.as_str()) });
    }
    for (_, volume) in new_volumes(after, before)? {
        operations.push(Operation::Detach { path: top.join(VOLUMES).join(&volume.key) });
        operations.push(Operation::Remove { path: disk.join(VM_VOLUMES).join(&volume.key) });
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Insecure;
    use crate::plan::{OpenedVolume, PrivateUsers};
    use crate::pod_manifest::ANNOTATION_MUTABLE;

    /// A pod with a volume of its own, and these apps, each with an empty volume of its own.
    fn manifest(apps: &[&str]) -> PodManifest {
        let app = |name: &&str| {
            serde_json::json!({
                "name": name, "image": {"id": format!("sha512-{}", "0".repeat(64))},
                "app": {"exec": ["/a"], "user": "0", "group": "0"},
                "mounts": [
                    {"volume": "data", "path": "/data"},
                    {"volume": "own", "path": "/own", "appVolume": {"name": "own", "kind": "empty"}},
                ],
            })
        };
        let json = serde_json::json!({
            "acKind": "PodManifest", "acVersion": "0.8.11", "apps": apps.iter().map(app).collect::<Vec<_>>(),
            "annotations": [{"name": ANNOTATION_MUTABLE, "value": "true"}],
            "volumes": [{"name": "data", "kind": "host", "source": "/d"}],
        });
        PodManifest::parse(json.to_string().as_bytes()).unwrap()
    }

    fn world(isolation: Isolation) -> World {
        let layers = Layers { image: ImageSource::File("/i".into()), writable: "/w".into() };
        let (hostname, insecure) = (String::new(), Insecure::default());
        World {
            isolation,
            hostname,
            interactive: false,
            ipc: Default::default(),
            insecure,
            layers: vec![layers],
            resolv_conf: None,
            metadata_url: None,
            hosts: None,
        }
    }

    fn namespaces(volumes: usize, users: Option<PrivateUsers>) -> World {
        let volumes = vec![OpenedVolume::Directory; volumes];
        world(Isolation::Namespaces { pod_root: "/p".into(), volumes, users })
    }

    fn vm(volumes: usize) -> World {
        let volumes = vec![OpenedVolume::Directory; volumes];
        world(Isolation::Vm { scratch: "/dev/vda".into(), volumes, network: Default::default() })
    }

    fn paths(operations: &[Operation], pick: fn(&Operation) -> Option<&PathBuf>) -> Vec<&str> {
        operations.iter().filter_map(pick).filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn only_what_is_new_is_attached() {
        let (before, after) = (manifest(&["one"]), manifest(&["one", "two"]));
        let range = "65536:65536".parse().unwrap();
        for users in [None, Some(PrivateUsers { range, host_network: false })] {
            let Addition { outside, root, new } = addition(&before, &after, &namespaces(3, users)).unwrap();
            assert_eq!(new.app.name.as_str(), "two");
            assert_eq!((new.trees, root.starts_with("/p"), root.ends_with("two")), (2, true, true));
            let shifts = outside.iter().any(|operation| matches!(operation, Operation::Idmap { .. }));
            assert_eq!(shifts, users.is_some());
            let attached = paths(&new.setup, |operation| match operation {
                Operation::Attach { target, .. } => Some(target),
                _ => None,
            });
            assert_eq!(attached, ["/apps/two", "/volumes/two..own"]);
        }
    }

    #[test]
    fn a_vm_mounts_what_it_is_served() {
        let (before, after) = (manifest(&[]), manifest(&["one"]));
        let Addition { outside, new, .. } = addition(&before, &after, &vm(2)).unwrap();
        assert!(outside.is_empty() && new.trees == 0, "{outside:?}");
        let made = paths(&new.setup, |operation| match operation {
            Operation::Overlay { target, .. } => Some(target),
            Operation::EmptyVolume { path, .. } => Some(path),
            _ => None,
        });
        assert_eq!(made, ["/apps/one", "/scratch/_volumes/one..own"]);
        let mut host = after;
        let own = host.apps[0].mounts[1].app_volume.as_mut().unwrap();
        own.source = VolumeSource::Host { path: "/h".into(), recursive: true, idmap: false };
        let error = addition(&before, &host, &vm(2)).unwrap_err().to_string();
        assert!(error.contains("rkt app sandbox --volume"), "{error}");
    }

    #[test]
    fn nobodys_input_is_anothers() {
        let mut after = manifest(&["one"]);
        let input = serde_json::json!({"name": crate::streams::ANNOTATION_STDIN, "value": "inherit"});
        after.apps[0].annotations.push(serde_json::from_value(input).unwrap());
        let error = addition(&manifest(&[]), &after, &namespaces(2, None)).unwrap_err().to_string();
        assert!(error.contains("--stdin=inherit"), "{error}");
    }

    #[test]
    fn what_is_anothers_stays() {
        let operations = teardown(&manifest(&["one", "two"]), &manifest(&["two"])).unwrap();
        let gone = paths(&operations, |operation| match operation {
            Operation::Detach { path } | Operation::Remove { path } => Some(path),
            _ => None,
        });
        let expected =
            ["/apps/one", "/images/one", "/scratch/one", "/volumes/one..own", "/scratch/_volumes/one..own"];
        assert_eq!((gone.len(), gone.as_slice()), (operations.len(), expected.as_slice()));
        assert!(teardown(&manifest(&["one"]), &manifest(&["one"])).unwrap().is_empty());
    }
}
