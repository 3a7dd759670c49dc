//! The `run` entrypoint.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use pod::abi::{CpuTemplate, Ipc};
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::{Isolation, Plan, PrivateUsers};
use pod::rates::{MachineRates, RateKind};
use stage1::attend::{Connection, Control, Site, Streams as CarriedStreams, attend};
use stage1::cgroup::{AppCgroup, CONTROLLERS, Cgroups};
use stage1::entrance::Entrance;
use stage1::metadata::Registered;
use stage1::network::Network;
use stage1::pod::{Pod, check_filters};
use stage1::signals::{ENDED_BEFORE_ITS_START, Signals};
use stage1::terminal::RawTerminal;
use stage1::timeline::Timeline;
use stage1::volumes::{self, Users};
use stage1::{lock, scope, sockets, status};
use stage2::{AppCgroups, AppSockets, Connections};

use crate::error::Error;
use crate::sessions;
use crate::site::HostSite;
use crate::streams::Streams;
use crate::supervisor::{NetworkNamespace, Supervisor};
use crate::users::Namespaces;

/// The isolation's name.
const FLAVOR: &str = "nspawn";

/// Runs the pod in the working directory to its end.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    let _lock = lock::take()?;
    let users_lock = lock::take_users()?;
    let sockets = sockets::take()?;
    let mut timeline = Timeline::from_environment();
    timeline.mark("stage1");
    let mut pod = Pod::open(arguments)?;
    let _registered = Registered::of(&pod);
    if pod.arguments.cpu_template != CpuTemplate::Host {
        return Err(Error::CpuTemplate(pod.arguments.cpu_template));
    }
    let signals = Signals::block()?;
    status::write_parent(&pod.directory)?;
    if pod.arguments.private_users.is_some() && users_lock.is_none() {
        return Err(Error::NoUsersLock);
    }
    if pod.arguments.private_users.is_some() && pod.arguments.ipc == Ipc::Parent {
        return Err(Error::IpcOfUsers);
    }
    let users = match pod.arguments.private_users {
        Some(range) => Some((range, Namespaces::make(range)?)),
        None => None,
    };
    if let Some((_, namespaces)) = &users {
        pod.network_namespace = Some(namespaces.new_network()?);
    }
    let rates = MachineRates::of(&pod.manifest).map_err(Error::Limits)?;
    let bandwidth = rates.get(RateKind::NetworkBandwidth);
    let network = match Network::set_up(&mut pod, bandwidth, &signals) {
        Err(error) if error.is_interruption() => return Ok(ExitCode::from(ENDED_BEFORE_ITS_START.code())),
        network => network?,
    };
    if network.is_some() {
        timeline.mark("network");
    }
    let layers = pod.layers()?;
    let pod_root = pod.directory.stage1_rootfs();
    let users_of_volumes =
        users.as_ref().map(|(range, namespaces)| Users { range: *range, namespace: namespaces.users() });
    let (trees, volumes) = volumes::open(&pod, users_of_volumes)?;
    let private = users
        .as_ref()
        .map(|(range, _)| PrivateUsers { range: *range, host_network: pod.arguments.net == Net::Host });
    let kinds = if pod.manifest.is_mutable() { volumes.clone() } else { Vec::new() };
    let plan = pod.plan(Isolation::Namespaces { pod_root, volumes, users: private }, layers)?;
    check_filters(&plan.apps)?;

    let terminal = pod.arguments.interactive.then(RawTerminal::take).transpose()?;
    let mut cgroups = make_cgroups(&pod, &plan)?;
    status::write_flavor(&pod.directory, FLAVOR)?;
    let Streams { inside, outside, handed_over } = Streams::make(&plan)?;
    let entrance = Entrance::open(&pod.directory)?;
    let (door, sessions) = sessions::pair()?;
    let kept = users.as_ref().filter(|_| plan.mutable);
    let kept =
        kept.map(|(range, namespaces)| namespaces.keep_users().map(|users| (*range, users))).transpose()?;
    let (control, control_inside) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(Error::system("make the control channel"))?;
    let connections = Connections {
        control: control_inside,
        streams: inside,
        cgroups: take_cgroups(&mut cgroups),
        sockets: sockets.into_iter().map(|sockets| AppSockets { sockets }).collect(),
        trees,
        sessions: Box::new(sessions),
        own_kernel: false,
    };
    timeline.mark("clone");
    let (supervisor, (control, outside, entrance, door)) = Supervisor::start(
        &plan,
        users.map(|(_, namespaces)| namespaces),
        namespace(&pod, network.as_ref())?,
        pod.arguments.ipc,
        connections,
        (control, outside, entrance, door),
    )?;
    Streams::release(&handed_over)?;
    let pid = supervisor.pid();
    // Left open to the end of this process.
    std::mem::forget(supervisor.network());
    status::write_pid(&pod.directory, pid.as_raw().cast_unsigned())?;

    let (door, cgroups) = (Rc::new(door), RefCell::new(cgroups));
    let site = match plan.mutable {
        true => Some(Box::new(HostSite::new(&pod, kept, &cgroups, &door, &kinds)?) as Box<dyn Site>),
        false => None,
    };
    let connection = Connection {
        control: Control::Connected(control),
        streams: CarriedStreams::Connected(outside),
        ended: supervisor.ended()?,
        kill: &mut || {
            let _ = kill(pid, Signal::SIGKILL);
        },
        entrance,
        door: Box::new(move |session, streams| door.open(session, streams)),
        site,
        alarm: None,
        oom_kills: &|app| cgroups.borrow().oom_kills(app),
        // It is the host's.
        clock: None,
    };
    let status = attend(&pod, &plan, connection, &signals, terminal.as_ref(), &mut timeline)?;
    drop(supervisor);
    drop(cgroups);
    drop(network);
    timeline.mark("stage1 exits");
    timeline.show();
    Ok(ExitCode::from(status.code()))
}

fn make_cgroups(pod: &Pod, plan: &Plan) -> Result<Cgroups, Error> {
    let limits = PodLimits::of(&pod.manifest).map_err(Error::Limits)?;
    let apps = limits.apps.iter().zip(&plan.apps);
    let apps: Vec<_> =
        apps.map(|(limits, app)| AppCgroup { limits, devices: app.devices.as_ref() }).collect();
    let parent = pod.arguments.cgroup_parent.as_ref();
    scope::enter(pod.arguments.uuid, parent)?;
    Ok(Cgroups::make(&pod.directory, pod.arguments.uuid, &apps, limits.pod.as_ref(), CONTROLLERS, parent)?)
}

fn take_cgroups(cgroups: &mut Cgroups) -> Vec<AppCgroups> {
    let apps = cgroups.procs.drain(..).zip(cgroups.directories_of_apps.drain(..));
    apps.map(|(procs, directory)| AppCgroups { procs, directory, counts_here: false }).collect()
}

/// Where the pod's processes are to be.
fn namespace(pod: &Pod, network: Option<&Network>) -> Result<NetworkNamespace, Error> {
    match network.map(Network::namespace).transpose()? {
        Some(namespace) => Ok(NetworkNamespace::Made(namespace)),
        None if pod.arguments.net == Net::Host => Ok(NetworkNamespace::Host),
        None => Ok(NetworkNamespace::New),
    }
}
