//! The `run` entrypoint.

use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use pod::abi::PodDirectory;
use pod::limits::PodLimits;
use pod::net::Net;
use pod::plan::{ImageSource, Isolation, Layers, Plan, PrivateUsers};
use pod::seccomp::KERNEL_TAKES_FILTERS;
use pod::types::AcName;
use stage1::attend::{Connection, Control, Streams as CarriedStreams, attend};
use stage1::cgroup::{AppCgroup, CONTROLLERS, Cgroups};
use stage1::entrance::Entrance;
use stage1::network::Network;
use stage1::pod::Pod;
use stage1::signals::{ENDED_BEFORE_ITS_START, Signals};
use stage1::terminal::RawTerminal;
use stage1::timeline::Timeline;
use stage1::{lock, scope, status};
use stage2::{AppCgroups, Connections};

use crate::error::Error;
use crate::streams::Streams;
use crate::supervisor::{NetworkNamespace, Supervisor};
use crate::users::Namespaces;
use crate::{sessions, volumes};

/// The isolation's name.
const FLAVOR: &str = "nspawn";

/// Runs the pod in the working directory to its end.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    let _lock = lock::take()?;
    let users_lock = lock::take_users()?;
    let mut timeline = Timeline::from_environment();
    timeline.mark("stage1");
    let mut pod = Pod::open(arguments)?;
    let signals = Signals::block()?;
    status::write_parent(&pod.directory)?;
    if pod.arguments.private_users.is_some() && users_lock.is_none() {
        return Err(Error::NoUsersLock);
    }
    let users = match pod.arguments.private_users {
        Some(range) => Some((range, Namespaces::make(range)?)),
        None => None,
    };
    if let Some((_, namespaces)) = &users {
        pod.network_namespace = Some(namespaces.new_network()?);
    }
    let network = match Network::set_up(&mut pod, &signals) {
        Err(error) if error.is_interruption() => return Ok(ExitCode::from(ENDED_BEFORE_ITS_START.code())),
        network => network?,
    };
    if network.is_some() {
        timeline.mark("network");
    }
    let layers = pod.manifest.apps.iter().map(|app| layers(&pod.directory, &app.name));
    let layers = layers.collect::<Result<_, _>>()?;
    let pod_root = pod.directory.stage1_rootfs();
    let (trees, volumes) = volumes::open(&pod, users.as_ref())?;
    let private = users
        .as_ref()
        .map(|(range, _)| PrivateUsers { range: *range, host_network: pod.arguments.net == Net::Host });
    let plan = pod.plan(Isolation::Namespaces { pod_root, volumes, users: private }, layers)?;
    check_filters(&plan)?;

    let terminal = pod.arguments.interactive.then(RawTerminal::take).transpose()?;
    let mut cgroups = make_cgroups(&pod, &plan)?;
    status::write_flavor(&pod.directory, FLAVOR)?;
    let Streams { inside, outside, handed_over } = Streams::make(&plan)?;
    let entrance = Entrance::open(&pod.directory)?;
    let (door, sessions) = sessions::pair()?;
    let (control, control_inside) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(Error::system("make the control channel"))?;
    let connections = Connections {
        control: control_inside,
        streams: inside,
        cgroups: take_cgroups(&mut cgroups),
        trees,
        sessions: Box::new(sessions),
        own_kernel: false,
    };
    timeline.mark("clone");
    let (supervisor, (control, outside, entrance, door)) = Supervisor::start(
        &plan,
        users.map(|(_, namespaces)| namespaces),
        namespace(&pod, network.as_ref())?,
        connections,
        (control, outside, entrance, door),
    )?;
    Streams::release(&handed_over)?;
    let pid = supervisor.pid();
    status::write_pid(&pod.directory, pid.as_raw().cast_unsigned())?;

    let connection = Connection {
        control: Control::Connected(control),
        streams: CarriedStreams::Connected(outside),
        ended: supervisor.ended()?,
        kill: &mut || {
            let _ = kill(pid, Signal::SIGKILL);
        },
        entrance,
        door: Box::new(move |session, streams| door.open(session, streams)),
        oom_kills: &|app| cgroups.oom_kills(app),
    };
    let status = attend(&pod, &plan, connection, &signals, terminal.as_ref(), &mut timeline)?;
    drop(supervisor);
    drop(cgroups);
    drop(network);
    timeline.mark("stage1 exits");
    timeline.print();
    Ok(ExitCode::from(status.code()))
}

/// Whether the kernel takes the apps' filters, asked before any of their processes is made.
fn check_filters(plan: &Plan) -> Result<(), Error> {
    let needed = plan.apps.iter().any(|app| app.process.filter.is_some());
    if needed && !Path::new(KERNEL_TAKES_FILTERS).exists() { Err(Error::NoFilters) } else { Ok(()) }
}

fn make_cgroups(pod: &Pod, plan: &Plan) -> Result<Cgroups, Error> {
    let limits = PodLimits::of(&pod.manifest).map_err(Error::Limits)?;
    let apps = limits.apps.iter().zip(&plan.apps);
    let apps: Vec<_> =
        apps.map(|(limits, app)| AppCgroup { limits, devices: app.devices.as_ref() }).collect();
    let parent = pod.arguments.cgroup_parent.as_ref();
    scope::enter(pod.arguments.uuid, parent)?;
    Ok(Cgroups::make(&pod.directory, pod.arguments.uuid, &apps, CONTROLLERS, parent)?)
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

/// An app's image, as a file or as a tree, and the directory of what it writes.
fn layers(directory: &PodDirectory, app: &AcName) -> Result<Layers, Error> {
    let (file, tree) = (directory.app_image(app), directory.app_tree(app));
    let image = if file.exists() {
        ImageSource::File(file)
    } else if tree.exists() {
        ImageSource::Tree(tree)
    } else {
        return Err(Error::NoImage { app: app.to_string(), image: file, tree });
    };
    Ok(Layers { image, writable: directory.overlay(app) })
}
