//! PID 1 of the guest: connects to the host, gets the plan, and becomes the pod's supervisor; or exports what a pod has left.
//!
//! Nothing is mounted before the plan's own operations: sockets need no file system, and each step before the first
//! connection is time that the pod's user waits.

mod connect;
mod error;
mod export;
mod mark;
mod sessions;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::reboot::{RebootMode, reboot};
use pod::control::{self, FromSupervisor, GuestMark, MAX_TO_SUPERVISOR_BYTES, ToSupervisor};
use pod::plan::Plan;
use stage2::{AppStreams, Connections};

use crate::error::{Error, chain};
use crate::sessions::HostSessions;

fn main() {
    mark::mark(GuestMark::Init);
    if let Err(error) = run() {
        // The console's last lines are in the error of a host that was not reached.
        eprintln!("guest-init: {}", chain(&error));
    }
    // The host ends the machine on `PodExited`. Getting here first, or without, a reset is the only way out.
    mark::mark(GuestMark::Leaving);
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    eprintln!("guest-init: cannot reset the machine: {errno}");
}

fn run() -> Result<(), Error> {
    let mut control = connect::control()?;
    send(&mut control, &FromSupervisor::Ready)?;
    match control::read_message(&mut control, MAX_TO_SUPERVISOR_BYTES).map_err(Error::Control)? {
        ToSupervisor::Start(plan) => supervise(control, &plan),
        ToSupervisor::Export(order) => {
            let result = export::export(&order);
            match &result {
                Ok(()) => stage2::succeed(control.into()),
                Err(error) => stage2::refuse(control.into(), error),
            };
            result
        }
        _ => Err(Error::NoOrder),
    }
}

fn supervise(control: File, plan: &Plan) -> Result<(), Error> {
    match prepare(plan) {
        Ok((streams, sessions)) => {
            mark::mark(GuestMark::Supervisor);
            let (control, sessions) = (OwnedFd::from(control), Box::new(sessions));
            let (cgroups, sockets, trees) = (Vec::new(), Vec::new(), Vec::new());
            let own_kernel = true;
            let connections = Connections { control, streams, cgroups, sockets, trees, sessions, own_kernel };
            stage2::run(plan, connections);
            Ok(())
        }
        Err(error) => {
            stage2::refuse(control.into(), &error);
            Err(error)
        }
    }
}

/// What the supervisor needs and cannot do itself; all of it before any app runs.
fn prepare(plan: &Plan) -> Result<(Vec<AppStreams>, HostSessions), Error> {
    net::loopback_up()?;
    net::configure(&plan.network)?;
    let sessions = HostSessions::listen()?;
    Ok((connect::streams(plan)?, sessions))
}

fn send(control: &mut File, message: &FromSupervisor) -> Result<(), Error> {
    control.write_all(&control::encode(message)?).map_err(Error::Control)
}
