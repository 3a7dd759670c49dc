//! Where a pod runs: what its plan depends on beside its manifest.

use std::path::PathBuf;

use super::{OpenedVolume, PrivateUsers};
use crate::Error;
use crate::abi::{Insecure, Ipc};
use crate::guest_network::GuestNetwork;
use crate::pod_manifest::PodManifest;
use crate::rates::{self, RateKind};

/// What the plan depends on beside the manifest.
#[derive(Clone, Debug)]
pub struct World {
    /// The isolation.
    pub isolation: Isolation,
    /// The host name.
    pub hostname: String,
    /// Whether the pod's one app has a terminal.
    pub interactive: bool,
    /// Whose shared memory and message queues the apps have.
    pub ipc: Ipc,
    /// What confinement the user has switched off.
    pub insecure: Insecure,
    /// Where each app's image and writable layer are, in the manifest's order.
    pub layers: Vec<Layers>,
    /// What the apps' `/etc/resolv.conf` is to be; the images' own if absent.
    pub resolv_conf: Option<String>,
    /// Where the apps find the metadata service, if they are to.
    pub metadata_url: Option<String>,
    /// What their `/etc/hosts` is to be, if it is not the images' own.
    pub hosts: Option<Hosts>,
}

/// An `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// What is in it.
    pub content: String,
    /// Whether it takes the place of the image's.
    pub replace: bool,
}

impl World {
    pub(super) fn private_users(&self) -> Option<&PrivateUsers> {
        match &self.isolation {
            Isolation::Namespaces { users, .. } => users.as_ref(),
            Isolation::Fly { .. } | Isolation::Vm { .. } => None,
        }
    }

    pub(super) fn is_fly(&self) -> bool {
        matches!(self.isolation, Isolation::Fly { .. })
    }

    pub(super) fn is_vm(&self) -> bool {
        matches!(self.isolation, Isolation::Vm { .. })
    }

    /// Refuses rates where the pod has nothing of its own that keeps them: a machine, or networks. Whether those do is for who knows them
    /// to say.
    pub(super) fn check_rates(&self, manifest: &PodManifest) -> Result<(), Error> {
        match &self.isolation {
            Isolation::Vm { .. } => Ok(()),
            Isolation::Namespaces { .. } => {
                rates::refuse(&[RateKind::BlockBandwidth, RateKind::BlockIops], manifest)
            }
            Isolation::Fly { .. } => rates::refuse(&RateKind::ALL, manifest),
        }
    }
}

/// In what the supervisor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces of the host: the pod's root is mounted over this existing directory of the host.
    Namespaces {
        /// For example `<pod>/stage1/rootfs`.
        pod_root: PathBuf,
        /// The pod's volumes, opened, in the order of [`crate::volumes::assign`].
        volumes: Vec<OpenedVolume>,
        /// The pod's own user namespace, if it has one.
        users: Option<PrivateUsers>,
    },
    /// No isolation: nothing but a root and a mount namespace of its own, without a supervisor ([`super::fly`]).
    Fly {
        /// As of namespaces.
        pod_root: PathBuf,
        /// As of namespaces.
        volumes: Vec<OpenedVolume>,
    },
    /// A guest of its own.
    Vm {
        /// The block device with the writable layers' file system.
        scratch: PathBuf,
        /// What the pod's volumes are, in the order of [`crate::volumes::assign`]. Those of the host are served to the guest,
        /// each by its [`super::volume_tag`].
        volumes: Vec<OpenedVolume>,
        /// Its network; nothing but loopback, if it has no interface.
        network: GuestNetwork,
    },
}

/// Where an app's root comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The image.
    pub image: ImageSource,
    /// The pod's own layer: `upper` and `work` are made in it.
    pub writable: PathBuf,
}

/// An image as the supervisor finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An EROFS file of the host.
    File(PathBuf),
    /// A device of the guest, which is mapped.
    Pmem(PathBuf),
    /// A disk of the guest, which is read.
    Disk(PathBuf),
    /// A rendered tree of the host, which has no EROFS.
    Tree(PathBuf),
}
