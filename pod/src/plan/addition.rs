//! Apps that come into a pod that runs, and leave it. What only root of the host may mount is mounted outside, as a detached
//! tree that the supervisor attaches, like a volume; with and without a user namespace.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::volumes::{VOLUMES, Volumes};
use super::{
    AppPlan, Isolation, MountFlags, Operation, World, app_path, app_root, directory, mount, users,
    whole_app_plan,
};
use crate::Error;
use crate::limits::PodLimits;
use crate::pod_manifest::{PodManifest, RuntimeApp};
use crate::streams::InputMode;
use crate::volumes::{PodVolume, assign};

/// All that is to be done for an app that comes into a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    /// Carried out by root of the host, in a mount namespace of its own.
    pub outside: Vec<Operation>,
    /// Where the app's root is mounted after that: the first of [`NewApp::setup`]'s trees.
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
    let Isolation::Namespaces { pod_root, users, .. } = &world.isolation else {
        return Err(Error::Unsupported("adding apps to a micro-VM".into()));
    };
    let index = after.apps.len() - 1;
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
    let mut outside =
        vec![Operation::SlaveRoot, mount("tmpfs", pod_root, MountFlags::default(), "mode=0755")];
    let root = match users {
        Some(_) => {
            outside.extend(users::shifted_root(pod_root, &app.name, layers));
            users::layer(pod_root, &app.name)
        }
        None => {
            outside.extend(app_root(pod_root, app, layers));
            pod_root.join(app_path(&app.name))
        }
    };
    let place = Path::new("/").join(app_path(&app.name));
    let mut setup = vec![directory(&place, 0o755), Operation::Attach { tree: 0, target: place }];
    let new = new_volumes(before, after)?;
    for (tree, (index, _)) in (1..).zip(&new) {
        setup.extend(volumes.mount_one(*index, tree, Path::new("/")));
    }
    setup.extend(volumes.populate(index, Path::new("/")));
    let teardown = teardown(after, before)?;
    let new = NewApp { setup, trees: 1 + new.len(), cgroups: 0, app: plan, teardown };
    Ok(Addition { outside, root, new })
}

/// The volumes in use by `after` that are not by `before`, with their places in [`assign`]'s list.
pub fn new_volumes(before: &PodManifest, after: &PodManifest) -> Result<Vec<(usize, PodVolume)>, Error> {
    let known = assign(before)?.volumes;
    let is_new = |volume: &PodVolume| known.iter().all(|known| known.key != volume.key);
    let volumes = assign(after)?.volumes.into_iter().enumerate();
    Ok(volumes.filter(|(_, volume)| is_new(volume)).collect())
}

/// What takes the apps and volumes out of the pod's root that `before` has and `after` has not.
pub fn teardown(before: &PodManifest, after: &PodManifest) -> Result<Vec<Operation>, Error> {
    let stays = |app: &&RuntimeApp| after.apps.iter().all(|kept| kept.name != app.name);
    let apps = before.apps.iter().filter(stays).map(|app| Path::new("/").join(app_path(&app.name)));
    let volumes = new_volumes(after, before)?;
    let volumes = volumes.iter().map(|(_, volume)| Path::new("/").join(VOLUMES).join(&volume.key));
    Ok(apps.chain(volumes).map(|path| Operation::Detach { path }).collect())
}
