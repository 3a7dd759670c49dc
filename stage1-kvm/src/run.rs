//! The `run` entrypoint.

use std::process::ExitCode;

use pod::abi::Ipc;
use pod::control::ExitStatus;
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::Plan;
use pod::rates::MachineRates;
use pod::session::SESSION_PORT;
use stage1::attend::{Connection, Control, Site, Streams, attend};
use stage1::clock::ClockWatch;
use stage1::entrance::Entrance;
use stage1::network::Network;
use stage1::pod::Pod;
use stage1::signals::{ENDED_BEFORE_ITS_START, Signals};
use stage1::terminal::RawTerminal;
use stage1::timeline::Timeline;
use stage1::{lock, status};
use vmm::probe;

use crate::error::Error;
use crate::handshake::{self, Doors, PATIENCE, Refusal};
use crate::running::Running;
use crate::site::GuestSite;
use crate::{machine, network_cards, quota, sessions, throttles, volumes};

/// What `flavor` says.
const FLAVOR: &str = "kvm";

/// Runs the pod in the working directory to its end.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    let mut timeline = Timeline::from_environment();
    timeline.mark("stage1");
    let _lock = lock::take()?;
    let mut pod = Pod::open(arguments)?;
    if pod.arguments.private_users.is_some() {
        return Err(Error::PrivateUsers);
    }
    if pod.arguments.net == Net::Host {
        return Err(Error::HostNetwork);
    }
    if pod.arguments.ipc == Ipc::Parent {
        return Err(Error::ParentIpc);
    }
    let signals = Signals::block()?;
    status::write_parent(&pod.directory)?;
    let limits = PodLimits::of(&pod.manifest).map_err(Error::Limits)?;
    limits.check_for_vm().map_err(Error::Limits)?;
    let rates = MachineRates::of(&pod.manifest).map_err(Error::Limits)?;
    // Whether it runs a guest shows soon: rkt has tried that before it made the pod, and `Running::explain` does if the
    // guest does not get far.
    let kvm = probe::open_checked().map_err(Error::Kvm)?;
    let network = match Network::set_up(&mut pod, &signals) {
        Err(error) if error.is_interruption() => return Ok(ExitCode::from(ENDED_BEFORE_ITS_START.code())),
        network => network?,
    };
    let throttles = throttles::of_cards(&rates);
    let attach = |network| network_cards::attach(network, &throttles);
    let cards = network.as_ref().map(attach).transpose()?.unwrap_or_default();
    if network.is_some() {
        timeline.mark("network");
    }
    let volumes = volumes::open(&pod)?;
    let kinds = volumes.kinds.clone();
    let isolation = machine::isolation(cards.guest, kinds.clone());
    let plan = pod.plan(isolation, machine::layers(&pod))?;
    let terminal = pod.arguments.interactive.then(RawTerminal::take).transpose()?;

    let (doors, ends) = handshake::doors(&plan)
        .map_err(|source| Error::System { action: "make the guest's connections", source })?;
    let to_guest = vec![(sessions::listen(&pod.directory)?, SESSION_PORT)];
    let quota = quota::enter(&pod, &limits)?;
    let (servers, file_systems) = volumes.serve()?;
    let config = machine::config(&pod, &limits, &rates, kvm, cards.host, file_systems, to_guest)?;
    let running = Running::start(config, ends, pod.arguments.debug)?;
    status::write_flavor(&pod.directory, FLAVOR)?;
    status::write_vmm_pid(&pod.directory, running.pid())?;
    let site = plan.mutable.then(|| Box::new(GuestSite::new(&pod, kinds)) as Box<dyn Site>);
    let caller = Caller { signals: &signals, terminal: terminal.as_ref() };
    let result = accompany(&pod, &plan, site, doors, &running, caller, &mut timeline);
    drop(terminal);
    let status = match result {
        Ok(status) => status,
        Err(error) => return Err(running.explain(error)),
    };
    // At once: the guest has synced what it has written. It has to be gone before its cgroup and its network are.
    running.finish(&mut timeline)?;
    drop(servers);
    drop(quota);
    drop(network);
    timeline.print();
    Ok(ExitCode::from(status.code()))
}

/// What comes from whoever runs the pod.
#[derive(Clone, Copy)]
struct Caller<'a> {
    signals: &'a Signals,
    terminal: Option<&'a RawTerminal>,
}

/// Lets the guest in and attends to it until its pod has exited.
fn accompany<'a>(
    pod: &'a Pod,
    plan: &'a Plan,
    site: Option<Box<dyn Site + 'a>>,
    doors: Doors,
    running: &Running,
    caller: Caller<'_>,
    timeline: &mut Timeline,
) -> Result<ExitStatus, Error> {
    let Caller { signals, terminal } = caller;
    // By the time that somebody knows whom to enter, he can.
    let entrance = Entrance::open(&pod.directory)?;
    status::write_pid(&pod.directory, std::process::id())?;
    let guest = match doors.welcome(plan, &|| signals.interrupted()) {
        Ok(guest) => guest,
        Err(Refusal::Interrupted) => return Ok(ENDED_BEFORE_ITS_START),
        Err(refusal) => return Err(refused(refusal)),
    };
    running.booted();
    let connection = Connection {
        control: Control::Connected(guest.control),
        streams: Streams::Connected(guest.streams),
        ended: running.ended()?,
        kill: &mut || running.kill(),
        entrance,
        door: Box::new(|session, streams| sessions::open(&pod.directory, session, streams)),
        site,
        // The supervisor counts them, in the guest.
        oom_kills: &|_| None,
        clock: Some(ClockWatch::new()?),
    };
    Ok(attend(pod, plan, connection, signals, terminal, timeline)?)
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Protocol(what) => Error::Protocol(what),
        Refusal::Silent(what) => Error::Silent { what, seconds: PATIENCE.as_secs(), console: String::new() },
        Refusal::Gone | Refusal::Interrupted => stage1::Error::SupervisorGone.into(),
    }
}
