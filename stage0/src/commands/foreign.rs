//! Pods whose stage1 is an image of somebody's: what can be said to it is checked before anything is made. What it can carry out of
//! the pod's manifest, networks and isolators among it, is its own business, and no plan is computed.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use net::Wishes;
use pod::abi::{CpuTemplate, Interface, RunArguments, default_hostname};
use pod::net::Net;
use pod::pod_manifest::PodManifest;
use pod::ports::{self, PortMapping};
use pod::session::{Action, Change};
use pod::types::AcName;
use uuid::Uuid;

use super::content::{LateApp, generated_manifest, given_manifest};
use super::run::Refused as RefusedToRun;
use super::{Outcome, enter};
use crate::cli::{AppArguments, Globals, Names, PodFlags, PodLine, RunFlags, Stage1Image};
use crate::network;
use crate::pods::create::NewPod;
use crate::pods::gc::Told;
use crate::pods::ports::Claim;
use crate::pods::startable::Startable;
use crate::pods::{Pod, Pods, State};
use crate::sockets::Sockets;
use crate::stage1::{self, Foreign, Running};
use crate::store::{Held, Image, Store};
use crate::timeline::Wanted;

/// What `app/stop` exits with if the app is not running; it is systemctl's.
const NOT_RUNNING: i32 = 5;

/// What cannot be asked of such a stage1.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "--private-users is not possible with a stage1 of somebody's: the trees that it gets have the owners of their images; use \
        --stage1=nspawn"
    )]
    PrivateUsers,
    #[error("the stage1 could not {0} the app ({1})")]
    Failed(Action, std::process::ExitStatus),
}

/// What such a pod is made of.
struct Content {
    stage1: Image,
    interface: Interface,
    manifest: PodManifest,
    images: Vec<Image>,
    store: Store,
    /// The images stay in the store until the pod has them.
    _held: Option<Held>,
}

impl Content {
    /// Finds and imports the images, the stage1's first.
    fn gather(globals: &Globals, line: &PodLine, wanted: &Stage1Image) -> Result<Self, Box<dyn Error>> {
        if line.flags.private_users {
            return Err(Refused::PrivateUsers.into());
        }
        let store = Store::new(&globals.directory);
        let held = store.hold()?;
        let (stage1, interface) = stage1::find(globals, &store, wanted)?;
        // That the image says it is one thing, that the user does another.
        if let Some(signal) = line.apps.iter().find_map(|app| app.flags.kill_signal) {
            return Err(interface.own(format!("--kill-signal={signal}")).into());
        }
        // The first import makes the store.
        let held = store.keep_holding(held)?;
        let (manifest, images) = match &line.flags.pod_manifest {
            Some(path) => given_manifest(path, &store)?,
            None => generated_manifest(globals, line, None, &store)?,
        };
        ports::mappings(&manifest)?;
        interface.check_manifest(&manifest)?;
        images.iter().chain([&stage1]).try_for_each(Image::touch)?;
        Ok(Self { stage1, interface, manifest, images, store, _held: held })
    }

    fn make<'a>(&self, pods: &'a Pods, uuid: Uuid) -> Result<NewPod<'a>, Box<dyn Error>> {
        let pod = NewPod::create(pods, uuid)?;
        pod.fill_for_image(&self.manifest, &self.stage1, &self.store, &self.images)?;
        Ok(pod)
    }
}

/// Runs a pod; returns only if that fails.
pub fn run(
    globals: &Globals,
    flags: &RunFlags,
    line: &PodLine,
    uuid: Uuid,
    stage1: &Stage1Image,
    sockets: Sockets,
) -> Result<Infallible, Box<dyn Error>> {
    let content = Content::gather(globals, line, stage1)?;
    let pods = Pods::new(&globals.directory);
    let start = Start::check(globals, flags, &content.interface, &content.manifest, uuid)?;
    start.exec((&pods, uuid), content.make(&pods, uuid)?, &sockets, globals.into())
}

/// Makes a pod.
pub fn prepare(
    globals: &Globals,
    line: &PodLine,
    stage1: &Stage1Image,
    pods: &Pods,
    uuid: Uuid,
) -> Result<(), Box<dyn Error>> {
    let content = Content::gather(globals, line, stage1)?;
    Ok(content.make(pods, uuid)?.keep_prepared()?)
}

/// Runs a pod that has been prepared; returns only if that fails.
pub fn run_prepared(
    globals: &Globals,
    flags: &RunFlags,
    foreign: &Foreign,
    manifest: &PodManifest,
    (uuid, pod): (Uuid, impl Startable),
    sockets: Sockets,
) -> Result<Infallible, Box<dyn Error>> {
    let pods = Pods::new(&globals.directory);
    Start::check(globals, flags, foreign.interface(), manifest, uuid)?.exec(
        (&pods, uuid),
        pod,
        &sockets,
        globals.into(),
    )
}

/// How a pod is to be run.
struct Start {
    names: Names,
    hostname: String,
    /// Of the host.
    ports: Vec<PortMapping>,
    /// What the stage1 is told.
    words: Vec<String>,
}

impl Start {
    /// Computes what the stage1 is told, if it can be told all of it.
    fn check(
        globals: &Globals,
        flags: &RunFlags,
        interface: &Interface,
        manifest: &PodManifest,
        uuid: Uuid,
    ) -> Result<Self, Box<dyn Error>> {
        let names = flags.names.names()?;
        if flags.interactive && !io::stdin().is_terminal() {
            return Err(RefusedToRun::NoTerminal.into());
        }
        if flags.timeline != Wanted::No {
            return Err(interface.own("--timeline".into()).into());
        }
        if flags.mds_register {
            return Err(interface.own("--mds-register".into()).into());
        }
        if let Some(template) = flags.cpu_template {
            return Err(interface.own(format!("--cpu-template={template}")).into());
        }
        let net = flags.net.clone().unwrap_or(Net::None);
        let ports = ports::mappings(manifest)?;
        // Others may be the image's own networks, with its own plugins.
        if matches!(net, Net::None | Net::Host) {
            network::check(&net, &globals.local_config, Wishes { ports: &ports, ..Wishes::default() })?;
        }
        let hostname = flags.hostname.clone().unwrap_or_else(|| default_hostname(uuid));
        let words = interface.run_arguments(&RunArguments {
            debug: globals.debug,
            net,
            interactive: flags.interactive,
            private_users: None,
            local_config: Some(globals.local_config.clone()),
            hostname: hostname.clone(),
            names: names.from,
            insecure: globals.insecure.run,
            ipc: flags.ipc,
            mutable: manifest.is_mutable(),
            cgroup_parent: flags.cgroup_parent.clone(),
            cpu_template: CpuTemplate::Host,
            uuid,
        })?;
        Ok(Self { names, hostname, ports, words })
    }

    /// Puts the pod in its place, and becomes the stage1; returns only if that fails.
    fn exec(
        self,
        (pods, uuid): (&Pods, Uuid),
        mut pod: impl Startable,
        sockets: &Sockets,
        told: Told<'_>,
    ) -> Result<Infallible, Box<dyn Error>> {
        let _claim = Claim::make(pods, uuid, &self.ports, told)?;
        pod.note_names(&self.names, &self.hostname)?;
        pod.start()?;
        let path = pod.path();
        match Foreign::of_pod(&path)? {
            Some(foreign) => Ok(foreign.run(&self.words, pod.lock(), sockets)?),
            None => Err(stage1::Error::Foreign(path.display().to_string()).into()),
        }
    }
}

/// Starts or stops an app.
pub fn change(foreign: &Foreign, running: Running, pod: &Pod, change: &Change) -> Outcome {
    if !pod.manifest()?.is_mutable() {
        return Err(super::app::Refused::Immutable(pod.uuid).into());
    }
    if change.action == Action::Start {
        pod.note_start(&change.app)?;
    }
    let status = foreign.change(running, change)?;
    match status.success() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Refused::Failed(change.action, status).into()),
    }
}

/// Takes an app into a running pod. Whether it is started is another matter.
pub fn add(
    globals: &Globals,
    foreign: &Foreign,
    running: Running,
    pod: &Pod,
    arguments: &AppArguments,
) -> Outcome {
    let interface = foreign.interface();
    if let Some(signal) = arguments.flags.kill_signal {
        return Err(interface.own(format!("--kill-signal={signal}")).into());
    }
    let flags = PodFlags { volume: pod.manifest()?.volumes, ..PodFlags::default() };
    let line = PodLine { flags, mounts: Vec::new(), apps: Vec::new() };
    let store = Store::new(&globals.directory);
    let LateApp { image, app, .. } = &LateApp::find(globals, &line, None, &store, arguments)?;
    interface.check_manifest(&PodManifest::new(vec![app.clone()]))?;

    let lock = pod.lock_manifest()?;
    // One that is there already is not to be cleared away.
    pod.manifest()?.with(app.clone())?;
    let added = pod.take_in(&lock, app, image, &store).map_err(Box::<dyn Error>::from).and_then(|()| {
        let change = Change { app: app.name.clone(), action: Action::Add };
        let status = foreign.change(running, &change)?;
        if status.success() { Ok(()) } else { Err(Refused::Failed(Action::Add, status).into()) }
    });
    if added.is_err() {
        pod.leave_out(&lock, &app.name)?;
    }
    added.map(|()| ExitCode::SUCCESS)
}

/// Takes an app out of its pod, which may have ended.
pub fn remove(globals: &Globals, foreign: &Foreign, pod: Pod, app: &AcName) -> Outcome {
    if pod.state != State::Running {
        pod.leave_out(&pod.lock_manifest()?, app)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (pod, pid) = enter::wait_for_pid(&Pods::new(&globals.directory), pod)?;
    let lock = pod.lock_manifest()?;
    let running = Running { uuid: pod.uuid, pid, debug: globals.debug };
    let change = |action| foreign.change(running, &Change { app: app.clone(), action });
    let stopped = change(Action::Stop)?;
    if !stopped.success() && stopped.code() != Some(NOT_RUNNING) {
        return Err(Refused::Failed(Action::Stop, stopped).into());
    }
    let removed = change(Action::Remove)?;
    if !removed.success() {
        return Err(Refused::Failed(Action::Remove, removed).into());
    }
    pod.leave_out(&lock, app)?;
    Ok(ExitCode::SUCCESS)
}
