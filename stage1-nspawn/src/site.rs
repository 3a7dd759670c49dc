//! Apps that come into a pod that runs, and leave it: what they need of the host is made here, and handed to the supervisor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use pod::control::Stream;
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::{Addition, Isolation, OpenedVolume, PrivateUsers, Stdio, addition, new_volumes};
use pod::pod_manifest::PodManifest;
use pod::session::SessionId;
use pod::types::AcName;
use pod::users::UserRange;
use pod::volumes::assign;
use stage1::attend::{Added, Site};
use stage1::cgroup::{AppCgroup, Cgroups};
use stage1::pod::{Pod, check_filters, layers};
use stage1::volumes::{self, Users};

use crate::error::Error;
use crate::scaffold;
use crate::sessions::{Door, Thing, connection};

/// The host's side of a pod whose apps come and go.
pub struct HostSite<'a> {
    pod: &'a Pod,
    users: Option<(UserRange, File)>,
    cgroups: &'a RefCell<Cgroups>,
    door: Rc<Door>,
    /// What each volume is that is in use, by its key.
    kinds: HashMap<String, OpenedVolume>,
}

impl Site for HostSite<'_> {
    fn add(
        &mut self,
        session: SessionId,
        before: &PodManifest,
        after: &PodManifest,
    ) -> Result<Added, Box<dyn std::error::Error>> {
        Ok(self.try_add(session, before, after)?)
    }

    fn remove(&mut self, app: &AcName) {
        self.cgroups.borrow().remove(app);
    }
}

impl<'a> HostSite<'a> {
    /// Of a pod with this user namespace, if it has one, and with volumes that are this.
    pub fn new(
        pod: &'a Pod,
        users: Option<(UserRange, File)>,
        cgroups: &'a RefCell<Cgroups>,
        door: &Rc<Door>,
        volumes: &[OpenedVolume],
    ) -> Result<Self, Error> {
        let assigned = assign(&pod.manifest).map_err(Error::App)?.volumes;
        let kinds = assigned.into_iter().map(|volume| volume.key).zip(volumes.iter().copied()).collect();
        Ok(Self { pod, users, cgroups, door: Rc::clone(door), kinds })
    }

    fn try_add(
        &mut self,
        session: SessionId,
        before: &PodManifest,
        after: &PodManifest,
    ) -> Result<Added, Error> {
        let Some(app) = after.apps.last() else { return Err(Error::App(no_app())) };
        let trees = self.open_volumes(before, after)?;
        let world = self.pod.world(self.isolation(after)?, vec![layers(&self.pod.directory, &app.name)?]);
        let Addition { outside, root, mut new } = addition(before, after, &world).map_err(Error::App)?;
        check_filters(std::slice::from_ref(&new.app))?;
        let root = scaffold::mount(&outside, &root, self.users.as_ref().map(|(_, users)| users.as_fd()))?;
        let limits = PodLimits::of(after).map_err(Error::Limits)?;
        let limits = limits.apps.last().ok_or_else(|| Error::Limits(no_app()))?;
        let (procs, directory) =
            self.cgroups.borrow().add(&AppCgroup { limits, devices: new.app.devices.as_ref() })?;
        new.cgroups = procs.len();
        let trees: Vec<OwnedFd> = std::iter::once(root).chain(trees).collect();
        let streams = self
            .hand_over(session, &new.app.stdio, &procs, directory.as_ref(), &trees)
            .map_err(Error::system("hand the app over"));
        if streams.is_err() {
            self.remove(&app.name);
        }
        Ok(Added { new, streams: streams? })
    }

    /// Opens the volumes that are not in use yet.
    fn open_volumes(&mut self, before: &PodManifest, after: &PodManifest) -> Result<Vec<OwnedFd>, Error> {
        let users = self.users.as_ref();
        let users = users.map(|(range, users)| Users { range: *range, namespace: users.as_fd() });
        let mut trees = Vec::new();
        for (_, volume) in new_volumes(before, after).map_err(Error::App)? {
            let (tree, kind) = volumes::open_one(&self.pod.directory, &volume, users)?;
            self.kinds.insert(volume.key, kind);
            trees.push(tree);
        }
        Ok(trees)
    }

    fn isolation(&self, manifest: &PodManifest) -> Result<Isolation, Error> {
        let volumes = assign(manifest).map_err(Error::App)?.volumes;
        let kind = |key: &String| self.kinds.get(key).copied().unwrap_or(OpenedVolume::Directory);
        let host_network = self.pod.arguments.net == Net::Host;
        Ok(Isolation::Namespaces {
            pod_root: self.pod.directory.stage1_rootfs(),
            volumes: volumes.iter().map(|volume| kind(&volume.key)).collect(),
            users: self.users.as_ref().map(|(range, _)| PrivateUsers { range: *range, host_network }),
        })
    }

    /// In the order in which the supervisor takes it; the parent's ends of the streams.
    fn hand_over(
        &self,
        session: SessionId,
        stdio: &Stdio,
        procs: &[OwnedFd],
        cgroup: Option<&OwnedFd>,
        trees: &[OwnedFd],
    ) -> nix::Result<Vec<(Stream, OwnedFd)>> {
        let mut outside = Vec::new();
        for stream in stdio.streams() {
            let (inside, out) = connection(*stream, *stdio == Stdio::Terminal)?;
            self.door.hand_over(session, Thing::Stream(*stream), inside.as_fd())?;
            outside.push((*stream, out));
        }
        let things = procs.iter().map(|fd| (Thing::Procs, fd));
        let things = things.chain(cgroup.map(|fd| (Thing::Cgroup, fd)));
        let mut things = things.chain(trees.iter().map(|fd| (Thing::Tree, fd)));
        things.try_for_each(|(thing, fd)| self.door.hand_over(session, thing, fd.as_fd()))?;
        Ok(outside)
    }
}

fn no_app() -> pod::Error {
    pod::Error::Invalid("there is no app".into())
}
