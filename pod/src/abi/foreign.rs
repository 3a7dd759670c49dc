//! What is in a pod's directory only if its stage1 is somebody else's (stage1 implementor's guide, "Filesystem Layout in Stage1").

use std::path::PathBuf;

use super::PodDirectory;
use crate::types::AcName;

impl PodDirectory {
    /// The ID of the stage1's image in the store; there is none if the stage1 is one of ours.
    pub fn stage1_image(&self) -> PathBuf {
        self.path().join("stage1TreeStoreID")
    }

    /// Whoever changes the pod's apps has the lock (flock) on it.
    pub fn apps_lock(&self) -> PathBuf {
        self.path().join("pod.lck")
    }

    /// An app's image as a tree: `manifest` and `rootfs`.
    pub fn stage2(&self, app: &AcName) -> PathBuf {
        self.stage1_rootfs().join("opt/stage2").join(app.as_str())
    }

    /// An app's environment, a `NAME=VALUE` a line.
    pub fn environment(&self, app: &AcName) -> PathBuf {
        self.stage1_rootfs().join("rkt/env").join(app.as_str())
    }

    /// When an app came into the pod, by its modification time. It is in one directory with the exit statuses.
    pub fn created_marker(&self, app: &AcName) -> PathBuf {
        self.stage1_rootfs().join("rkt/status").join(format!("{app}-created"))
    }

    /// When it was last started, likewise.
    pub fn started_marker(&self, app: &AcName) -> PathBuf {
        self.stage1_rootfs().join("rkt/status").join(format!("{app}-started"))
    }
}
