//! The part of a plan that is about volumes. Each is mounted once in the pod's root, where no app sees it, and from there
//! bound to its places in the apps: so all apps see one and the same, whatever it comes from.

use std::path::{Path, PathBuf};

use super::{AppPlan, Isolation, MountFlags, Operation, VM_SCRATCH, World, app_path, directory};
use crate::Error;
use crate::devices::{DeviceAccess, DeviceKind, DeviceRule};
use crate::pod_manifest::PodManifest;
use crate::types::AcName;
use crate::volumes::{AppMount, PodVolume, PodVolumes, VolumeSource, assign};

/// Where volumes are in the pod's root.
pub(super) const VOLUMES: &str = "volumes";
/// Where a VM's empty volumes are on the writable layers' file system. Not an app's name: those have no underscores.
pub(super) const VM_VOLUMES: &str = "_volumes";
/// Where the directories are, in a VM pod's root, that are served for volumes of single files.
const VM_FILES: &str = "files";
/// The only file in each of those.
pub const VM_VOLUME_FILE: &str = "file";

/// By what a VM mounts a volume of the host, which has this place in [`crate::volumes::assign`]'s list.
pub fn volume_tag(volume: usize) -> String {
    format!("volume{volume}")
}

/// What a volume of a host turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedVolume {
    /// A directory.
    Directory,
    /// A file, a socket, a pipe.
    File,
    /// A device.
    Device {
        /// Of which kind.
        kind: DeviceKind,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// The volumes of a pod.
#[derive(Debug)]
pub struct Volumes {
    assigned: PodVolumes,
    apps: Vec<AcName>,
    /// One for each.
    opened: Vec<OpenedVolume>,
    /// Whether they have to be mounted in a guest, rather than were outside.
    in_vm: bool,
}

impl Volumes {
    /// Those of a manifest; an error if the isolation cannot have them.
    pub fn of(manifest: &PodManifest, world: &World) -> Result<Self, Error> {
        let assigned = assign(manifest)?;
        let (opened, in_vm) = match &world.isolation {
            Isolation::Namespaces { volumes, .. } | Isolation::Fly { volumes, .. } => (volumes, false),
            Isolation::Vm { volumes, .. } => (volumes, true),
        };
        let needed = assigned.volumes.len();
        if opened.len() != needed {
            return Err(Error::Invalid(format!("{needed} volumes, but {} were opened", opened.len())));
        }
        let apps = manifest.apps.iter().map(|app| app.name.clone()).collect();
        Ok(Self { assigned, apps, opened: opened.clone(), in_vm })
    }

    fn kind(&self, volume: usize) -> OpenedVolume {
        self.opened.get(volume).copied().unwrap_or(OpenedVolume::Directory)
    }

    /// Mounts them below the pod's root; after the apps' roots, before it becomes the root.
    pub fn pod_setup(&self, pod_root: &Path) -> Vec<Operation> {
        let mut operations: Vec<_> = (0..self.assigned.volumes.len())
            .flat_map(|index| self.mount_one(index, index, pod_root))
            .collect();
        operations.extend((0..self.apps.len()).flat_map(|app| self.populate(app, pod_root)));
        operations
    }

    /// Mounts one, which is the `tree`th of what was opened outside.
    pub fn mount_one(&self, index: usize, tree: usize, pod_root: &Path) -> Vec<Operation> {
        let Some(volume) = self.assigned.volumes.get(index) else { return Vec::new() };
        let mut operations = Vec::new();
        let place = pod_root.join(VOLUMES).join(&volume.key);
        operations.push(stand_in(&place, self.kind(index)));
        match (&volume.source, self.in_vm) {
            (_, false) => operations.push(Operation::Attach { tree, target: place }),
            (VolumeSource::Empty(empty), true) => {
                let path = Path::new(VM_SCRATCH).join(VM_VOLUMES).join(&volume.key);
                operations.push(Operation::EmptyVolume { path: path.clone(), volume: *empty });
                let read_only = volume.read_only;
                operations.push(Operation::Volume { source: path, target: place, read_only });
            }
            (VolumeSource::Host { .. }, true) if self.kind(index) == OpenedVolume::Directory => {
                operations.push(served(index, volume, place));
            }
            (VolumeSource::Host { .. }, true) => {
                let directory_of_file = pod_root.join(VM_FILES).join(&volume.key);
                operations.push(directory(&directory_of_file, 0o700));
                operations.push(served(index, volume, directory_of_file.clone()));
                let (source, read_only) = (directory_of_file.join(VM_VOLUME_FILE), volume.read_only);
                operations.push(Operation::Volume { source, target: place, read_only });
            }
        }
        operations
    }

    /// Copies into an app's volumes what its image has in their places.
    pub fn populate(&self, app: usize, pod_root: &Path) -> Vec<Operation> {
        let (Some(name), Some(mounts)) = (self.apps.get(app), self.assigned.mounts.get(app)) else {
            return Vec::new();
        };
        let volumes =
            mounts.iter().filter_map(|mount| Some((mount, self.assigned.volumes.get(mount.volume)?)));
        let populated = volumes.filter(|(_, volume)| volume.populate);
        let operation = |(mount, volume): (&AppMount, &PodVolume)| Operation::Populate {
            root: pod_root.join(app_path(name)),
            path: mount.target.clone(),
            volume: pod_root.join(VOLUMES).join(&volume.key),
        };
        populated.map(operation).collect()
    }

    /// Adds an app's volumes to its set-up, and the devices among them to its policy.
    pub fn add_to(&self, app: usize, plan: &mut AppPlan) {
        let Some(mounts) = self.assigned.mounts.get(app) else { return };
        let root = Path::new("/").join(app_path(&plan.name));
        let mut operations = Vec::new();
        for mount in mounts {
            let Some(volume) = self.assigned.volumes.get(mount.volume) else { continue };
            let kind = self.kind(mount.volume);
            let target = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
            operations.push(stand_in(&target, kind));
            operations.push(Operation::Volume {
                source: Path::new("/").join(VOLUMES).join(&volume.key),
                target,
                read_only: mount.read_only,
            });
            if let (OpenedVolume::Device { kind, major, minor }, Some(policy)) = (kind, &mut plan.devices) {
                let access = DeviceAccess { read: true, write: !mount.read_only, make: false };
                policy.allowed.push(DeviceRule { kind, major: Some(major), minor: Some(minor), access });
            }
        }
        plan.mount_over_root(operations);
    }
}

/// What a volume is mounted on.
fn stand_in(path: &Path, kind: OpenedVolume) -> Operation {
    match kind {
        OpenedVolume::Directory => directory(path, 0o755),
        OpenedVolume::File | OpenedVolume::Device { .. } => {
            Operation::EmptyFile { path: PathBuf::from(path) }
        }
    }
}

/// Mounts a volume that is served to a VM. Device nodes in there are the host's, and mean nothing here.
fn served(index: usize, volume: &PodVolume, target: PathBuf) -> Operation {
    let flags = MountFlags { read_only: volume.read_only, no_dev: true, ..MountFlags::default() };
    let (file_system, options) = ("virtiofs".into(), String::new());
    Operation::Mount { file_system, source: volume_tag(index), target, flags, options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Insecure;
    use crate::devices::DevicePolicy;
    use crate::guest_network::GuestNetwork;
    use crate::plan::{ImageSource, Layers, NOTIFY_ANNOTATION, Plan, compute};

    fn plan(volume: &str, opened: OpenedVolume, in_vm: bool) -> Result<Plan, Error> {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
            "mounts":[{{"volume":"v","path":"/x/y"}}],"readOnlyRootFS":true,
            "annotations":[{{"name":"{NOTIFY_ANNOTATION}","value":"true"}}],
            "app":{{"exec":["/a"],"user":"0","group":"0"}}}}],"volumes":[{volume}]}}"#,
            "0".repeat(64)
        );
        let volumes = vec![opened];
        let isolation = match in_vm {
            false => Isolation::Namespaces { pod_root: "/p".into(), volumes, users: None },
            true => Isolation::Vm { scratch: "/dev/vda".into(), volumes, network: GuestNetwork::default() },
        };
        let layers = vec![Layers { image: ImageSource::File("/i".into()), writable: "/w".into() }];
        let (hostname, insecure) = ("h".into(), Insecure::default());
        let manifest = PodManifest::parse(json.as_bytes())?;
        compute(
            &manifest,
            &World {
                isolation,
                hostname,
                interactive: false,
                ipc: Default::default(),
                insecure,
                layers,
                resolv_conf: None,
                metadata_url: None,
                hosts: None,
            },
        )
    }

    const HOST: &str = r#"{"name":"v","kind":"host","source":"/s","readOnly":true}"#;
    const EMPTY: &str = r#"{"name":"v","kind":"empty"}"#;

    #[test]
    fn a_volume_is_mounted_under_the_notify_socket_and_before_the_root_is_read_only() {
        let setup = plan(EMPTY, OpenedVolume::Directory, false).unwrap().apps.remove(0).setup;
        let volume =
            Operation::Volume { source: "/volumes/v".into(), target: "/apps/a/x/y".into(), read_only: false };
        let end = &setup[setup.len() - 5..];
        assert_eq!(end[0], volume, "{setup:?}");
        // Over what may be a volume at /run.
        assert!(matches!(&end[2], Operation::Mount { target, .. } if target == "/apps/a/run/systemd"));
        assert!(matches!(&end[3], Operation::Bind { source, target, .. } if source == target));
    }

    #[test]
    fn a_device_is_allowed_as_it_is_mounted() {
        let device = OpenedVolume::Device { kind: DeviceKind::Character, major: 10, minor: 200 };
        let mut devices = plan(HOST, device, false).unwrap().apps.remove(0).devices.unwrap();
        assert_eq!(devices.allowed.pop().unwrap().to_string(), "c 10:200 r");
        assert_eq!(devices, DevicePolicy::closed());
    }

    #[test]
    fn in_a_vm_volumes_are_made_or_served() {
        let setup = |volume, opened| plan(volume, opened, true).unwrap().setup;
        let made = |operation: &&Operation| matches!(operation, Operation::EmptyVolume { .. });
        assert_eq!(setup(EMPTY, OpenedVolume::Directory).iter().filter(made).count(), 1);
        let served = |setup: &[Operation], place: &str| {
            setup.iter().any(|operation| match operation {
                Operation::Mount { file_system, source, target, flags, .. } => {
                    file_system == "virtiofs"
                        && source == "volume0"
                        && target == Path::new(place)
                        && flags.read_only
                        && flags.no_dev
                }
                _ => false,
            })
        };
        assert!(served(&setup(HOST, OpenedVolume::Directory), "/pod/volumes/v"));
        let file = setup(HOST, OpenedVolume::File);
        assert!(served(&file, "/pod/files/v"));
        let bound = Operation::Volume {
            source: "/pod/files/v/file".into(),
            target: "/pod/volumes/v".into(),
            read_only: true,
        };
        assert!(file.contains(&bound), "{file:?}");
    }
}
