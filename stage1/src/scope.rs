//! The pod's scope unit where systemd is the host's init: a place of the pod's own that systemd knows of and leaves to rkt
//! (systemd: "Control Group APIs and Delegation").
//!
//! A pod stays in a unit that is delegated. Elsewhere systemd gives units no controllers that they do not need themselves, and
//! takes back what it does not know of: there, and in a login's session, the pod gets a transient scope.

mod bus;
mod message;
mod standing;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::pod::abi::CgroupPath;
use uuid::Uuid;

use self::bus::Bus;
use self::message::{Call, Kind, Value};
use self::standing::Standing;
use crate::Error;
use crate::error::report;

/// There if systemd is the init (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Where the system bus listens (D-Bus specification, "System message bus").
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long one answer may take: systemd may be loading its units again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where virtual machines and containers are (systemd.special(7)).
const SLICE: &str = "machine.slice";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// In a list of processes: the one that calls, by whatever number systemd sees it.
const CALLER: u32 = 0;

/// Moves this process into a scope of the pod's, where the pod needs one. Call it before any child is started, and before
/// cgroups are looked for. Without a bus the pod is where this process is, and a warning says so.
pub fn enter(uuid: Uuid, cgroup_parent: Option<&CgroupPath>) -> Result<(), Error> {
    if cgroup_parent.is_some() || !Path::new(BOOTED).is_dir() {
        return Ok(());
    }
    let standing = Standing::of_this_process()?;
    if matches!(standing, Standing::Delegated | Standing::Unknown) {
        return Ok(());
    }
    match (start(uuid), standing) {
        (Err(source), _) => report(&Error::NoScope { bus: PathBuf::from(SYSTEM_BUS), source }),
        (Ok(()), Standing::Alone { unit }) => report(&Error::NotDelegated { unit }),
        (Ok(()), _) => {}
    }
    Ok(())
}

/// Has systemd start the scope around this process, and waits until it has.
fn start(uuid: Uuid) -> io::Result<()> {
    let unit = format!("rkt-{uuid}.scope");
    let mut bus = Bus::connect(Path::new(SYSTEM_BUS), PATIENCE)?;
    let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
    let watch = bus.call(&Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "AddMatch",
        arguments: &[Value::Text(&rule)],
    })?;
    bus.await_answer(watch)?;
    let description = format!("rkt pod {uuid}");
    let start = bus.call(&Call {
        destination: SYSTEMD,
        path: "/org/freedesktop/systemd1",
        interface: MANAGER,
        member: "StartTransientUnit",
        arguments: &[
            Value::Text(&unit),
            // If there is such a unit already.
            Value::Text("fail"),
            Value::Properties(&properties(&description)),
            Value::NoUnits,
        ],
    })?;
    await_job(&mut bus, start, &unit)
}

fn properties(description: &str) -> [(&'static str, Value<'_>); 6] {
    [
        ("Description", Value::Text(description)),
        ("Slice", Value::Text(SLICE)),
        ("Delegate", Value::Bool(true)),
        ("PIDs", Value::Numbers(&[CALLER])),
        // The pod has limits of its own; systemd's default is a part of the host's numbers.
        ("TasksMax", Value::U64(u64::MAX)),
        // Its name is never used again: nobody would reset a failed one.
        ("CollectMode", Value::Text("inactive-or-failed")),
    ]
}

/// The job may have ended before its number is told.
fn await_job(bus: &mut Bus, start: u32, unit: &str) -> io::Result<()> {
    let (mut started, mut result) = (false, None);
    loop {
        let message = bus.next()?;
        match message.kind {
            Kind::Return { to } if to == start => started = true,
            Kind::Error { to, .. } if to == start => return Err(message.into_error()),
            Kind::Signal => result = result.or(message.job_result(unit)),
            _ => {}
        }
        match &result {
            Some(done) if started && done == "done" => return Ok(()),
            Some(other) if started => {
                return Err(io::Error::other(format!("the job of {unit} has ended as \"{other}\"")));
            }
            _ => {}
        }
    }
}
