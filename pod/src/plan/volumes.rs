//! The part of a plan that is about volumes. Each is mounted once in the pod's root, where no app sees it, and from there
//! bound to its places in the apps: so all apps see one and the same, whatever it comes from.

use std::path::{Path, PathBuf};

use super::{AppPlan, Isolation, Operation, VM_SCRATCH, World, app_path, directory};
use crate::Error;
use crate::devices::{DeviceAccess, DeviceKind, DeviceRule};
use crate::pod_manifest::PodManifest;
use crate::types::AcName;
use crate::volumes::{PodVolumes, VolumeSource, assign};

/// Where volumes are in the pod's root.
const VOLUMES: &str = "volumes";
/// Where a VM's empty volumes are on the writable layers' file system. Not an app's name: those have no underscores.
const VM_VOLUMES: &str = "_volumes";

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
    /// One for each, if they were opened outside.
    opened: Option<Vec<OpenedVolume>>,
}

impl Volumes {
    /// Those of a manifest; an error if the isolation cannot have them.
    pub fn of(manifest: &PodManifest, world: &World) -> Result<Self, Error> {
        let assigned = assign(manifest)?;
        let opened = match &world.isolation {
            Isolation::Namespaces { volumes, .. } if volumes.len() == assigned.volumes.len() => {
                Some(volumes.clone())
            }
            Isolation::Namespaces { volumes, .. } => {
                let needed = assigned.volumes.len();
                return Err(Error::Invalid(format!("{needed} volumes, but {} were opened", volumes.len())));
            }
            Isolation::Vm { .. } => {
                refuse_host_volumes(&assigned)?;
                None
            }
        };
        Ok(Self { assigned, apps: manifest.apps.iter().map(|app| app.name.clone()).collect(), opened })
    }

    fn kind(&self, volume: usize) -> OpenedVolume {
        let opened = self.opened.as_ref().and_then(|opened| opened.get(volume));
        opened.copied().unwrap_or(OpenedVolume::Directory)
    }

    /// Mounts them below the pod's root; after the apps' roots, before it becomes the root.
    pub fn pod_setup(&self, pod_root: &Path) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (index, volume) in self.assigned.volumes.iter().enumerate() {
            let place = pod_root.join(VOLUMES).join(&volume.key);
            operations.push(stand_in(&place, self.kind(index)));
            match (&volume.source, &self.opened) {
                (_, Some(_)) => operations.push(Operation::Attach { tree: index, target: place }),
                (VolumeSource::Empty(empty), None) => {
                    let path = Path::new(VM_SCRATCH).join(VM_VOLUMES).join(&volume.key);
                    operations.push(Operation::EmptyVolume { path: path.clone(), volume: *empty });
                    let read_only = volume.read_only;
                    operations.push(Operation::Volume { source: path, target: place, read_only });
                }
                (VolumeSource::Host { .. }, None) => {}
            }
        }
        for (app, mounts) in self.apps.iter().zip(&self.assigned.mounts) {
            for mount in mounts {
                let Some(volume) = self.assigned.volumes.get(mount.volume) else { continue };
                if volume.populate {
                    operations.push(Operation::Populate {
                        root: pod_root.join(app_path(app)),
                        path: mount.target.clone(),
                        volume: pod_root.join(VOLUMES).join(&volume.key),
                    });
                }
            }
        }
        operations
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

fn refuse_host_volumes(assigned: &PodVolumes) -> Result<(), Error> {
    let of_host = |source: &VolumeSource| matches!(source, VolumeSource::Host { .. });
    match assigned.volumes.iter().find(|volume| of_host(&volume.source)) {
        Some(volume) => Err(Error::Invalid(format!(
            "volume \"{}\" is kind=host, which --stage1=kvm cannot do yet: a VM reaches no file of the host but its \
             images; use kind=empty, or --stage1=nspawn",
            volume.key
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Insecure;
    use crate::devices::DevicePolicy;
    use crate::guest_network::GuestNetwork;
    use crate::plan::{ImageSource, Layers, NOTIFY_ANNOTATION, Plan, compute};

    fn plan(volume: &str, opened: Option<OpenedVolume>) -> Result<Plan, Error> {
        let json = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a","image":{{"id":"sha512-{}"}},
            "mounts":[{{"volume":"v","path":"/x/y"}}],"readOnlyRootFS":true,
            "annotations":[{{"name":"{NOTIFY_ANNOTATION}","value":"true"}}],
            "app":{{"exec":["/a"],"user":"0","group":"0"}}}}],"volumes":[{volume}]}}"#,
            "0".repeat(64)
        );
        let isolation = match opened {
            Some(opened) => {
                Isolation::Namespaces { pod_root: "/p".into(), volumes: vec![opened], users: None }
            }
            None => Isolation::Vm { scratch: "/dev/vda".into(), network: GuestNetwork::default() },
        };
        let layers = vec![Layers { image: ImageSource::File("/i".into()), writable: "/w".into() }];
        let (hostname, insecure) = ("h".into(), Insecure::default());
        let manifest = PodManifest::parse(json.as_bytes())?;
        compute(
            &manifest,
            &World { isolation, hostname, interactive: false, insecure, layers, resolv_conf: None },
        )
    }

    const HOST: &str = r#"{"name":"v","kind":"host","source":"/s","readOnly":true}"#;
    const EMPTY: &str = r#"{"name":"v","kind":"empty"}"#;

    #[test]
    fn a_volume_is_mounted_under_the_notify_socket_and_before_the_root_is_read_only() {
        let setup = plan(EMPTY, Some(OpenedVolume::Directory)).unwrap().apps.remove(0).setup;
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
        let mut devices = plan(HOST, Some(device)).unwrap().apps.remove(0).devices.unwrap();
        assert_eq!(devices.allowed.pop().unwrap().to_string(), "c 10:200 r");
        assert_eq!(devices, DevicePolicy::closed());
    }

    #[test]
    fn in_a_vm_volumes_are_empty() {
        let plan_of = plan(EMPTY, None).unwrap();
        let made = |operation: &&Operation| matches!(operation, Operation::EmptyVolume { .. });
        assert_eq!(plan_of.setup.iter().filter(made).count(), 1);
        let error = plan(HOST, None).unwrap_err().to_string();
        assert!(error.contains("\"v\"") && error.contains("--stage1=nspawn"), "{error}");
    }
}
