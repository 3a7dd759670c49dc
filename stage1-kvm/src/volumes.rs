//! The host's volumes of a pod: opened before anything runs, and each served to the guest by a process of its own
//! ([`crate::volume_server`]).

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::stat::{SFlag, fstat};
use pod::plan::{OpenedVolume, VM_LATE_IMAGES_TAG, volume_tag};
use pod::volumes::{PodVolume, VolumeSource, assign};
use stage1::pod::Pod;
use stage1::volumes::open_tree;
use vmm::virtio::fs::FsConfig;

use crate::error::Error;
use crate::volume_server::{Served, VolumeServer};

/// The volumes of a pod.
pub struct Volumes {
    /// What each is, in the order of the plan's.
    pub kinds: Vec<OpenedVolume>,
    served: Vec<Served>,
}

/// Opens a pod's volumes: the place that is looked at here is the one that is served, whatever becomes of its path.
pub fn open(pod: &Pod) -> Result<Volumes, Error> {
    let assigned = assign(&pod.manifest).map_err(Error::Volumes)?;
    let mut volumes = Volumes { kinds: Vec::new(), served: Vec::new() };
    for (index, volume) in assigned.volumes.iter().enumerate() {
        let kind = match &volume.source {
            VolumeSource::Empty(_) => OpenedVolume::Directory,
            VolumeSource::Host { path, recursive, .. } => {
                let (tree, kind) = open_one(volume, path, *recursive)?;
                let (name, tag) = (volume.key.clone(), volume_tag(index));
                volumes.served.push(Served { name, tag, tree, kind, read_only: volume.read_only });
                kind
            }
        };
        volumes.kinds.push(kind);
    }
    if pod.manifest.is_mutable() {
        volumes.served.push(late_images(pod)?);
    }
    Ok(volumes)
}

fn open_one(volume: &PodVolume, path: &Path, recursive: bool) -> Result<(OwnedFd, OpenedVolume), Error> {
    let opened = open_tree(path, recursive, volume.read_only).and_then(|tree| {
        let kind = SFlag::from_bits_truncate(fstat(&tree)?.st_mode) & SFlag::S_IFMT;
        Ok((tree, kind))
    });
    let (tree, kind) =
        opened.map_err(|source| Error::Volume { volume: volume.key.clone(), path: path.into(), source })?;
    match kind {
        SFlag::S_IFDIR => Ok((tree, OpenedVolume::Directory)),
        SFlag::S_IFREG => Ok((tree, OpenedVolume::File)),
        _ => Err(Error::VolumeKind { volume: volume.key.clone(), path: path.into() }),
    }
}

/// The directory in which the images of apps will be that come late.
fn late_images(pod: &Pod) -> Result<Served, Error> {
    let (name, path) = (VM_LATE_IMAGES_TAG.to_owned(), pod.directory.images());
    let tree = open_tree(&path, false, true).map_err(|source| Error::Volume {
        volume: name.clone(),
        path,
        source,
    })?;
    Ok(Served { tag: name.clone(), name, tree, kind: OpenedVolume::Directory, read_only: true })
}

impl Volumes {
    /// How many servers there will be.
    pub fn servers(&self) -> usize {
        self.served.len()
    }

    /// Starts the servers. They end with this process, or when they are dropped. The process must have one thread.
    pub fn serve(self) -> Result<(Vec<VolumeServer>, Vec<FsConfig>), Error> {
        let started: Vec<_> = self.served.into_iter().map(VolumeServer::start).collect::<Result<_, _>>()?;
        let (mut servers, mut devices) = (Vec::new(), Vec::new());
        for (server, device) in started {
            // All of them get ready at the same time.
            server.wait_until_ready(&device)?;
            servers.push(server);
            devices.push(device);
        }
        Ok((servers, devices))
    }
}
