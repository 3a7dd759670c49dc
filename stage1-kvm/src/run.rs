//! The `run` entrypoint.

use std::process::ExitCode;

use pod::abi::Ipc;
use pod::control::{ExitStatus, ToSupervisor};
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::Plan;
use pod::rates::MachineRates;
use pod::session::SESSION_PORT;
use stage1::attend::{Alarm, Connection, Control, Site, Streams, attend};
use stage1::clock::ClockWatch;
use stage1::entrance::Entrance;
use stage1::metadata::Registered;
use stage1::network::Network;
use stage1::pod::Pod;
use stage1::signals::{ENDED_BEFORE_ITS_START, Signals};
use stage1::terminal::RawTerminal;
use stage1::timeline::Timeline;
use stage1::{lock, status};
use vmm::{Kvm, MachineConfig, Shape, Start, probe};

use crate::error::Error;
use crate::handshake::{self, Doors};
use crate::image_writes::ImageWrites;
use crate::images::Images;
use crate::running::Running;
use crate::site::GuestSite;
use crate::waiting::Refusal;
use crate::{machine, network_cards, quota, sessions, templates, throttles, volumes};

/// What `flavor` says.
const FLAVOR: &str = "kvm";

/// Runs the pod in the working directory to its end.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    let mut timeline = Timeline::from_environment();
    timeline.mark("stage1");
    let _lock = lock::take()?;
    let mut pod = Pod::open(arguments)?;
    let _registered = Registered::of(&pod);
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
    let network = match Network::set_up(&mut pod, None, &signals) {
        Err(error) if error.is_interruption() => return Ok(ExitCode::from(ENDED_BEFORE_ITS_START.code())),
        network => network?,
    };
    let throttles = throttles::of_cards(&rates);
    let attach = |network| network_cards::attach(network, throttles.as_ref());
    let cards = network.as_ref().map(attach).transpose()?.unwrap_or_default();
    if network.is_some() {
        timeline.mark("network");
    }
    if pod.arguments.debug {
        cards.tell();
    }
    let volumes = volumes::open(&pod)?;
    let kinds = volumes.kinds.clone();
    let isolation = machine::isolation(cards.guest, kinds.clone());
    let images = Images::open(&pod, &limits)?;
    let plan = pod.plan(isolation, images.layers(&pod))?;
    let terminal = pod.arguments.interactive.then(RawTerminal::take).transpose()?;

    let (doors, ends) = handshake::doors(handshake::streams_of(&plan))
        .map_err(|source| Error::System { action: "make the guest's connections", source })?;
    let to_guest = vec![(sessions::listen(&pod.directory)?, SESSION_PORT)];
    let shape = machine::shape(&kvm, &pod, &limits, images.mapped_bytes)?;
    // A template belongs to no pod: it is made outside of this one's cgroup.
    let Some(start) = start(&pod, &kvm, &shape, &signals)? else {
        return Ok(ExitCode::from(ENDED_BEFORE_ITS_START.code()));
    };
    let quota = quota::enter(&pod, &limits, images.mapped_bytes, volumes.servers())?;
    let (servers, file_systems) = volumes.serve()?;
    let mut config = machine::config(
        &pod,
        MachineConfig::new(kvm, shape, start),
        images,
        throttles::of_disk(&rates),
        cards.host,
        file_systems,
        to_guest,
    )?;
    let image_writes = ImageWrites::new()?;
    config.pmem_writes = Some(image_writes.counter()?);
    #[cfg(feature = "gdb")]
    let (config, _socket) = crate::gdb::debug(config)?;
    let running = Running::start(config, ends, pod.arguments.debug)?;
    status::write_flavor(&pod.directory, FLAVOR)?;
    status::write_vmm_pid(&pod.directory, running.pid())?;
    let site = plan.mutable.then(|| Box::new(GuestSite::new(&pod, kinds)) as Box<dyn Site>);
    let caller = Caller { signals: &signals, terminal: terminal.as_ref() };
    let machine = Machine { running: &running, doors, alarm: image_writes.alarm()? };
    let result = accompany(&pod, &plan, site, machine, caller, &mut timeline);
    drop(terminal);
    image_writes.tell();
    let status = match result {
        Ok(status) => status,
        Err(error) => return Err(running.explain(error)),
    };
    // At once: the guest has synced what it has written. It has to be gone before its cgroup and its network are.
    running.finish(&mut timeline)?;
    drop(servers);
    drop(quota);
    drop(network);
    timeline.show();
    Ok(ExitCode::from(status.code()))
}

/// What the machine starts from, unless the pod is to end before that is known. What a kernel says as it boots, and what it does, is
/// seen only in one that does boot.
fn start(pod: &Pod, kvm: &Kvm, shape: &Shape, signals: &Signals) -> Result<Option<Start>, Error> {
    let kernel = machine::kernel()?;
    if pod.arguments.debug || cfg!(feature = "gdb") {
        return Ok(Some(Start::Kernel(kernel)));
    }
    Ok(templates::start(kvm, shape, kernel, &|| signals.interrupted()))
}

/// The machine as its parent has to do with it.
struct Machine<'a> {
    running: &'a Running,
    doors: Doors,
    alarm: Alarm,
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
    machine: Machine<'_>,
    caller: Caller<'_>,
    timeline: &mut Timeline,
) -> Result<ExitStatus, Error> {
    let Machine { running, doors, alarm } = machine;
    let Caller { signals, terminal } = caller;
    // By the time that somebody knows whom to enter, he can.
    let entrance = Entrance::open(&pod.directory)?;
    status::write_pid(&pod.directory, std::process::id())?;
    let guest = match doors.welcome(&ToSupervisor::Start(Box::new(plan.clone())), &|| signals.interrupted()) {
        Ok(guest) => guest,
        Err(Refusal::Interrupted) => return Ok(ENDED_BEFORE_ITS_START),
        Err(refusal) => return Err(refusal.into()),
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
        alarm: Some(alarm),
        // The supervisor counts them, in the guest.
        oom_kills: &|_| None,
        clock: Some(ClockWatch::new()?),
    };
    Ok(attend(pod, plan, connection, signals, terminal, timeline)?)
}
