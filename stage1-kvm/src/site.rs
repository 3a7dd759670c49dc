//! Apps that come into a pod that runs, and leave it. The guest takes their images from a directory that is served to it
//! from the beginning, so that the machine need not change.

use std::path::Path;

use pod::disk_space;
use pod::guest_network::GuestNetwork;
use pod::limits::PodLimits;
use pod::plan::{Addition, Layers, OpenedVolume, VM_SCRATCH, addition, vm_late_image};
use pod::pod_manifest::PodManifest;
use pod::session::SessionId;
use pod::types::AcName;
use pod::volumes::assign;
use stage1::attend::{Added, Site};
use stage1::pod::Pod;

use crate::error::Error;
use crate::{machine, sessions};

/// The host's side of a pod whose apps come and go.
pub struct GuestSite<'a> {
    pod: &'a Pod,
    /// What the volumes are that the machine has.
    kinds: Vec<OpenedVolume>,
}

impl<'a> GuestSite<'a> {
    /// Of a machine with these volumes.
    pub fn new(pod: &'a Pod, kinds: Vec<OpenedVolume>) -> Self {
        Self { pod, kinds }
    }

    fn try_add(&self, session: SessionId, before: &PodManifest, after: &PodManifest) -> Result<Added, Error> {
        let no_app = || Error::App(pod::Error::Invalid("there is no app".into()));
        let app = after.apps.last().ok_or_else(no_app)?;
        let layers = Layers {
            image: vm_late_image(&app.name),
            writable: Path::new(VM_SCRATCH).join(app.name.as_str()),
        };
        let machine = PodLimits::of(&self.pod.manifest).map_err(Error::Limits)?;
        let limits = PodLimits::of(after).map_err(Error::Limits)?;
        disk_space::of(after).map_err(Error::App)?;
        limits.apps.last().map_or(Ok(()), |limits| machine.admit(limits)).map_err(Error::Limits)?;
        // Whatever comes with an app is made in the guest.
        let mut kinds = self.kinds.clone();
        let volumes = assign(after).map_err(Error::Volumes)?.volumes;
        kinds.resize(volumes.len(), OpenedVolume::Directory);
        let isolation = machine::isolation(GuestNetwork::default(), kinds);
        let world = self.pod.world(isolation, vec![layers]);
        let Addition { new, .. } = addition(before, after, &world).map_err(Error::App)?;
        let streams = new.app.stdio.streams();
        let ends = sessions::open(&self.pod.directory, session, streams)
            .map_err(|source| Error::System { action: "connect the app's streams", source: source.into() })?;
        let streams = streams.iter().copied().zip(ends).collect();
        Ok(Added { new, streams })
    }
}

impl Site for GuestSite<'_> {
    fn add(
        &mut self,
        session: SessionId,
        before: &PodManifest,
        after: &PodManifest,
    ) -> Result<Added, Box<dyn std::error::Error>> {
        Ok(self.try_add(session, before, after)?)
    }

    /// All that an app needs is in the guest.
    fn remove(&mut self, _: &AcName) {}
}
