//! `rkt app add`: all that can fail is tried before the pod is asked.

use std::process::ExitCode;

use pod::abi::{self, PodDirectory};
use pod::pod_manifest::PodManifest;
use pod::session::{Action, Change};

use super::app::Refused;
use super::run::{app_image, check, find};
use super::{Outcome, enter};
use crate::cli::{AppArguments, Globals, PodChoice, PodFlags};
use crate::host::Kernel;
use crate::pods::Pods;
use crate::pods::environment::PodEnvironment;
use crate::pods::manifest::{Source, runtime_app};
use crate::sockets::Sockets;
use crate::stage1;
use crate::store::Store;

/// Takes an app into a running pod.
pub fn add(globals: &Globals, choice: &PodChoice, arguments: &AppArguments) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(enter::Refused::Unprivileged.into());
    }
    let pods = Pods::new(&globals.directory);
    let (pod, _) = enter::wait_for_pid(&pods, pods.choose(choice)?)?;
    let manifest = pod.manifest()?;
    if !manifest.is_mutable() {
        return Err(Refused::Immutable(pod.uuid).into());
    }
    let flags = PodFlags {
        stage1: pod.isolation()?,
        volume: manifest.volumes.clone(),
        private_users: PodDirectory::new(&pod.path).private_users().exists(),
        mutable: true,
        ..PodFlags::default()
    };
    let (environment, store) = (PodEnvironment::default(), Store::new(&globals.directory));
    let image = find(globals, &flags, &environment, &[], &store, arguments)?;
    let app = runtime_app(Source { id: &image.id, manifest: &image.manifest }, arguments, &environment, &[])?;
    let mut alone = PodManifest::new(vec![app.clone()]);
    alone.volumes = flags.volume.clone();
    let label = check(&alone, &flags, std::slice::from_ref(arguments), std::slice::from_ref(&image))?;
    if label.is_some() {
        return Err(Refused::LateLabel(app.name).into());
    }
    // Nobody passes any for it.
    Sockets::default().assign(&alone, flags.stage1)?;
    let app_image = app_image(&store, &Kernel::running(), flags.stage1, &app.name, &image)?;

    let lock = pod.lock_apps()?;
    // As it is now, while nobody else changes it.
    pod.manifest()?.with(app.clone())?;
    let added = pod.prepare_app(&lock, &app, &app_image).map_err(Into::into).and_then(|()| {
        let change = Change { app: app.name.clone(), action: Action::Add };
        Ok(stage1::alter(&pod.path, pod.uuid, &abi::AppArguments { change })?)
    });
    if added.is_err() {
        pod.remove_app(&lock, &app.name)?;
    }
    added.map(|()| ExitCode::SUCCESS)
}
