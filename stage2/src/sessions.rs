//! Sessions: processes that the parent has asked for, each in the namespaces, the cgroups and the confinement of an app.
//!
//! What a session's command leaves running in its process group ends with it, so that its streams end. A daemon that
//! leads a group of its own stays, as part of the pod.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use pod::control::{ExitStatus, FromSupervisor, TerminalSize};
use pod::plan::NewApp;
use pod::session::{Session as Request, SessionId};
use relay::Carrier;

use crate::app::App;
use crate::channel::{Listener, News};
use crate::error::{Error, causes};
use crate::streams::{self, Prepared};
use crate::{AppStreams, HandedOver, SessionStreams, start, sys};

/// How long a process has after the hangup of its client.
const HANGUP_PERIOD: Duration = Duration::from_secs(2);
/// How long output may take after the pod's end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The sessions of a pod.
#[derive(Debug)]
pub struct Sessions {
    streams: Box<dyn SessionStreams>,
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    process: Process,
    inputs: Vec<Carrier>,
    outputs: Vec<Carrier>,
    terminal: Option<OwnedFd>,
    /// When it is killed or let go of: its client has gone, or the pod ends.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Process {
    /// On the way to executing the program.
    Starting(Pid, Listener),
    Running(Pid),
    /// Ended, or on the way there; the parent knows why.
    Failed(Pid),
    Ended,
}

impl Sessions {
    /// None yet; the parent makes their streams' connections.
    pub fn new(streams: Box<dyn SessionStreams>) -> Self {
        Self { streams, sessions: Vec::new() }
    }

    /// Starts a session in `app`; what the parent is to be told if that failed.
    pub fn begin(
        &mut self,
        id: SessionId,
        request: &Request,
        app: Option<&App<'_>>,
    ) -> Option<FromSupervisor> {
        match self.try_begin(id, request, app) {
            Ok(()) => None,
            Err(error) => Some(FromSupervisor::SessionFailed { session: id, causes: causes(&error) }),
        }
    }

    fn try_begin(&mut self, id: SessionId, request: &Request, app: Option<&App<'_>>) -> Result<(), Error> {
        // Taken in any case, for the next session is not to find them.
        let streams = self.streams.open(id, request.terminal.is_some())?;
        let not_running = || Error::Impossible(format!("app \"{}\" does not run", request.app));
        let app = app.ok_or_else(not_running)?;
        let place = app.place().ok_or_else(not_running)?;
        let Prepared { own, inputs, outputs, terminal } = streams::prepare(streams)?;
        let process = request.process(&app.plan.process);
        let (pid, listener) = start::session(place, &process, &own)?;
        let process = Process::Starting(pid, listener);
        self.sessions.push(Session { id, process, inputs, outputs, terminal, deadline: None });
        if let Some(terminal) = &request.terminal {
            self.resize(id, terminal.size);
        }
        Ok(())
    }

    /// The one stream of a session that is a connection.
    pub fn take_connection(&mut self, id: SessionId) -> Result<OwnedFd, Error> {
        match self.streams.open(id, true)? {
            AppStreams::Terminal { carrier } => Ok(carrier),
            other => Err(Error::Impossible(format!("{other:?} is no connection"))),
        }
    }

    /// What was handed over for an app that comes into the pod.
    pub fn take_app(&mut self, id: SessionId, new: &NewApp) -> Result<HandedOver, Error> {
        self.streams.open_app(id, new)
    }

    fn find(&mut self, id: SessionId) -> Option<&mut Session> {
        // One that has ended and still delivers its output may have had the number before.
        self.sessions.iter_mut().rev().find(|session| session.id == id)
    }

    /// Sets the size of a session's terminal.
    pub fn resize(&mut self, id: SessionId, size: TerminalSize) {
        if let Some(terminal) = self.find(id).and_then(|session| session.terminal.as_ref()) {
            let _ = sys::resize_terminal(terminal, size);
        }
    }

    /// The client has gone: a process that does not take the hint is killed in time.
    pub fn hang_up(&mut self, id: SessionId) {
        if let Some(session) = self.find(id) {
            session.close();
            session.signal(Signal::SIGHUP);
            session.deadline = Some(Instant::now() + HANGUP_PERIOD);
        }
    }

    /// The pod ends, and its processes have: clients get a moment to take the last output, for none of them is to keep
    /// the pod.
    pub fn wind_up(&mut self) {
        let deadline = Some(Instant::now() + FAREWELL);
        self.sessions.iter_mut().for_each(|session| session.deadline = deadline);
    }

    /// Whether all output is where it belongs.
    pub fn are_delivered(&self) -> bool {
        self.sessions.iter().flat_map(|session| &session.outputs).all(Carrier::is_done)
    }

    /// When [`Self::enforce`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.iter().filter_map(|session| session.deadline).min()
    }

    /// Kills what is overdue, and lets go of output that nobody takes.
    pub fn enforce(&mut self, now: Instant) {
        for session in &mut self.sessions {
            if session.deadline.is_some_and(|deadline| deadline <= now) {
                session.deadline = None;
                session.close();
                session.signal(Signal::SIGKILL);
            }
        }
    }

    /// Adds what to wait for.
    pub fn interests<'a>(&'a self, set: &mut Vec<PollFd<'a>>) {
        for session in &self.sessions {
            set.extend(session.channel().map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN)));
            session.inputs.iter().chain(&session.outputs).for_each(|carrier| carrier.interests(set));
        }
    }

    /// Does what `answers` allow, in the order of [`Self::interests`]; what the parent is to be told.
    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) -> Vec<FromSupervisor> {
        let mut messages = Vec::new();
        for session in &mut self.sessions {
            if session.channel().is_some() && answers.next().is_some_and(|answer| !answer.is_empty()) {
                messages.extend(session.listen());
            }
            for carrier in session.inputs.iter_mut().chain(&mut session.outputs) {
                carrier.advance(answers);
            }
            session.inputs.retain(|carrier| !carrier.is_done());
            session.outputs.retain(|carrier| !carrier.is_done());
        }
        self.sessions
            .retain(|session| !matches!(session.process, Process::Ended) || !session.outputs.is_empty());
        messages
    }

    /// The process `pid` has ended: what the parent is to be told, if it was a session's.
    pub fn ended(&mut self, pid: Pid, status: ExitStatus) -> Option<Vec<FromSupervisor>> {
        let session = self.sessions.iter_mut().find(|session| session.process.pid() == Some(pid))?;
        // What it said before it ended is still there.
        let mut messages: Vec<FromSupervisor> = session.listen().into_iter().collect();
        if !matches!(session.process, Process::Failed(_)) {
            messages.push(FromSupervisor::SessionExited { session: session.id, status });
        }
        // Its number was free only if the group was empty, and it does not come round within a moment.
        let _ = killpg(pid, Signal::SIGKILL);
        session.process = Process::Ended;
        session.deadline = None;
        session.inputs.clear();
        session.terminal = None;
        Some(messages)
    }
}

impl Session {
    fn channel(&self) -> Option<&Listener> {
        match &self.process {
            Process::Starting(_, listener) => Some(listener),
            Process::Running(_) | Process::Failed(_) | Process::Ended => None,
        }
    }

    /// Hears what a process on its way has to tell.
    fn listen(&mut self) -> Option<FromSupervisor> {
        let Process::Starting(pid, listener) = &self.process else { return None };
        let pid = *pid;
        match listener.hear() {
            News::Nothing | News::Namespace(_) | News::Notifications(_) => None,
            News::Closed => {
                self.process = Process::Running(pid);
                None
            }
            News::Failed(causes) => {
                self.process = Process::Failed(pid);
                Some(FromSupervisor::SessionFailed { session: self.id, causes })
            }
        }
    }

    /// Closes its streams; the kernel tells the processes on a terminal.
    fn close(&mut self) {
        self.inputs.clear();
        self.outputs.clear();
        self.terminal = None;
    }

    /// Signals its process group, and its process, which may not lead one yet. It has not been reaped: the number is
    /// its own.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.process.pid()
            && killpg(pid, signal).is_err()
        {
            let _ = kill(pid, signal);
        }
    }
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Starting(pid, _) | Self::Running(pid) | Self::Failed(pid) => Some(*pid),
            Self::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Notes which sessions' streams were taken; there are none of the second.
    #[derive(Debug, Default, Clone)]
    struct Taken(Rc<RefCell<Vec<SessionId>>>);

    impl SessionStreams for Taken {
        fn open(&mut self, session: SessionId, _: bool) -> Result<AppStreams, Error> {
            self.0.borrow_mut().push(session);
            match session {
                2 => Err(Error::Impossible("no streams".into())),
                _ => Ok(AppStreams::Carried { stdin: None, stdout: None, stderr: None }),
            }
        }

        fn open_app(&mut self, _: SessionId, _: &NewApp) -> Result<HandedOver, Error> {
            Err(Error::Impossible("no app is added here".into()))
        }
    }

    #[test]
    fn what_does_not_begin_is_told_and_leaves_nothing() {
        let taken = Taken::default();
        let mut sessions = Sessions::new(Box::new(taken.clone()));
        let request = Request {
            app: "web".parse().unwrap(),
            command: vec!["ls".into()],
            privileged: false,
            terminal: None,
        };
        let mut why = |id| match sessions.begin(id, &request, None) {
            Some(FromSupervisor::SessionFailed { session, causes }) if session == id => causes.concat(),
            other => panic!("{other:?}"),
        };
        assert_eq!((why(1).as_str(), why(2).as_str()), ("app \"web\" does not run", "no streams"));
        assert_eq!(*taken.0.borrow(), [1, 2], "the next session would get them");
        // Whatever is said of sessions that are none is nothing.
        sessions.hang_up(1);
        sessions.resize(1, TerminalSize::default());
        sessions.wind_up();
        sessions.enforce(Instant::now());
        assert!(sessions.are_delivered() && sessions.deadline().is_none());
        assert!(sessions.ended(Pid::this(), ExitStatus::SUCCESS).is_none());
    }
}
