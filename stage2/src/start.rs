//! What becomes an app, or an event handler of one: everything between the fork and the execution of its program.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use pod::plan::{AppPlan, Operation, Process};

use crate::channel::{Listener, Reporter, pair};
use crate::confine::{adjust_oom_score, confine};
use crate::error::{Error, errno};
use crate::landlock;
use crate::notifications;
use crate::operations::carry_out;
use crate::program::Program;
use crate::scope::Scope;
use crate::streams::OwnEnds;
use crate::sys;
use crate::users::Identity;
use crate::{AppCgroups, AppSockets};

/// What a new process is made from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// What it is to be.
    pub app: &'a AppPlan,
    /// Its standard streams.
    pub streams: &'a OwnEnds,
    /// Its cgroups.
    pub cgroups: &'a AppCgroups,
    /// Its listening sockets.
    pub sockets: &'a AppSockets,
}

/// Where an app is: what its further processes join.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its mount namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its cgroups.
    pub cgroups: &'a AppCgroups,
}

impl Place<'_> {
    /// Takes this process there, which is in the app's cgroups, with the app's root as its root.
    fn join(&self) -> Result<(), Error> {
        setns(self.namespace, CloneFlags::CLONE_NEWNS).map_err(Error::system("enter the app's namespace"))
    }
}

/// Forks the process that becomes an app.
pub fn app(material: Material<'_>) -> Result<(Pid, Listener), Error> {
    let cgroups = material.cgroups;
    fork_into(cgroups, material.sockets, CloneFlags::CLONE_NEWNS, |reporter| become_app(material, reporter))
}

/// Forks the process that becomes an app's post-stop handler.
pub fn post_stop(
    place: Place<'_>,
    app: &AppPlan,
    streams: &OwnEnds,
    command: &[String],
) -> Result<(Pid, Listener), Error> {
    fork_into(place.cgroups, &AppSockets::default(), CloneFlags::empty(), |_| {
        place.join()?;
        streams.take()?;
        become_handler(app, "post-stop", command)
    })
}

/// Forks the process of a session: all that an app's is, but for its program.
pub fn session(place: Place<'_>, process: &Process, streams: &OwnEnds) -> Result<(Pid, Listener), Error> {
    fork_into(place.cgroups, &AppSockets::default(), CloneFlags::empty(), |_| {
        place.join()?;
        streams.take()?;
        adjust_oom_score(process)?;
        become_process(process, &AppSockets::default(), None)
    })
}

/// Forks a process that is in an app's cgroups before it does anything else, and may take the numbers of `sockets`.
fn fork_into(
    cgroups: &AppCgroups,
    sockets: &AppSockets,
    namespaces: CloneFlags,
    child: impl FnOnce(&Reporter) -> Result<Infallible, Error>,
) -> Result<(Pid, Listener), Error> {
    let (listener, reporter) = pair(sockets.end()).map_err(Error::system("make a channel to the app"))?;
    let (forked, entered) = fork(cgroups, namespaces).map_err(Error::system("fork"))?;
    let Some(pid) = forked else {
        let result = if entered { Ok(()) } else { enter_cgroups(cgroups) };
        let Err(error) = result.and_then(|()| see_own_cgroup_as_root()).and_then(|()| child(&reporter));
        reporter.fail(&error);
        exit()
    };
    Ok((pid, listener))
}

/// Whether the new process is in the cgroups comes with it. A process that begins in its cgroup spares the kernel to move it,
/// for which all processors are waited for: some milliseconds. Only cgroup v2 knows this, and not across user namespaces.
fn fork(cgroups: &AppCgroups, namespaces: CloneFlags) -> nix::Result<(Option<Pid>, bool)> {
    if let (Some(cgroup), [_]) = (&cgroups.directory, cgroups.procs.as_slice())
        && let Ok(forked) = sys::fork_into_cgroup(namespaces, cgroup.as_fd())
    {
        return Ok((forked, true));
    }
    sys::fork(namespaces).map(|forked| (forked, false))
}

/// Ends this process without running anything that belongs to the supervisor it was forked from.
fn exit() -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(pod::abi::EXIT_ERROR.into()) }
}

fn become_app(material: Material<'_>, reporter: &Reporter) -> Result<Infallible, Error> {
    let Material { app, streams, sockets, .. } = material;
    carry_out(&app.setup, &scope(app)?, &[])?;
    streams.take()?;
    adjust_oom_score(&app.process)?;
    hand_over_namespace(reporter)?;
    if app.notify {
        let socket = notifications::listen()?;
        let handed = reporter.hand_over_notifications(socket.as_fd());
        handed.map_err(Error::system("hand over the socket of the app's notifications"))?;
    }
    if let Some(command) = &app.pre_start {
        run_pre_start(app, command, &|error| reporter.fail(error))?;
    }
    become_process(&app.process, sockets, None)
}

/// Becomes a process, which inherits its standard streams, its sockets and `kept`, and nothing else.
pub fn become_process(
    process: &Process,
    sockets: &AppSockets,
    kept: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Error> {
    let identity = Identity::resolve(&process.user, &process.group, &process.supplementary_gids)?;
    become_program(process, &identity, &process.exec, sockets, kept)
}

/// Between the filter and the execution lies nothing: it may refuse any other call. Landlock's rules may keep the program from
/// being found.
fn become_program(
    process: &Process,
    identity: &Identity,
    command: &[String],
    sockets: &AppSockets,
    kept: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Error> {
    let process = sockets.give(process)?;
    let rules = process.landlock.as_ref().map(landlock::prepare).transpose()?;
    confine(&process, identity, sockets.end())?;
    if let Some(kept) = kept {
        fcntl(kept, FcntlArg::F_SETFD(FdFlag::empty())).map_err(Error::system("keep a descriptor"))?;
    }
    let program = Program::find(command, &process.environment)?;
    let filter = process.filter.as_ref().map(|filter| sys::Filter::new(&filter.program()));
    if let Some(rules) = &rules {
        rules.restrict().map_err(Error::system("restrict the app by Landlock"))?;
    }
    if let Some(filter) = &filter {
        filter.install().map_err(Error::system(
            "filter the app's system calls (--insecure-options=seccomp does without a filter)",
        ))?;
    }
    let is_restricted = process.landlock.as_ref().is_some_and(|rules| rules.paths().is_some());
    program.execute().map_err(|source| match is_restricted {
        true => Error::Because {
            what: "cannot run the program under the app's Landlock rules, which have to let it and its interpreter (as ld.so) \
                be executed"
                .into(),
            source: Box::new(source),
        },
        false => source,
    })
}

/// An app's set-up stays inside what will be its root.
pub fn scope(app: &AppPlan) -> Result<Scope, Error> {
    match app.setup.last() {
        Some(Operation::Root { path }) => Scope::new(path),
        _ => Err(Error::Impossible(format!("the set-up of app \"{}\" does not end in its root", app.name))),
    }
}

fn enter_cgroups(cgroups: &AppCgroups) -> Result<(), Error> {
    for procs in &cgroups.procs {
        nix::unistd::write(procs, b"0").map_err(Error::system("enter the app's cgroup"))?;
    }
    Ok(())
}

fn see_own_cgroup_as_root() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(Error::system("make a cgroup namespace"))
}

fn hand_over_namespace(reporter: &Reporter) -> Result<(), Error> {
    const FILE: &str = "/proc/self/ns/mnt";
    let failed = Error::path("keep the namespace", FILE);
    let handed = File::open(FILE).map_err(|error| errno(&error));
    handed.and_then(|namespace| reporter.hand_over(namespace.as_fd())).map_err(failed)
}

/// Runs an app's pre-start handler to its end; `report` is told in its process why it could not be executed.
pub fn run_pre_start(app: &AppPlan, command: &[String], report: &dyn Fn(&Error)) -> Result<(), Error> {
    let failed = || Error::system("run the pre-start handler");
    let Some(pid) = sys::fork(CloneFlags::empty()).map_err(failed())? else {
        let Err(error) = become_handler(app, "pre-start", command);
        report(&error);
        exit()
    };
    match waitpid(pid, None).map_err(failed())? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, code) => {
            Err(Error::Impossible(format!("the pre-start handler {command:?} exited with status {code}")))
        }
        WaitStatus::Signaled(_, signal, _) => {
            Err(Error::Impossible(format!("the pre-start handler {command:?} was ended by {signal}")))
        }
        _ => Err(Error::Impossible("the pre-start handler neither ran nor ended".into())),
    }
}

fn become_handler(app: &AppPlan, event: &str, command: &[String]) -> Result<Infallible, Error> {
    become_program(&app.process, &Identity::ROOT, command, &AppSockets::default(), None).map_err(|source| {
        Error::Because { what: format!("cannot run the {event} handler"), source: Box::new(source) }
    })
}
