//! The process that becomes the pod's PID 1.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};
use pod::abi::Ipc;
use pod::plan::Plan;
use stage2::Connections;

use crate::error::Error;
use crate::users::Namespaces;

/// The pod's network namespace.
#[derive(Debug)]
pub enum NetworkNamespace {
    /// A new one, with nothing but loopback.
    New,
    /// The host's.
    Host,
    /// One that is there already.
    Made(File),
}

/// The supervisor and with it the pod; both end with this value at the latest.
#[derive(Debug)]
pub struct Supervisor {
    pid: Pid,
}

impl Supervisor {
    /// Clones the supervisor into namespaces of its own. `outside` is dropped in the clone: ends that only the parent may
    /// have, for else nobody would learn of their being closed.
    pub fn start<T>(
        plan: &Plan,
        users: Option<Namespaces>,
        network: NetworkNamespace,
        ipc: Ipc,
        connections: Connections,
        outside: T,
    ) -> Result<(Self, T), Error> {
        let mut namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
        if ipc != Ipc::Parent {
            namespaces |= CloneFlags::CLONE_NEWIPC;
        }
        if let Some(users) = users {
            let supervise = || supervise_prepared(plan, connections);
            let network = users.network(network)?;
            let (pid, outside) = users.clone_into(&plan.outside, network, namespaces, outside, supervise)?;
            return Ok((Self { pid }, outside));
        }
        if matches!(network, NetworkNamespace::New) {
            namespaces |= CloneFlags::CLONE_NEWNET;
        }
        match stage2::sys::fork(namespaces).map_err(Error::system("make namespaces"))? {
            Some(pid) => Ok((Self { pid }, outside)),
            None => {
                drop(outside);
                supervise(plan, network, connections);
                // SAFETY: it takes a number and does not return; nothing of the parent's is run in the clone.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Its number outside.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its network namespace, unless it has ended. While somebody has that, the kernel does not take it apart, which is some hundred
    /// microseconds' work: so who keeps it as long as he lives has that done after his end, and not beside it.
    pub fn network(&self) -> Option<File> {
        File::open(format!("/proc/{}/ns/net", self.pid)).ok()
    }

    /// A descriptor that is readable when it has ended.
    pub fn ended(&self) -> Result<OwnedFd, Error> {
        stage2::sys::pidfd_open(self.pid).map_err(Error::system("watch the supervisor"))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

fn supervise(plan: &Plan, network: NetworkNamespace, connections: Connections) {
    // A parent that has gone before this took effect is seen by the control channel's end.
    let prepared = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        // Until an app's program is executed its process is this program, a file of the host: with /proc/<pid>/exe another
        // app of the pod could write to it (CVE-2019-5736).
        .and_then(|()| nix::sys::prctl::set_dumpable(false))
        .and_then(|()| let_go_of_standard_streams())
        .map_err(Error::system("prepare the supervisor"));
    if let Err(error) = prepared {
        stage2::refuse(connections.control, &error);
        return;
    }
    if let Err(error) = enter(network) {
        stage2::refuse(connections.control, &*error);
        return;
    }
    stage2::run(plan, connections);
}

/// The supervisor of a pod with a user namespace, which is in its namespaces and has let go of its parent's streams.
fn supervise_prepared(plan: &Plan, connections: Connections) {
    let prepared = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| nix::sys::prctl::set_dumpable(false))
        .map_err(Error::system("prepare the supervisor"));
    match prepared {
        Ok(()) => drop(stage2::run(plan, connections)),
        Err(error) => drop(stage2::refuse(connections.control, &error)),
    }
}

fn enter(network: NetworkNamespace) -> Result<(), Box<dyn std::error::Error>> {
    match network {
        NetworkNamespace::New => net::loopback_up()?,
        NetworkNamespace::Host => {}
        NetworkNamespace::Made(namespace) => setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(Error::system("enter the pod's network namespace"))?,
    }
    Ok(())
}

/// What the supervisor has to say goes over the control channel; the caller's streams are the apps'.
pub fn let_go_of_standard_streams() -> nix::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null))
}
