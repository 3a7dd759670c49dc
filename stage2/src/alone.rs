//! An app without a supervisor: this process becomes the app, with the code and the operations of any other's. In order:
//! [`make_world`], [`prepare`], [`become_process`]. A command joins the app by [`join`].

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use pod::control::Stream;
use pod::plan::{AppPlan, Plan, Process, Stdio};

use crate::confine::adjust_oom_score;
use crate::error::Error;
use crate::operations::carry_out;
use crate::scope::Scope;
use crate::start;
use crate::streams::open_null;
use crate::{AppSockets, sys};

/// Carries out the set-up of a plan and of its only app, in a new mount namespace, whose root is the app's afterwards.
/// `trees` are for the plan's `Attach` operations. The process must have one thread.
pub fn make_world(plan: &Plan, trees: &[OwnedFd]) -> Result<(), Error> {
    let [app] = plan.apps.as_slice() else {
        return Err(Error::Impossible(format!("{} apps cannot be one process", plan.apps.len())));
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::system("make a mount namespace"))?;
    umask(Mode::empty());
    carry_out(&plan.setup, &Scope::new(Path::new("/"))?, trees)?;
    carry_out(&app.setup, &start::scope(app)?, &[])
}

/// What is left to do before the app's program: its empty streams, its OOM score, its pre-start handler, of which `report`
/// tells why it could not be executed.
pub fn prepare(app: &AppPlan, report: &dyn Fn(&Error)) -> Result<(), Error> {
    empty_streams(&app.stdio)?;
    adjust_oom_score(&app.process)?;
    app.pre_start.as_ref().map_or(Ok(()), |command| start::run_pre_start(app, command, report))
}

/// Becomes what `process` says, in the present root; returns only if that fails. The program inherits the standard streams as
/// they are, and of all other descriptors only its sockets and `kept`.
pub fn become_process(
    process: &Process,
    sockets: &AppSockets,
    kept: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Error> {
    // The sockets get numbers of their own, which are taken from whatever has them.
    let kept = kept.map(|kept| sys::duplicate_from(kept, sockets.end())).transpose();
    let kept = kept.map_err(Error::system("keep a descriptor"))?;
    start::become_process(process, sockets, kept.as_ref().map(AsFd::as_fd))
}

/// Becomes a further process of an app, in the mount namespace of `member`, a process of it (pidfd); returns only if that fails.
pub fn join(member: BorrowedFd<'_>, process: &Process) -> Result<Infallible, Error> {
    setns(member, CloneFlags::CLONE_NEWNS).map_err(Error::system("enter the app's namespace"))?;
    adjust_oom_score(process)?;
    become_process(process, &AppSockets::default(), None)
}

fn empty_streams(stdio: &Stdio) -> Result<(), Error> {
    let empty: Vec<_> = Stdio::THREE.iter().filter(|stream| !stdio.streams().contains(stream)).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let null = open_null()?;
    let emptied = empty.into_iter().try_for_each(|stream| match stream {
        Stream::Stdin => dup2_stdin(&null),
        Stream::Stdout => dup2_stdout(&null),
        Stream::Stderr => dup2_stderr(&null),
    });
    emptied.map_err(Error::system("set the standard streams"))
}
