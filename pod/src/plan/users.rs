//! What is different in a pod with a user namespace of its own.
//!
//! The supervisor there may mount no image and no overlay, make no device, and not even enter the pod's directory. So
//! root of the host does that first (`Plan::outside`), in a small world that the supervisor gets a copy of as its root:
//!
//! | | |
//! |---|---|
//! | `/layers/<app>` | the overlay over the app's image, whose owners are shifted |
//! | `/devices` | the devices that every app has |
//! | `/proc`, `/sys` | the host's: without them in view the kernel lets nobody mount some that are the pod's |
//! | `/pod` | where the pod's root will be |
//!
//! The image's mount is shifted, not the overlay's, which kernels refuse. The writable layer is not: what is in it has the
//! host's numbers of the pod's users, so that a program that is set-user-ID to the pod's root never is to the host's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    AppPlan, ImageSource, Layers, MountFlags, Operation, POD_ROOT, World, app_path, directory, mount,
};
use crate::Error;
use crate::devices::NODES;
use crate::plan::Isolation;
use crate::pod_manifest::PodManifest;
use crate::types::AcName;
use crate::users::UserRange;

const LAYERS: &str = "layers";
const DEVICES: &str = "devices";

/// The overlay over an app's image, whose owners are shifted: at [`layer`].
pub(super) fn shifted_root(root: &Path, app: &AcName, layers: &Layers) -> Vec<Operation> {
    let (image, layer) = (root.join("images").join(app.as_str()), layer(root, app));
    vec![
        directory(&image, 0o755),
        match &layers.image {
            ImageSource::Tree(tree) => bind(tree, &image),
            ImageSource::File(source) | ImageSource::Pmem(source) | ImageSource::Disk(source) => {
                Operation::Image { source: source.clone(), target: image.clone(), dax: false }
            }
        },
        Operation::Idmap { path: image.clone() },
        directory(&layer, 0o755),
        Operation::Overlay {
            lower: image,
            upper: layers.writable.join("upper"),
            work: layers.writable.join("work"),
            target: layer,
            label: None,
        },
    ]
}

/// Where that is.
pub(super) fn layer(root: &Path, app: &AcName) -> PathBuf {
    root.join(LAYERS).join(app.as_str())
}

fn bind(source: &Path, target: &Path) -> Operation {
    Operation::Bind { source: source.to_owned(), target: target.to_owned(), flags: MountFlags::default() }
}

/// The user namespace of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateUsers {
    /// Its users.
    pub range: UserRange,
    /// Whether the pod is in the host's network, of which it can mount no /sys.
    pub host_network: bool,
}

impl PrivateUsers {
    /// Makes that world.
    pub fn outside(&self, manifest: &PodManifest, world: &World) -> Vec<Operation> {
        let Isolation::Namespaces { pod_root: root, .. } = &world.isolation else { return Vec::new() };
        let mut operations =
            vec![Operation::SlaveRoot, mount("tmpfs", root, MountFlags::default(), "mode=0755")];
        operations.push(directory(&root.join(POD_ROOT.trim_start_matches('/')), 0o755));
        for kernel in ["proc", "sys"] {
            operations.push(directory(&root.join(kernel), 0o755));
            operations.push(bind(&Path::new("/").join(kernel), &root.join(kernel)));
        }
        operations.push(directory(&root.join(DEVICES), 0o755));
        operations.extend(NODES.iter().map(|node| Operation::Device {
            path: root.join(DEVICES).join(node.name),
            major: node.major,
            minor: node.minor,
        }));
        let apps = manifest.apps.iter().zip(&world.layers);
        operations.extend(apps.flat_map(|(app, layers)| shifted_root(root, &app.name, layers)));
        operations.push(Operation::Root { path: root.clone() });
        operations
    }

    /// Takes it over into the pod's root.
    pub fn pod_setup(&self, pod_root: &Path, manifest: &PodManifest) -> Vec<Operation> {
        let mut operations = Vec::new();
        let mut bind = |source: &Path, target: &Path, flags| {
            operations.push(directory(target, 0o755));
            operations.push(Operation::Bind { source: source.to_owned(), target: target.to_owned(), flags });
        };
        for app in &manifest.apps {
            bind(
                &layer(Path::new("/"), &app.name),
                &pod_root.join(app_path(&app.name)),
                MountFlags::default(),
            );
        }
        let quiet = MountFlags { no_suid: true, no_exec: true, ..MountFlags::default() };
        bind(&Path::new("/").join(DEVICES), &pod_root.join(DEVICES), quiet);
        if self.host_network {
            bind(Path::new("/sys"), &pod_root.join("sys"), MountFlags::INERT.read_only());
        }
        // In view for the apps' own, and nobody's otherwise.
        let mut kernel = |name: &str, file_system, flags| {
            operations.push(directory(&pod_root.join(name), 0o755));
            operations.push(mount(file_system, &pod_root.join(name), flags, ""));
        };
        kernel("proc", "proc", MountFlags::INERT);
        if !self.host_network {
            kernel("sys", "sysfs", MountFlags::INERT.read_only());
        }
        operations
    }

    /// Makes an app's plan one that can be carried out in the namespace.
    pub fn adapt(&self, plan: &mut AppPlan) -> Result<(), Error> {
        if plan.process.oom_score_adj.is_some_and(|score| score < 0) {
            return Err(Error::Invalid(format!(
                "app \"{}\" has a negative os/linux/oom-score-adj, which nobody may set in a user namespace: leave it out, or \
                 run without --private-users",
                plan.name
            )));
        }
        let operations = std::mem::take(&mut plan.setup);
        plan.setup = operations.into_iter().flat_map(|operation| self.adapted(operation)).collect();
        Ok(())
    }

    fn adapted(&self, operation: Operation) -> Vec<Operation> {
        match operation {
            Operation::Device { path, .. } => {
                let source = Path::new("/").join(DEVICES).join(path.file_name().unwrap_or_default());
                let bound = Operation::Bind { source, target: path.clone(), flags: MountFlags::default() };
                vec![Operation::EmptyFile { path }, bound]
            }
            Operation::Mount { file_system, target, flags, .. }
                if self.host_network && file_system == "sysfs" =>
            {
                vec![Operation::Bind { source: "/sys".into(), target, flags }]
            }
            other => vec![other],
        }
    }
}
