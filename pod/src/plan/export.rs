//! What a throw-away guest does for `rkt export`: it lays an app's layer over its image as the app had it, read-only, and packs what
//! is to be seen. The guest that wrote the layer may have been anybody's, so this one is trusted with nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ImageSource, Layers, MountFlags, Operation, POD_ROOT, VM_DEVICES, VM_SCRATCH, app_path, directory, mount,
    mount_image,
};
use crate::types::AcName;

/// What is to be packed, and how it gets there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Carried out by the guest's init.
    pub setup: Vec<Operation>,
    /// Where the tree is then.
    pub root: PathBuf,
    /// The manifest of the app's image.
    pub manifest: String,
}

/// The export of an app whose image and layer are these; `scratch` is the disk with the layers, if the pod has come that far.
pub fn export(app: &AcName, layers: &Layers, scratch: Option<&Path>, manifest: String) -> Export {
    let (dev, pod_root) = (Path::new(VM_DEVICES), Path::new(POD_ROOT));
    let (proc, target) = (pod_root.join("proc"), pod_root.join(app_path(app)));
    let mut setup = vec![directory(dev, 0o755), mount("devtmpfs", dev, MountFlags::default(), "")];
    setup.extend(scratch.map(|device| Operation::Mount {
        file_system: "ext4".into(),
        source: device.display().to_string(),
        target: VM_SCRATCH.into(),
        flags: MountFlags::INERT.read_only(),
        options: String::new(),
    }));
    setup.push(mount("tmpfs", pod_root, MountFlags::INERT, "mode=0755"));
    setup.extend([directory(&proc, 0o755), mount("proc", &proc, MountFlags::INERT, "")]);
    let (image, lower) = mount_image(pod_root, app, layers);
    setup.extend(image);
    setup.push(directory(&target, 0o755));
    setup.push(Operation::Merge { lower, upper: layers.writable.join("upper"), target });
    setup.push(Operation::Root { path: pod_root.into() });
    Export { setup, root: Path::new("/").join(app_path(app)), manifest }
}

/// Where an app's image and layer are in the guest that exports it.
pub fn export_layers(app: &AcName, image: &Path) -> Layers {
    Layers { image: ImageSource::Pmem(image.into()), writable: Path::new(VM_SCRATCH).join(app.as_str()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(scratch: Option<&Path>) -> Export {
        let app = "a".parse().unwrap();
        export(&app, &export_layers(&app, Path::new("/dev/pmem1")), scratch, "{}".into())
    }

    #[test]
    fn nothing_is_written_to_the_disk() {
        let plan = plan(Some(Path::new("/dev/vda")));
        let disk = plan.setup.iter().find(
            |operation| matches!(operation, Operation::Mount { file_system, .. } if file_system == "ext4"),
        );
        assert!(
            matches!(disk, Some(Operation::Mount { flags, .. }) if flags.read_only && flags.no_dev && flags.no_exec)
        );
        assert!(!plan.setup.iter().any(|operation| matches!(operation, Operation::Overlay { .. })));
        let merge = plan.setup.iter().find(|operation| matches!(operation, Operation::Merge { .. })).unwrap();
        let wanted = Operation::Merge {
            lower: "/pod/images/a".into(),
            upper: "/scratch/a/upper".into(),
            target: "/pod/apps/a".into(),
        };
        assert_eq!((merge, plan.root.as_path()), (&wanted, Path::new("/apps/a")));
    }

    #[test]
    fn a_pod_that_had_no_disk_yet() {
        let (with, without) = (plan(Some(Path::new("/dev/vda"))), plan(None));
        assert_eq!(with.setup.len(), without.setup.len() + 1);
        let sent: Export = serde_json::from_str(&serde_json::to_string(&without).unwrap()).unwrap();
        assert_eq!(sent, without);
    }
}
