//! One app as the supervisor sees it: its process, and what it has to tell of it.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pod::control::{ExitStatus, FromSupervisor, TerminalSize};
use pod::plan::AppPlan;
use pod::statistics::Statistics;

use crate::cgroup::AppCgroups;
use crate::channel::{Listener, News};
use crate::error::Error;
use crate::notifications::Notifications;
use crate::start::{self, Material, Place};
use crate::streams::OwnEnds;
use crate::sys;

/// An app.
#[derive(Debug)]
pub struct App<'a> {
    /// What it is to be.
    pub plan: &'a AppPlan,
    state: State,
    /// Whether its process is the post-stop handler.
    stopping: bool,
    terminal: Option<OwnedFd>,
    /// For a post-stop handler, if there is one; kept open otherwise, they would never end.
    streams: Option<OwnEnds>,
    cgroups: AppCgroups,
    /// Its mount namespace; comes from its process once it has its file systems.
    namespace: Option<OwnedFd>,
    /// Comes likewise, if it is to tell when it is ready.
    notifications: Option<Notifications>,
}

#[derive(Debug)]
enum State {
    /// Its process is on the way to executing the program.
    Starting(Pid, Listener),
    /// Its program runs.
    Running(Pid),
    /// Its process has ended, and with it, in time, everything else of the app.
    Ended,
}

impl<'a> App<'a> {
    /// Starts an app's process.
    pub fn start(
        plan: &'a AppPlan,
        streams: OwnEnds,
        terminal: Option<OwnedFd>,
        cgroups: AppCgroups,
    ) -> Result<Self, Error> {
        let (pid, listener) = start::app(Material { app: plan, streams: &streams, cgroups: &cgroups.procs })?;
        let state = State::Starting(pid, listener);
        let streams = plan.post_stop.is_some().then_some(streams);
        Ok(Self {
            plan,
            state,
            stopping: false,
            terminal,
            streams,
            cgroups,
            namespace: None,
            notifications: None,
        })
    }

    /// Whether its main process, or the handler that was started last, has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// What to wait for: news of a process on its way.
    pub fn channel(&self) -> Option<&Listener> {
        match &self.state {
            State::Starting(_, listener) => Some(listener),
            State::Running(_) | State::Ended => None,
        }
    }

    /// What to wait for: what the app tells of itself.
    pub fn notifications(&self) -> Option<&Notifications> {
        self.notifications.as_ref()
    }

    /// Takes what the app has told; what of it the parent is to be told.
    pub fn take_notifications(&mut self) -> Option<FromSupervisor> {
        let became_ready = self.notifications.as_mut()?.take();
        became_ready.then(|| FromSupervisor::AppReady { app: self.plan.name.clone() })
    }

    /// Hears what has come, and makes of it what the parent is to be told. A process that failed ends by itself.
    pub fn listen(&mut self) -> Vec<FromSupervisor> {
        let mut messages = Vec::new();
        while let State::Starting(pid, listener) = &self.state {
            let (pid, app) = (*pid, self.plan.name.clone());
            match listener.hear() {
                News::Nothing => break,
                News::Namespace(namespace) => self.namespace = Some(namespace),
                News::Notifications(socket) => self.notifications = Some(Notifications::new(socket)),
                News::Failed(causes) => {
                    messages.push(FromSupervisor::Failed { app: Some(app), causes });
                    self.state = State::Running(pid);
                }
                News::Closed => {
                    if !self.stopping {
                        messages.push(FromSupervisor::Started { app });
                    }
                    self.state = State::Running(pid);
                }
            }
        }
        messages
    }

    /// The process `pid` has ended: what the parent is to be told, if it was this app's.
    pub fn ended(&mut self, pid: Pid, status: ExitStatus) -> Option<Vec<FromSupervisor>> {
        match &self.state {
            State::Starting(own, _) | State::Running(own) if *own == pid => {}
            _ => return None,
        }
        // What it said before it ended is still there.
        let mut messages = self.listen();
        self.state = State::Ended;
        if !self.stopping {
            let killed = self.cgroups.oom_kills().filter(|kills| *kills > 0);
            let app = self.plan.name.clone();
            messages.extend(killed.map(|kills| FromSupervisor::OutOfMemory { app, kills }));
            messages.push(FromSupervisor::Exited { app: self.plan.name.clone(), status });
        }
        Some(messages)
    }

    /// Where a session in this app runs; `None` if the app does not run.
    pub fn place(&self) -> Option<Place<'_>> {
        let runs = matches!(self.state, State::Running(_)) && !self.stopping;
        runs.then(|| self.joined()).flatten()
    }

    fn joined(&self) -> Option<Place<'_>> {
        Some(Place { namespace: self.namespace.as_ref()?.as_fd(), cgroups: &self.cgroups.procs })
    }

    /// Starts the post-stop handler, if there is one and the app had come so far that it makes sense.
    pub fn start_post_stop(&mut self) -> Result<bool, Error> {
        let (Some(command), Some(streams)) = (&self.plan.post_stop, &self.streams) else { return Ok(false) };
        let Some(place) = self.joined() else { return Ok(false) };
        let (pid, listener) = start::post_stop(place, self.plan, streams, command)?;
        self.state = State::Starting(pid, listener);
        self.stopping = true;
        Ok(true)
    }

    /// What it uses, where the supervisor counts.
    pub fn measure(&self) -> Option<Statistics> {
        self.cgroups.measure()
    }

    /// Sends a signal to the main process. It has not been reaped, or it is not known any more: the number is its own.
    pub fn signal(&self, signal: Signal) {
        if let State::Starting(pid, _) | State::Running(pid) = &self.state {
            let _ = kill(*pid, signal);
        }
    }

    /// Sets the size of its terminal, if it has one.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let _ = sys::resize_terminal(terminal, size);
        }
    }
}
