//! The supervisor: starts, watches and ends the apps of a pod, carries their streams and tells its parent. It is PID 1
//! of the pod in both isolations.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use pod::control::ExitStatus;
use pod::plan::{NewApp, Operation, Plan};
use pod::session::SessionId;

pub mod alone;
mod app;
mod apparmor;
mod attribute;
mod cgroup;
mod changes;
mod channel;
mod confine;
mod control;
mod error;
mod forwards;
mod interpreter;
mod landlock;
mod life;
mod newcomer;
mod notifications;
mod operations;
mod program;
mod scope;
mod selinux;
mod sessions;
mod sockets;
mod start;
mod streams;
mod supervisor;
pub mod sys;
mod users;

pub use control::receive_plan;
use error::errno;

pub use error::{Error, causes};
pub use sockets::AppSockets;

/// Where the standard streams of an app go.
#[derive(Debug)]
pub enum AppStreams {
    /// The app gets these as they are (namespaces); what is missing is /dev/null.
    Direct {
        /// Its standard input.
        stdin: Option<OwnedFd>,
        /// Its standard output.
        stdout: Option<OwnedFd>,
        /// Its standard error.
        stderr: Option<OwnedFd>,
    },
    /// Connected sockets: the app gets pipes, and the supervisor carries between the two (VM). An app without an input
    /// reads /dev/null; without an output it writes there.
    Carried {
        /// Its standard input; ends where the socket's other side is shut down for writing.
        stdin: Option<OwnedFd>,
        /// Its standard output.
        stdout: Option<OwnedFd>,
        /// Its standard error.
        stderr: Option<OwnedFd>,
    },
    /// The app gets a terminal of the pod, from /pts/ptmx.
    Terminal {
        /// A connected socket, to which the terminal is carried in both directions.
        carrier: OwnedFd,
    },
}

/// How the streams of a session come in, for which the parent has asked by [`pod::control::ToSupervisor::Enter`] and made
/// the connections. None are let in that it did not announce.
pub trait SessionStreams: std::fmt::Debug {
    /// The streams of a session: the one for both directions of a terminal or of a connection, or all three. Called once for each session.
    fn open(&mut self, session: SessionId, terminal: bool) -> Result<AppStreams, Error>;

    /// What came along for an app that is added ([`pod::control::ToSupervisor::Add`]). Called once for each.
    fn open_app(&mut self, session: SessionId, new: &NewApp) -> Result<HandedOver, Error>;
}

/// What the parent hands over for an app that comes into the pod.
#[derive(Debug)]
pub struct HandedOver {
    /// Its streams.
    pub streams: AppStreams,
    /// Its cgroups; `None` where the supervisor makes them (VM).
    pub cgroups: Option<AppCgroups>,
    /// Detached mounts (namespaces).
    pub trees: Vec<OwnedFd>,
}

/// The cgroups of an app.
#[derive(Debug, Default)]
pub struct AppCgroups {
    /// Open `cgroup.procs` files, which its processes enter before they do anything else.
    pub procs: Vec<OwnedFd>,
    /// One of them as a directory, to find what the app has started: it is in all of them alike.
    pub directory: Option<OwnedFd>,
    /// Whether the supervisor counts what the app uses (VM); in namespaces the parent does.
    pub counts_here: bool,
}

/// What the supervisor is connected to.
#[derive(Debug)]
pub struct Connections {
    /// A connected stream socket to the parent, on which `Ready` and `Start` are through already.
    pub control: OwnedFd,
    /// Every app's streams, in the plan's order.
    pub streams: Vec<AppStreams>,
    /// Every app's cgroups, in the plan's order. Empty where the plan's own `cgroup` settings are to be carried out (VM).
    pub cgroups: Vec<AppCgroups>,
    /// Every app's listening sockets, in the plan's order; what is missing at the end has none.
    pub sockets: Vec<AppSockets>,
    /// Detached mounts, for the plan's `Attach` operations: volumes (namespaces).
    pub trees: Vec<OwnedFd>,
    /// Where the streams of sessions come from.
    pub sessions: Box<dyn SessionStreams>,
    /// Whether the kernel is the pod's alone (VM): then file systems are synced before the pod is said to have exited.
    pub own_kernel: bool,
}

/// Runs the pod that `plan` says, from its set-up to its end; must be called by PID 1 of the pod, in one thread. What
/// happens, failures included, is told on the control connection, `PodExited` last; the same status is returned.
pub fn run(plan: &Plan, connections: Connections) -> ExitStatus {
    supervisor::run(plan, connections)
}

/// Carries operations out in the mount namespace of this process: what a plan has for root of the host (`Plan::outside`), or
/// what a guest does that exports.
pub fn carry_out(operations: &[Operation], users: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let users = users
        .map(|users| users.try_clone_to_owned())
        .transpose()
        .map_err(|error| Error::system("keep the user namespace")(errno(&error)))?;
    operations::carry_out(operations, &scope::Scope::new(Path::new("/"))?, users.as_slice())
}

/// Tells the parent that all is done, in place of [`run`].
pub fn succeed(control: OwnedFd) -> ExitStatus {
    supervisor::conclude(control, None)
}

/// Tells the parent that the pod could not be set up, in place of [`run`].
pub fn refuse(control: OwnedFd, error: &dyn std::error::Error) -> ExitStatus {
    supervisor::conclude(control, Some(error))
}
