//! `rkt run`, `rkt prepare` and `rkt run-prepared`: everything that can fail is tried before the pod's directory is made, and the
//! directory is gone again, or still prepared, if anything after that fails. Then this process becomes the stage1.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use net::Wishes;
use pod::abi::{CpuTemplate, Insecure, Ipc, PodDirectory, RunArguments, default_hostname};
use pod::net::Net;
use pod::pod_manifest::PodManifest;
use pod::ports::{self, PortMapping};
use pod::rates::{MachineRates, RateKind};
use pod::selinux::Context;
use pod::sockets::Passed;
use uuid::Uuid;

use super::content::{self, Content, NotWithFly, Running};
use super::{Outcome, foreign};
use crate::cli::{Globals, Names, PodChoice, PodFlags, PodLine, RunFlags, Stage1, Stage1Choice};
use crate::host::Kernel;
use crate::pods::Pods;
use crate::pods::create::NewPod;
use crate::pods::ports::Claim;
use crate::pods::startable::Startable;
use crate::registration::Registration;
use crate::sockets::Sockets;
use crate::stage1::{Foreign, Handed, Installed};
use crate::timeline::{self, Wanted};
use crate::users::{self, Reserved};
use crate::{config, cpu_template, network, stage1};

/// What is wrong with a command line that is right by itself.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("cannot run as unprivileged user: pods are root's")]
    Unprivileged,
    #[error("cannot write the pod's UUID to {}", .0.display())]
    UuidFile(PathBuf, #[source] io::Error),
    #[error(
        "--mds-register needs a network by which the pod reaches the metadata service: --net=default or another, not --net=none"
    )]
    NoMetadata,
    #[error("--interactive needs a terminal as standard input")]
    NoTerminal,
    #[error(
        "--net=host is not possible with --stage1=kvm: a VM's kernel has a network of its own; use another network, \
        or --stage1=nspawn"
    )]
    HostNetOfVm,
    #[error(
        "--ipc=parent is not possible with --stage1=kvm: a VM's kernel has objects of its own; use --stage1=nspawn"
    )]
    ParentIpcOfVm,
    #[error(
        "--ipc=parent is not possible with --private-users: the pod's root is nobody to the host's objects"
    )]
    ParentIpcOfUsers,
    #[error(
        "--timeline={} is not possible with --stage1=fly, which has become the app by then, with its root: --timeline prints it",
        .0.display()
    )]
    DrawnByFly(PathBuf),
    #[error(
        "how apps are confined is settled when the pod is run: give the insecure options capabilities, paths and seccomp \
        to rkt run-prepared (all-fetch is all that concerns rkt prepare)"
    )]
    InsecureWhenRun,
}

/// Runs a pod; returns only if that fails.
pub fn run(
    globals: &Globals,
    flags: &RunFlags,
    line: &PodLine,
    started: u64,
) -> Result<Infallible, Box<dyn Error>> {
    let sockets = Sockets::take()?;
    let uuid = begin(&line.flags)?;
    let stage1 = match stage1_of(globals, &line.flags)? {
        Stage1Choice::Ours(stage1) => stage1,
        Stage1Choice::Image(image) => return foreign::run(globals, flags, line, uuid, &image, sockets),
    };
    let Checked { names, cpu_template, chart } = check(globals, flags, stage1)?;
    let running = Running::new(flags.interactive, &flags.net(stage1));
    let content = Content::gather(globals, line, stage1, running)?;
    let images_done = timeline::now_us();
    let assigned = sockets.assign(&content.manifest, stage1)?;
    let pods = Pods::new(&globals.directory);
    let ports = ports_of(globals, flags, stage1, &content.manifest)?;

    check_ipc(flags, line.flags.private_users)?;
    let users = line.flags.private_users.then(|| users::reserve(&globals.local_config, uuid)).transpose()?;
    let pod = NewPod::create(&pods, uuid)?;
    let claim = Claim::make(&pods, uuid, &ports, globals.into())?;
    content.fill(&pod)?;
    let (mutable, label) = (content.manifest.is_mutable(), content.label);
    let marks = (started, images_done);
    Start { uuid, stage1, mutable, users, claim, names, cpu_template, sockets, assigned, label, marks, chart }
        .exec(globals, flags, pod)
}

/// Makes a pod, and prints its UUID.
pub fn prepare(globals: &Globals, line: &PodLine) -> Outcome {
    let uuid = begin(&line.flags)?;
    if globals.insecure.run != Insecure::default() {
        return Err(Refused::InsecureWhenRun.into());
    }
    let pods = Pods::new(&globals.directory);
    let stage1 = match stage1_of(globals, &line.flags)? {
        Stage1Choice::Ours(stage1) => stage1,
        Stage1Choice::Image(image) => {
            foreign::prepare(globals, line, &image, &pods, uuid)?;
            return tell_prepared(globals, uuid);
        }
    };
    let content = Content::gather(globals, line, stage1, Running::ANY)?;
    let pod = NewPod::create(&pods, uuid)?;
    content.fill(&pod)?;
    pod.keep_prepared()?;
    tell_prepared(globals, uuid)
}

fn tell_prepared(globals: &Globals, uuid: Uuid) -> Outcome {
    if !globals.quiet {
        eprintln!("prepare: rkt run-prepared {uuid} runs the pod");
    }
    writeln!(io::stdout(), "{uuid}")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a pod that has been prepared; returns only if that fails.
pub fn run_prepared(
    globals: &Globals,
    flags: &RunFlags,
    choice: &PodChoice,
    started: u64,
) -> Result<Infallible, Box<dyn Error>> {
    let sockets = Sockets::take()?;
    need_root()?;
    let pods = Pods::new(&globals.directory);
    let pod = pods.take_prepared(&pods.choose(choice)?)?;
    let directory = PodDirectory::new(pod.path());
    let manifest = pod.manifest()?;
    if let Some(foreign) = Foreign::of_pod(directory.path())? {
        return foreign::run_prepared(globals, flags, &foreign, &manifest, (pod.uuid(), pod), sockets);
    }
    let (stage1, installed) = Stage1::of_pod(&directory)?;
    let private_users = directory.private_users().exists();
    let Checked { names, cpu_template, chart } = check(globals, flags, stage1)?;
    check_stage1(stage1, &installed, private_users)?;
    let running = Running::new(flags.interactive, &flags.net(stage1));
    let label = content::check_again(&manifest, &directory, stage1, private_users, running)?;
    let images_done = timeline::now_us();
    let assigned = sockets.assign(&manifest, stage1)?;
    let ports = ports_of(globals, flags, stage1, &manifest)?;

    let uuid = pod.uuid();
    let claim = Claim::make(&pods, uuid, &ports, globals.into())?;
    check_ipc(flags, private_users)?;
    let users = private_users.then(|| users::reserve(&globals.local_config, uuid)).transpose()?;
    let (mutable, marks) = (manifest.is_mutable(), (started, images_done));
    Start { uuid, stage1, mutable, users, claim, names, cpu_template, sockets, assigned, label, marks, chart }
        .exec(globals, flags, pod)
}

/// A pod's UUID, which is in its file before anything else happens.
fn begin(flags: &PodFlags) -> Result<Uuid, Refused> {
    need_root()?;
    let uuid = Uuid::new_v4();
    if let Some(path) = &flags.uuid_file_save {
        fs::write(path, uuid.to_string()).map_err(|error| Refused::UuidFile(path.clone(), error))?;
    }
    Ok(uuid)
}

/// The isolation that the user wants, or the administrator, or nobody in particular.
fn stage1_of(globals: &Globals, flags: &PodFlags) -> Result<Stage1Choice, config::Error> {
    match flags.stage1.choice() {
        Some(choice) => Ok(choice.clone()),
        None => Ok(config::stage1(globals)?.unwrap_or(Stage1Choice::Ours(Stage1::Nspawn))),
    }
}

/// An error for everybody but root.
pub fn need_root() -> Result<(), Refused> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Refused::Unprivileged) }
}

/// How a pod is to be run, as far as that does not depend on what it is.
struct Checked {
    names: Names,
    cpu_template: CpuTemplate,
    /// The file that the timeline is drawn into.
    chart: Option<PathBuf>,
}

/// Checks what the flags say of that.
fn check(globals: &Globals, flags: &RunFlags, stage1: Stage1) -> Result<Checked, Box<dyn Error>> {
    let names = flags.names.names()?;
    if flags.interactive && !io::stdin().is_terminal() {
        return Err(Refused::NoTerminal.into());
    }
    let net = flags.net(stage1);
    match stage1 {
        Stage1::Kvm if net == Net::Host => return Err(Refused::HostNetOfVm.into()),
        Stage1::Kvm if flags.ipc == Ipc::Parent => return Err(Refused::ParentIpcOfVm.into()),
        Stage1::Fly => {
            check_fly(flags, &net)?;
            if let Wanted::Drawn(path) = &flags.timeline {
                return Err(Refused::DrawnByFly(path.clone()).into());
            }
        }
        Stage1::Kvm | Stage1::Nspawn => {}
    }
    if flags.mds_register && net == Net::None {
        return Err(Refused::NoMetadata.into());
    }
    network::check(&net, &globals.local_config, Wishes::default())?;
    if stage1 == Stage1::Kvm && net != Net::None {
        network::check_for_vm()?;
    }
    let cpu_template = cpu_template::choose(globals, flags.cpu_template, stage1)?;
    Ok(Checked { names, cpu_template, chart: flags.timeline.file()? })
}

/// A user namespace rules no IPC namespace but its own.
fn check_ipc(flags: &RunFlags, private_users: bool) -> Result<(), Refused> {
    if private_users && flags.ipc == Ipc::Parent { Err(Refused::ParentIpcOfUsers) } else { Ok(()) }
}

/// What a pod without isolation has of the host.
fn check_fly(flags: &RunFlags, net: &Net) -> Result<(), NotWithFly> {
    let refused = [
        ((*net != Net::Host).then(|| format!("--net={net}")), "network"),
        (
            flags.mds_register.then(|| "--mds-register".to_owned()),
            "processes, of which none is there to unregister it",
        ),
        (flags.hostname.as_ref().map(|name| format!("--hostname={name}")), "name"),
        ((flags.ipc == Ipc::Private).then(|| "--ipc=private".to_owned()), "shared memory"),
        (flags.cgroup_parent.as_ref().map(|path| format!("--cgroup-parent={path}")), "cgroups"),
    ];
    let first = refused.into_iter().find_map(|(flag, what)| Some((flag?, what)));
    first.map_or(Ok(()), |(flag, what)| Err(NotWithFly(flag, what)))
}

/// Whether this host can still do what a pod was prepared for.
fn check_stage1(stage1: Stage1, installed: &Installed, private_users: bool) -> Result<(), Box<dyn Error>> {
    stage1.preflight(installed, &Kernel::running())?;
    if private_users {
        users::check_kernel()?;
    }
    Ok(())
}

/// The ports of the host that a pod wants, whose networks can do what it wants of them.
fn ports_of(
    globals: &Globals,
    flags: &RunFlags,
    stage1: Stage1,
    manifest: &PodManifest,
) -> Result<Vec<PortMapping>, Box<dyn Error>> {
    let ports = ports::mappings(manifest)?;
    let bandwidth = match stage1 {
        // A VM's cards have limits of their own.
        Stage1::Nspawn => MachineRates::of(manifest)?.get(RateKind::NetworkBandwidth),
        Stage1::Kvm | Stage1::Fly => None,
    };
    let wishes = Wishes { ports: &ports, dns: None, bandwidth };
    network::check(&flags.net(stage1), &globals.local_config, wishes)?;
    Ok(ports)
}

/// What is left to say when the pod's directory is made.
struct Start {
    uuid: Uuid,
    stage1: Stage1,
    /// Whether its apps come and go.
    mutable: bool,
    users: Option<Reserved>,
    /// The ports of the host that it has for itself.
    claim: Option<Claim>,
    names: Names,
    cpu_template: CpuTemplate,
    sockets: Sockets,
    /// Which app gets which of them.
    assigned: Vec<Vec<Passed>>,
    /// The SELinux label of containers' files.
    label: Option<Context>,
    /// When rkt started, and when it had the images (`--timeline`).
    marks: (u64, u64),
    /// What that is drawn into.
    chart: Option<PathBuf>,
}

impl Start {
    /// Puts the pod in its place, and becomes the stage1; returns only if that fails.
    fn exec(
        self,
        globals: &Globals,
        flags: &RunFlags,
        mut pod: impl Startable,
    ) -> Result<Infallible, Box<dyn Error>> {
        // If anything fails, they are free before the pod is gone.
        let _claim = self.claim;
        let users = self.users.as_ref();
        users.map_or(Ok(()), |users| pod.note_users(users.range))?;
        let hostname = flags.hostname.clone().unwrap_or_else(|| default_hostname(self.uuid));
        pod.note_names(&self.names, &hostname)?;
        pod.start()?;
        let register = || Registration::make(&pod.path(), self.uuid);
        let _registration = flags.mds_register.then(register).transpose()?;
        let arguments = RunArguments {
            debug: globals.debug,
            net: flags.net(self.stage1),
            interactive: flags.interactive,
            private_users: users.map(|users| users.range),
            local_config: Some(globals.local_config.clone()),
            hostname,
            names: self.names.from,
            insecure: globals.insecure.run,
            ipc: flags.ipc,
            mutable: self.mutable,
            cgroup_parent: flags.cgroup_parent.clone(),
            cpu_template: self.cpu_template,
            uuid: self.uuid,
        };
        let (started, images_done) = self.marks;
        let timeline = (flags.timeline != Wanted::No).then(|| timeline::Handed {
            marks: timeline::marks(started, images_done, timeline::now_us()),
            file: self.chart,
        });
        let handed = Handed {
            lock: pod.lock(),
            users: users.map(Reserved::lock),
            sockets: &self.sockets,
            assigned: &self.assigned,
            files: self.label.as_ref(),
        };
        Ok(stage1::exec(&pod.path(), handed, &arguments, self.stage1, timeline)?)
    }
}
