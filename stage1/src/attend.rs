//! Driving a pod from outside until it has exited.

mod alterations;
mod apps;
mod attachments;
mod caller;
mod ending;
mod link;
mod outlets;
mod sessions;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ::pod::control::{ExitStatus, FromSupervisor, StreamHello, ToSupervisor};
use ::pod::limits::PodLimits;
use ::pod::plan::Plan;
use ::pod::session::{Action, Change, SessionId};
use ::pod::statistics::OomKills;
use ::pod::types::AcName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::alterations::Alterations;
pub use self::alterations::{Added, Site};
use self::apps::Apps;
use self::attachments::Attachments;
use self::caller::CallerStreams;
use self::ending::{Ending, Step};
use self::link::Link;
pub use self::sessions::Door;
use self::sessions::Sessions;
use crate::Error;
use crate::clock::ClockWatch;
use crate::entrance::Entrance;
use crate::error::{Causes, WantOfMemory, report};
use crate::notify;
use crate::pod::Pod;
use crate::signals::{Meaning, Signals};
use crate::status;
use crate::terminal::RawTerminal;
use crate::timeline::Timeline;

/// How the control channel comes about.
#[derive(Debug)]
pub enum Control {
    /// It is there, and the supervisor has its plan (namespaces).
    Connected(OwnedFd),
    /// The first connection to this socket will be it; further ones are not taken. After its `Ready` it gets the plan
    /// (VM).
    Expected(UnixListener),
}

/// How the apps' streams come about.
#[derive(Debug)]
pub enum Streams {
    /// These; whatever is missing is not carried.
    Connected(Vec<(StreamHello, OwnedFd)>),
    /// Connections to this socket, each of which begins with its `StreamHello`; one for each stream that the plan has
    /// (VM).
    Expected(UnixListener),
}

/// What connects a pod with its parent.
pub struct Connection<'a> {
    /// The control channel.
    pub control: Control,
    /// The apps' streams.
    pub streams: Streams,
    /// Becomes readable when the supervisor (a pidfd) or its machine (an eventfd) has ended, however that came.
    pub ended: OwnedFd,
    /// Ends the pod at once from outside, whatever it is doing. May be called more than once.
    pub kill: &'a mut dyn FnMut(),
    /// Where clients ask for sessions.
    pub entrance: Entrance,
    /// How the sessions' streams come about.
    pub door: Box<Door<'a>>,
    /// How apps come into the pod and leave it, if they do.
    pub site: Option<Box<dyn Site + 'a>>,
    /// What else is to be told at once when it happens.
    pub alarm: Option<Alarm>,
    /// What of an app was killed for want of memory, where that is counted outside.
    pub oom_kills: &'a dyn Fn(&AcName) -> Option<OomKills>,
    /// Tells when the pod's clock is to be set, if it has one of its own.
    pub clock: Option<ClockWatch>,
}

/// Something that is told when it happens for the first time.
pub struct Alarm {
    /// Becomes readable then.
    pub descriptor: OwnedFd,
    /// What is told.
    pub error: Box<dyn std::error::Error>,
}

/// Attends to a pod until it has exited and all its output is delivered: carries streams between it and the caller's
/// (with several apps, each line of output with the app's name before it), passes on signals and the size of the
/// terminal, writes the apps' exit statuses, and prints why an app could not be started (the pod's status is then that
/// of rkt's own errors, 254). The first signal that ends pods asks for an orderly end; a second one, or a pod that does
/// not follow, ends it at once.
///
/// A pod that ended without having been asked to or telling how is [`Error::SupervisorGone`].
pub fn attend(
    pod: &Pod,
    plan: &Plan,
    connection: Connection<'_>,
    signals: &Signals,
    terminal: Option<&RawTerminal>,
    timeline: &mut Timeline,
) -> Result<ExitStatus, Error> {
    let Connection { control, streams, ended, kill, entrance, door, site, alarm, oom_kills, clock } =
        connection;
    let mut attendant = Attendant {
        pod,
        plan,
        link: Link::new(control)?,
        caller: CallerStreams::new(pod, plan, streams)?,
        attachments: Attachments::default(),
        sessions: Sessions::new(entrance, door),
        alterations: Alterations::new(&pod.directory, &pod.manifest, site),
        ended: Some(ended),
        alarm,
        ending: Ending::new(plan.grace_period_ms),
        kill,
        oom_kills,
        clock,
        signals,
        terminal,
        timeline,
        apps: Apps::new(plan),
        status: None,
    };
    attendant.resize();
    attendant.run()
}

struct Attendant<'a, 'k> {
    pod: &'a Pod,
    plan: &'a Plan,
    link: Link,
    caller: CallerStreams,
    attachments: Attachments,
    sessions: Sessions<'k>,
    alterations: Alterations<'k>,
    /// Until it was readable.
    ended: Option<OwnedFd>,
    /// Until it has been told.
    alarm: Option<Alarm>,
    ending: Ending,
    kill: &'k mut dyn FnMut(),
    oom_kills: &'k dyn Fn(&AcName) -> Option<OomKills>,
    clock: Option<ClockWatch>,
    signals: &'a Signals,
    terminal: Option<&'a RawTerminal>,
    timeline: &'a mut Timeline,
    apps: Apps,
    /// How the pod has exited.
    status: Option<ExitStatus>,
}

impl Attendant<'_, '_> {
    fn run(mut self) -> Result<ExitStatus, Error> {
        // Without apps there is nothing to wait for.
        if self.alterations.are_possible() {
            self.tell_readiness();
        }
        while !self.is_done() {
            self.round()?;
        }
        match self.status {
            Some(status) => Ok(status),
            None if self.ending.was_wanted() => Ok(ExitStatus::Signal(libc::SIGKILL as u8)),
            None => Err(Error::SupervisorGone),
        }
    }

    /// The end has been told, or there is nobody who could tell, and every byte of output is where it belongs. After a
    /// kill nobody waits for a reader that does not read.
    fn is_done(&self) -> bool {
        let delivered =
            || self.caller.is_delivered() && self.sessions.are_over() && self.attachments.are_over();
        self.is_over() && (delivered() || self.ending.is_overdue(Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.status.is_some() || self.ended.is_none()
    }

    fn round(&mut self) -> Result<(), Error> {
        let answers = self.wait()?;
        let mut answers = answers.into_iter();
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let signalled = happened();
        let ended = self.ended.is_some() && happened();
        let clock_set = self.clock.is_some() && happened();
        let alarmed = self.alarm.is_some() && happened();
        self.link.advance(&mut answers);
        // Listeners are asked about before the streams show them more.
        let mut messages = self.attachments.advance(&mut answers);
        self.caller.advance(&mut answers)?;
        messages.extend(self.sessions.advance(&self.apps, &mut answers));
        for (socket, request) in self.sessions.take_attaching() {
            self.attachments.begin(socket, &request, &mut self.caller);
        }
        messages.iter().for_each(|message| self.link.send(message));
        for (session, change) in self.sessions.take_alterations() {
            self.alterations.ask(session, change);
        }
        self.attachments.settle();
        if let Some(alarm) = self.alarm.take_if(|_| alarmed) {
            report(&*alarm.error);
        }
        if signalled {
            self.take_signals();
        }
        if clock_set {
            self.set_clock();
        }
        self.receive();
        self.alter();
        if ended {
            self.ended = None;
            self.link.close();
            self.caller.close_inputs();
        }
        if self.is_over() {
            self.sessions.close();
            self.attachments.close();
        }
        if self.ending.is_overdue(Instant::now()) {
            let step = self.ending.proceed(Instant::now());
            self.end(step);
        }
        Ok(())
    }

    /// The answers of poll, in the order in which [`Self::round`] takes them.
    fn wait(&self) -> Result<Vec<PollFlags>, Error> {
        let mut set = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        set.extend(self.ended.iter().map(|ended| PollFd::new(ended.as_fd(), PollFlags::POLLIN)));
        set.extend(self.clock.iter().map(|clock| PollFd::new(clock.as_fd(), PollFlags::POLLIN)));
        set.extend(self.alarm.iter().map(|alarm| PollFd::new(alarm.descriptor.as_fd(), PollFlags::POLLIN)));
        self.link.interests(&mut set);
        self.attachments.interests(&mut set);
        self.caller.interests(&mut set);
        self.sessions.interests(&mut set);
        let now = Instant::now();
        // A millisecond more, for poll rounds down and the last one would be spent asking.
        let farewells = self.sessions.deadline().into_iter().chain(self.attachments.deadline());
        let farewell = farewells
            .min()
            .map(|deadline| deadline.saturating_duration_since(now) + Duration::from_millis(1));
        let remaining = self.ending.remaining(now).into_iter().chain(farewell).min();
        let timeout = remaining.map_or(PollTimeout::NONE, |remaining| {
            PollTimeout::try_from(remaining).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut set, timeout) {
            Ok(_) => Ok(set.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()),
            Err(Errno::EINTR) => Ok(vec![PollFlags::empty(); set.len()]),
            Err(source) => Err(Error::System { action: "wait for the pod", source }),
        }
    }

    fn take_signals(&mut self) {
        while let Some(meaning) = self.signals.next() {
            match meaning {
                Meaning::Resized => self.resize(),
                Meaning::End => {
                    let step = self.ending.want(Instant::now());
                    self.end(step);
                }
            }
        }
    }

    fn resize(&mut self) {
        if let Some(terminal) = self.terminal {
            self.link.send(&ToSupervisor::Resize(terminal.size()));
        }
    }

    fn set_clock(&mut self) {
        if let Some(now) = self.clock.as_ref().and_then(ClockWatch::jumped) {
            let unix_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            self.link.send(&ToSupervisor::SetClock { unix_us });
        }
    }

    /// Carries out a step of ending the pod.
    fn end(&mut self, step: Step) {
        match step {
            Step::Asked if self.link.is_open() => self.link.send(&ToSupervisor::Stop),
            Step::Ordered if self.link.is_open() => self.link.send(&ToSupervisor::Kill),
            _ => {
                self.ending.force(Instant::now());
                (self.kill)();
            }
        }
    }

    fn receive(&mut self) {
        loop {
            match self.link.next_message() {
                Ok(Some(message)) => self.hear(message),
                Ok(None) => break,
                Err(error) => {
                    report(&error);
                    self.link.close();
                    if self.ending.force(Instant::now()) {
                        (self.kill)();
                    }
                }
            }
        }
        // Who has closed the channel will not tell how the pod ends.
        if self.link.is_closed() && self.status.is_none() && self.ended.is_some() {
            self.ending.expect_end(Instant::now());
        }
    }

    /// Begins the changes of the pod whose turn it is.
    fn alter(&mut self) {
        while let Some((session, change)) = self.alterations.next() {
            if let Err(error) = self.begin_alteration(session, &change) {
                self.sessions.fail(session, &*error);
            }
        }
    }

    fn begin_alteration(
        &mut self,
        session: SessionId,
        change: &Change,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if change.action == Action::Remove {
            let (app, teardown) = (change.app.clone(), self.alterations.remove(session, change)?);
            self.link.send(&ToSupervisor::Remove { session, app, teardown });
            return Ok(());
        }
        let Added { new, streams } = self.alterations.add(session, change)?;
        self.apps.add(&new.app);
        self.ending.allow(new.app.life.kill_timeout());
        if let Err(error) = self.caller.add(self.pod, &new.app, streams) {
            self.forget(&change.app);
            self.alterations.forget(&change.app).unwrap_or_else(|error| report(&error));
            return Err(error.into());
        }
        self.link.send(&ToSupervisor::Add { session, new: Box::new(new) });
        Ok(())
    }

    fn forget(&mut self, app: &AcName) {
        self.apps.remove(app);
        self.caller.remove(app);
    }

    /// An app runs, which makes it ready unless it tells that itself.
    fn note_start(&mut self, app: &AcName) {
        self.timeline.mark_start(&format!("{app} started"));
        if self.alterations.are_possible() && self.apps.has(app) {
            status::remove_exit(&self.pod.directory, app)
                .and_then(|()| status::write_started(&self.pod.directory, app))
                .unwrap_or_else(|error| report(&error));
        }
        self.note_readiness(|apps| apps.start(app));
    }

    /// After a `change` of what is known of the apps, the pod may be ready.
    fn note_readiness(&mut self, change: impl FnOnce(&mut Apps)) {
        let was_ready = self.apps.have_been_ready();
        change(&mut self.apps);
        if !was_ready && self.apps.have_been_ready() && !self.alterations.are_possible() {
            self.tell_readiness();
        }
    }

    fn tell_readiness(&self) {
        status::write_ready(&self.pod.directory)
            .and_then(|()| notify::ready())
            .unwrap_or_else(|error| report(&error));
    }

    /// Tells that the kernel has killed processes of an app for want of memory, if it has.
    fn note_oom_kills(&mut self, app: &AcName, kills: OomKills) {
        if self.apps.count_oom_kills(app, kills.count) {
            let limit = || PodLimits::of(self.alterations.manifest()).ok()?.memory_of(app);
            let want = if kills.own_limit { WantOfMemory::OfApp(limit()) } else { WantOfMemory::OfPod };
            report(&Error::OutOfMemory { app: app.clone(), kills: kills.count, want });
            status::write_oom_kills(&self.pod.directory, app, kills.count)
                .unwrap_or_else(|error| report(&error));
        }
    }

    /// The same where that is counted outside the pod.
    fn count_oom_kills(&mut self, app: &AcName) {
        if let Some(kills) = self.apps.has(app).then(|| (self.oom_kills)(app)).flatten() {
            self.note_oom_kills(app, kills);
        }
    }

    fn note_restart(&mut self, app: &AcName, restarts: u32) {
        self.timeline.mark(&format!("{app} begins again"));
        self.count_oom_kills(app);
        // How it has ended before says nothing of it any more.
        if self.apps.has_ended(app) {
            status::remove_exit(&self.pod.directory, app).unwrap_or_else(|error| report(&error));
        }
        if self.apps.restart(app) && restarts > 0 {
            let written = status::write_restarts(&self.pod.directory, app, restarts);
            written.unwrap_or_else(|error| report(&error));
        }
    }

    fn note_end(&mut self, app: &AcName, status: ExitStatus) {
        self.timeline.mark(&format!("{app} exited"));
        self.count_oom_kills(app);
        if self.apps.end(app) {
            self.attachments.app_ended(app, status);
            let written = status::write_exit(&self.pod.directory, app, status);
            written.unwrap_or_else(|error| report(&error));
        }
        if self.apps.have_ended() {
            self.ending.was_followed();
        }
    }

    fn hear(&mut self, message: FromSupervisor) {
        match &message {
            FromSupervisor::Started { app } => self.note_start(app),
            FromSupervisor::Restarting { app, restarts } => self.note_restart(app, *restarts),
            FromSupervisor::Exited { app, status } => self.note_end(app, *status),
            FromSupervisor::AppReady { app } => {
                self.timeline.mark(&format!("{app} ready"));
                self.note_readiness(|apps| apps.tell_ready(app));
            }
            FromSupervisor::OutOfMemory { app, kills } => self.note_oom_kills(app, *kills),
            _ => {}
        }
        if let Some(gone) = self.alterations.end(&message) {
            self.forget(&gone);
        }
        for answer in self.sessions.hear(&message, &self.apps) {
            self.link.send(&answer);
        }
        match message {
            FromSupervisor::Ready => {
                self.timeline.mark("ready");
                self.link.send_plan(self.plan);
                self.resize();
            }
            FromSupervisor::Failed { app, causes } => {
                if let Some(source) = Causes::new(causes) {
                    report(&Error::Failed { app, source });
                }
            }
            FromSupervisor::PodExited { status } => {
                self.timeline.mark("pod exited");
                self.status = Some(status);
                // Only now does a guest let its machine go.
                self.link.close();
                self.caller.close_inputs();
            }
            // It has been heard.
            _ => {}
        }
    }
}
