//! `rkt app add`: all that can fail is tried before the pod is asked.

use std::path::Path;
use std::process::ExitCode;

use pod::abi::{self, PodDirectory};
use pod::pod_manifest::PodManifest;
use pod::session::{Action, Change};

use super::app::Refused;
use super::content::{LateApp, Running, app_image, check};
use super::{Outcome, enter, foreign};
use crate::cli::{AppArguments, Globals, PodChoice, PodFlags, PodLine, Stage1};
use crate::host::Kernel;
use crate::pods::Pods;
use crate::sockets::Sockets;
use crate::stage1::{self, Foreign};
use crate::store::Store;

/// Takes an app into a running pod.
pub fn add(globals: &Globals, choice: &PodChoice, arguments: &AppArguments) -> Outcome {
    enter::need_root()?;
    let pods = Pods::new(&globals.directory);
    let (pod, pid) = enter::wait_for_pid(&pods, pods.choose(choice)?)?;
    let manifest = pod.manifest()?;
    if !manifest.is_mutable() {
        return Err(Refused::Immutable(pod.uuid).into());
    }
    if let Some(foreign) = Foreign::of_pod(&pod.path)? {
        let running = stage1::Running { uuid: pod.uuid, pid, debug: globals.debug };
        return foreign::add(globals, &foreign, running, &pod, arguments);
    }
    let directory = PodDirectory::new(&pod.path);
    let (stage1, _) = Stage1::of_pod(&directory)?;
    let private_users = directory.private_users().exists();
    let flags = PodFlags { volume: manifest.volumes.clone(), private_users, ..PodFlags::default() };
    let line = PodLine { flags, mounts: Vec::new(), apps: Vec::new() };

    let store = Store::new(&globals.directory);
    let LateApp { image, app, .. } = &LateApp::find(globals, &line, Some(stage1), &store, arguments)?;
    let mut alone = PodManifest::new(vec![app.clone()]);
    alone.volumes = manifest.volumes;
    let (name, file) = (arguments.image.as_str(), image.erofs_path());
    let files: [(&str, &Path); 1] = [(name, &file)];
    if check(&alone, stage1, private_users, Running::ANY, &files)?.is_some() {
        return Err(Refused::LateLabel(app.name.clone()).into());
    }
    // Nobody passes any for it.
    Sockets::default().assign(&alone, stage1)?;
    let app_image = app_image(&store, &Kernel::running(), stage1, &app.name, image)?;

    let lock = pod.lock_apps()?;
    // As it is now, while nobody else changes it.
    pod.manifest()?.with(app.clone())?;
    let added = pod.prepare_app(&lock, app, &app_image).map_err(Into::into).and_then(|()| {
        let change = Change { app: app.name.clone(), action: Action::Add };
        Ok(stage1::alter(&pod.path, pod.uuid, &abi::AppArguments { change })?)
    });
    if added.is_err() {
        pod.remove_app(&lock, &app.name)?;
    }
    added.map(|()| ExitCode::SUCCESS)
}
