//! One app as the supervisor sees it: its process, what comes after it, and what there is to tell of it.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pod::control::{ExitStatus, FromSupervisor, TerminalSize};
use pod::life::Restart;
use pod::plan::AppPlan;
use pod::statistics::Statistics;

use crate::channel::{Listener, News};
use crate::error::{Error, causes};
use crate::life::{Life, Next};
use crate::notifications::Notifications;
use crate::start::{self, Material, Place};
use crate::streams::OwnEnds;
use crate::{AppCgroups, AppSockets, cgroup, sys};

/// How often the processes that an app has left behind are looked at until they are gone.
const CLEARING_PAUSE: Duration = Duration::from_millis(10);

/// An app.
#[derive(Debug)]
pub struct App<'a> {
    /// What it is to be.
    pub plan: Cow<'a, AppPlan>,
    /// Its life so far.
    pub life: Life,
    state: State,
    /// Whether its process is the post-stop handler.
    stopping: bool,
    /// Whether that is still to run for its last process.
    post_stop_due: bool,
    /// What comes once nothing is left of its process.
    next: Option<Next>,
    /// When its process is killed, which was asked to end.
    kill_at: Option<Instant>,
    /// Why its last start failed.
    failure: Vec<String>,
    terminal: Option<OwnedFd>,
    /// For what is started later, if that may be; kept open otherwise, they would never end.
    streams: Option<OwnEnds>,
    /// What its end means for the pod.
    role: Role,
    cgroups: AppCgroups,
    sockets: AppSockets,
    /// Its mount namespace; comes from its process once it has its file systems.
    namespace: Option<OwnedFd>,
    /// Comes likewise, if it is to tell when it is ready.
    notifications: Option<Notifications>,
}

/// What an app is among those of its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The only one: the pod ends with it.
    Alone,
    /// One of several.
    Member,
    /// In a pod that goes on whatever becomes of its apps: nothing of one is left when it has ended.
    Guest,
}

#[derive(Debug)]
enum State {
    /// Its process is on the way to executing the program.
    Starting(Pid, Listener),
    /// Its program runs.
    Running(Pid),
    /// Its process has ended, and what that has left behind is being killed; when that is looked at again.
    Clearing(Instant),
    /// It waits for its next start.
    Waiting(Instant),
    /// Its process has ended, and with it, in time, everything else of the app.
    Ended,
}

impl<'a> App<'a> {
    /// An app that does not run yet.
    pub fn new(
        plan: Cow<'a, AppPlan>,
        streams: OwnEnds,
        terminal: Option<OwnedFd>,
        cgroups: AppCgroups,
        sockets: AppSockets,
        role: Role,
    ) -> Self {
        Self {
            life: Life::new(plan.life),
            plan,
            state: State::Ended,
            stopping: false,
            post_stop_due: false,
            next: None,
            kill_at: None,
            failure: Vec::new(),
            terminal,
            streams: Some(streams),
            role,
            cgroups,
            sockets,
            namespace: None,
            notifications: None,
        }
    }

    /// Starts its process.
    pub fn start(&mut self) -> Result<(), Error> {
        self.life.begins();
        self.failure.clear();
        self.namespace = None;
        self.notifications = None;
        let gone = || Error::Impossible("its standard streams are gone".into());
        let streams = self.streams.take().ok_or_else(gone)?;
        let started = start::app(Material {
            app: &self.plan,
            streams: &streams,
            cgroups: &self.cgroups,
            sockets: &self.sockets,
        });
        self.streams = self.keeps_streams().then_some(streams);
        let (pid, listener) = started?;
        self.state = State::Starting(pid, listener);
        self.post_stop_due = self.plan.post_stop.is_some();
        Ok(())
    }

    /// Whether something of it may be started later. A pod's only app that is not started again ends the pod.
    fn keeps_streams(&self) -> bool {
        let plan = &self.plan;
        plan.post_stop.is_some() || plan.life.restart != Restart::No || self.role != Role::Alone
    }

    /// Whether its main process, or the handler that was started last, has ended, and nothing comes after it.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether its last start has come to its program, whatever has become of that.
    pub fn has_started(&self) -> bool {
        self.life.has_started()
    }

    /// Why its last start failed: the chain of causes; empty if it did not.
    pub fn failure(&self) -> &[String] {
        &self.failure
    }

    /// What to wait for: news of a process on its way.
    pub fn channel(&self) -> Option<&Listener> {
        match &self.state {
            State::Starting(_, listener) => Some(listener),
            _ => None,
        }
    }

    /// When [`Self::advance`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(due) | State::Clearing(due) => Some(*due),
            _ => self.kill_at,
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
                    self.failure = causes.clone();
                    messages.push(FromSupervisor::Failed { app: Some(app), causes });
                    self.state = State::Running(pid);
                }
                News::Closed => {
                    if !self.stopping {
                        self.life.starts(Instant::now());
                        messages.push(FromSupervisor::Started { app });
                    }
                    self.state = State::Running(pid);
                }
            }
        }
        messages
    }

    /// The process `pid` has ended: what the parent is to be told, if it was this app's. Unless the pod goes on, nothing
    /// comes after it.
    pub fn ended(&mut self, pid: Pid, status: ExitStatus, goes_on: bool) -> Option<Vec<FromSupervisor>> {
        match &self.state {
            State::Starting(own, _) | State::Running(own) if *own == pid => {}
            _ => return None,
        }
        // What it said before it ended is still there.
        let mut messages = self.listen();
        self.kill_at = None;
        if self.stopping {
            (self.stopping, self.post_stop_due) = (false, false);
        } else {
            self.next = Some(self.life.ends(status, Instant::now()));
            messages.extend(self.oom_kills());
        }
        // What it leaves ends with it only if something comes after it, be that the pod's going on, or if somebody wanted its end.
        let is_followed = self.role == Role::Guest || matches!(self.next, Some(Next::StartAt(_)));
        if goes_on && (self.life.is_held || is_followed) {
            // Its number was free only if the group was empty, and it does not come round within a moment.
            let _ = killpg(pid, Signal::SIGKILL);
            self.state = State::Clearing(Instant::now());
        } else {
            messages.extend(self.settle(goes_on));
        }
        Some(messages)
    }

    /// Nothing is left of its process: goes on to what comes next.
    fn settle(&mut self, goes_on: bool) -> Option<FromSupervisor> {
        let (app, status) = (self.plan.name.clone(), self.life.last);
        self.state = State::Ended;
        match self.next.take()? {
            Next::StartAt(start) if goes_on => {
                self.state = State::Waiting(start);
                Some(FromSupervisor::Restarting { app, restarts: self.life.restarts })
            }
            _ => Some(FromSupervisor::Exited { app, status }),
        }
    }

    /// Does what is due; what the parent is to be told.
    pub fn advance(&mut self, now: Instant, goes_on: bool) -> Vec<FromSupervisor> {
        match self.state {
            State::Clearing(_) if !goes_on => self.settle(false).into_iter().collect(),
            State::Clearing(_) => self.clear(now),
            State::Waiting(_) if !goes_on || self.life.is_held => {
                self.next = Some(Next::End);
                self.settle(false).into_iter().collect()
            }
            State::Waiting(start) if start <= now => self.start_again(),
            _ => {
                if self.kill_at.is_some_and(|deadline| deadline <= now) {
                    self.kill_at = None;
                    self.signal(libc::SIGKILL);
                }
                Vec::new()
            }
        }
    }

    /// Kills what its process has left behind, and goes on once there is nothing of it any more.
    fn clear(&mut self, now: Instant) -> Vec<FromSupervisor> {
        let mut messages = Vec::new();
        if !cgroup::kill(&self.cgroups) {
            self.state = State::Clearing(now + CLEARING_PAUSE);
            return messages;
        }
        let handler = if self.post_stop_due { self.start_post_stop() } else { Ok(false) };
        match handler {
            // It is cleared again when that has ended.
            Ok(true) => return messages,
            Ok(false) => {}
            Err(error) => {
                let app = Some(self.plan.name.clone());
                messages.push(FromSupervisor::Failed { app, causes: causes(&error) });
            }
        }
        messages.extend(self.settle(true));
        messages
    }

    fn start_again(&mut self) -> Vec<FromSupervisor> {
        let Err(error) = self.start() else { return Vec::new() };
        let (app, causes) = (self.plan.name.clone(), causes(&error));
        self.state = State::Ended;
        self.failure = causes.clone();
        self.life.last = ExitStatus::Code(pod::abi::EXIT_ERROR);
        vec![
            FromSupervisor::Failed { app: Some(app.clone()), causes },
            FromSupervisor::Exited { app, status: self.life.last },
        ]
    }

    /// Asks its process to end, which is killed when its time is over.
    pub fn stop(&mut self, now: Instant) {
        match self.state {
            State::Starting(..) | State::Running(_) if self.kill_at.is_none() => {
                self.kill_at = Some(now + self.plan.life.kill_timeout());
                // A handler is there for the end, and gets the time to do its work.
                if !self.stopping {
                    self.signal(self.plan.life.kill_signal.number());
                }
            }
            // Nothing is waited for any more.
            State::Waiting(_) => self.state = State::Waiting(now),
            _ => {}
        }
    }

    /// The same because somebody wants this app's end, not the pod's: it is not started again.
    pub fn hold(&mut self, now: Instant) {
        self.life.is_held = true;
        if let Some(next) = &mut self.next {
            *next = Next::End;
        }
        self.stop(now);
    }

    /// Whether somebody wants its end, which has not come yet.
    pub fn is_stopping(&self) -> bool {
        self.life.is_held && !self.has_ended()
    }

    /// Lets it begin again at once, unless it runs. What it has left behind goes first; [`Self::advance`] sees to all that.
    pub fn resume(&mut self, now: Instant) {
        self.life.is_held = false;
        match self.state {
            State::Starting(..) | State::Running(_) if !self.stopping => return,
            State::Starting(..) | State::Running(_) | State::Clearing(_) => {}
            State::Waiting(_) => self.state = State::Waiting(now),
            State::Ended => self.state = State::Clearing(now),
        }
        if !matches!(self.state, State::Waiting(_)) {
            self.next = Some(Next::StartAt(now));
        }
        self.failure.clear();
        self.life.begins();
    }

    /// Where a session in this app runs; `None` if the app does not run.
    pub fn place(&self) -> Option<Place<'_>> {
        let runs = matches!(self.state, State::Running(_)) && !self.stopping;
        runs.then(|| self.joined()).flatten()
    }

    fn joined(&self) -> Option<Place<'_>> {
        Some(Place { namespace: self.namespace.as_ref()?.as_fd(), cgroups: &self.cgroups })
    }

    /// Starts the post-stop handler, if there is one that has not run, and the app had come so far that it makes sense.
    pub fn start_post_stop(&mut self) -> Result<bool, Error> {
        if !std::mem::take(&mut self.post_stop_due) {
            return Ok(false);
        }
        let (Some(command), Some(streams)) = (&self.plan.post_stop, &self.streams) else { return Ok(false) };
        let Some(place) = self.joined() else { return Ok(false) };
        let (pid, listener) = start::post_stop(place, &self.plan, streams, command)?;
        self.state = State::Starting(pid, listener);
        self.stopping = true;
        Ok(true)
    }

    /// What it uses, where the supervisor counts.
    pub fn measure(&self) -> Option<Statistics> {
        cgroup::measure(&self.cgroups)
    }

    /// What the parent is to be told of processes that were killed for want of memory.
    fn oom_kills(&self) -> Option<FromSupervisor> {
        let kills = cgroup::oom_kills(&self.cgroups).filter(|kills| kills.count > 0)?;
        Some(FromSupervisor::OutOfMemory { app: self.plan.name.clone(), kills })
    }

    /// Sends a signal to the main process. It has not been reaped, or it is not known any more: the number is its own.
    pub fn signal(&self, signal: i32) {
        if let State::Starting(pid, _) | State::Running(pid) = &self.state {
            sys::kill(*pid, signal);
        }
    }

    /// Sets the size of its terminal, if it has one.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let _ = sys::resize_terminal(terminal, size);
        }
    }
}
