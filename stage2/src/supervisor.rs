//! The supervisor's loop: one thread, one poll, nothing to do when nothing happens.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::sysinfo::sysinfo;
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_settime};
use nix::unistd::Pid;
use pod::control::{ExitStatus, FromSupervisor, ToSupervisor};
use pod::life::ExitPolicy;
use pod::plan::{NewApp, Plan};
use pod::session::SessionId;
use pod::statistics::{GuestMemory, Measurement, Subject};
use pod::types::AcName;
use relay::Carrier;

use crate::app::{App, Role};
use crate::changes::{Changes, Wanted};
use crate::control::{Control, Received};
use crate::error::{Error, causes};
use crate::forwards::Forwards;
use crate::operations::carry_out;
use crate::scope::Scope;
use crate::sessions::Sessions;
use crate::streams::Prepared;
use crate::{AppCgroups, AppSockets, AppStreams, Connections, cgroup, newcomer, streams};

/// Everything that a kill reaches: all processes but PID 1 itself.
const EVERYTHING: Pid = Pid::from_raw(-1);

/// How far the pod's end has been ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Not at all.
    Run,
    /// Every app was asked to end, and is made to when its time is over.
    Stop,
    /// Everything was killed, and nobody waits for output.
    Kill,
}

struct Supervisor<'a> {
    control: Control,
    signals: SignalFd,
    apps: Vec<App<'a>>,
    inputs: Vec<Carrier>,
    outputs: Vec<Carrier>,
    sessions: Sessions,
    forwards: Forwards,
    changes: Changes,
    order: Order,
    exit_policy: ExitPolicy,
    /// Whether the pod goes on whatever becomes of its apps.
    mutable: bool,
    /// Whether nothing else runs under this kernel.
    own_kernel: bool,
    has_children: bool,
    has_parent: bool,
    first_failure: Option<ExitStatus>,
}

pub(crate) fn run(plan: &Plan, connections: Connections) -> ExitStatus {
    let Connections { control, streams, cgroups, sockets, trees, sessions, own_kernel } = connections;
    let signals = match take_signals() {
        Ok(signals) => signals,
        Err(error) => return conclude(control, Some(&error)),
    };
    let mut supervisor = Supervisor {
        control: Control::new(control),
        signals,
        apps: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        sessions: Sessions::new(sessions),
        forwards: Forwards::default(),
        changes: Changes::default(),
        order: Order::Run,
        exit_policy: plan.exit_policy,
        mutable: plan.mutable,
        own_kernel,
        has_children: true,
        has_parent: true,
        first_failure: None,
    };
    let sockets = sockets.into_iter();
    let places = streams.into_iter().zip(sockets.chain(std::iter::repeat_with(AppSockets::default)));
    supervisor.run(plan, places.collect(), cgroups, trees);
    supervisor.say_farewell()
}

pub(crate) fn conclude(control: OwnedFd, error: Option<&dyn std::error::Error>) -> ExitStatus {
    let control = Control::new(control);
    let status = match error {
        Some(error) => {
            control.send(&FromSupervisor::Failed { app: None, causes: causes(error) });
            ExitStatus::Code(pod::abi::EXIT_ERROR)
        }
        None => ExitStatus::SUCCESS,
    };
    control.send(&FromSupervisor::PodExited { status });
    control.await_farewell();
    status
}

fn measure_guest() -> Option<Measurement> {
    let free_bytes = sysinfo().ok()?.ram_unused();
    Some(Measurement::Guest(GuestMemory { free_bytes }))
}

fn take_signals() -> Result<SignalFd, Error> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(Error::system("take signals"))
}

impl<'a> Supervisor<'a> {
    fn run(
        &mut self,
        plan: &'a Plan,
        ends: Vec<(AppStreams, AppSockets)>,
        cgroups: Vec<AppCgroups>,
        trees: Vec<OwnedFd>,
    ) {
        match set_up(plan, cgroups, trees) {
            Ok(cgroups) => self.start_apps(plan, ends, cgroups),
            Err(error) => return self.fail(None, &error),
        }
        self.until(|supervisor| {
            let is_wanted = supervisor.mutable && supervisor.goes_on();
            !is_wanted && supervisor.apps.iter().all(App::has_ended)
        });
        let _ = kill(EVERYTHING, Signal::SIGKILL);
        self.inputs.clear();
        self.until_childless();
        self.sessions.wind_up();
        self.forwards.wind_up(Instant::now());
        if self.order != Order::Kill {
            self.order = Order::Stop;
        }
        for index in 0..self.apps.len() {
            if self.order != Order::Kill {
                self.post_stop(index);
            }
        }
        self.apps.clear();
        self.until(|supervisor| supervisor.order == Order::Kill || supervisor.is_delivered());
    }

    fn is_delivered(&self) -> bool {
        let outputs = self.outputs.iter().all(Carrier::is_done);
        outputs && self.sessions.are_delivered() && self.forwards.are_over()
    }

    fn say_farewell(self) -> ExitStatus {
        let status = self.first_failure.unwrap_or(ExitStatus::SUCCESS);
        if self.own_kernel {
            nix::unistd::sync();
        }
        self.control.send(&FromSupervisor::PodExited { status });
        if self.own_kernel {
            // The machine that the last bytes are in must not go before they have.
            self.control.await_farewell();
        }
        status
    }

    fn fail(&mut self, app: Option<&AcName>, error: &Error) {
        self.control.send(&FromSupervisor::Failed { app: app.cloned(), causes: causes(error) });
        self.first_failure.get_or_insert(ExitStatus::Code(pod::abi::EXIT_ERROR));
        self.stop();
    }

    /// Starts every app without waiting for any; one that cannot be started ends the pod.
    fn start_apps(&mut self, plan: &'a Plan, ends: Vec<(AppStreams, AppSockets)>, cgroups: Vec<AppCgroups>) {
        let role = if plan.apps.len() == 1 { Role::Alone } else { Role::Member };
        for ((app, (streams, sockets)), cgroups) in plan.apps.iter().zip(ends).zip(cgroups) {
            let started = streams::prepare(streams).and_then(|prepared| {
                self.inputs.extend(prepared.inputs);
                self.outputs.extend(prepared.outputs);
                let Prepared { own, terminal, .. } = prepared;
                let mut app = App::new(Cow::Borrowed(app), own, terminal, cgroups, sockets, role);
                app.start().map(|()| app)
            });
            match started {
                Ok(app) => self.apps.push(app),
                Err(error) => return self.fail(Some(&app.name), &error),
            }
        }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.round();
        }
    }

    fn until_childless(&mut self) {
        self.has_children = true;
        self.reap();
        self.until(|supervisor| !supervisor.has_children);
    }

    /// Runs an app's post-stop handler, if it has one, to its end; what it leaves behind is killed.
    fn post_stop(&mut self, index: usize) {
        let Some(app) = self.apps.get_mut(index) else { return };
        match app.start_post_stop() {
            Ok(false) => {}
            Ok(true) => {
                self.until(|supervisor| supervisor.apps.get(index).is_none_or(App::has_ended));
                let _ = kill(EVERYTHING, Signal::SIGKILL);
                self.until_childless();
            }
            Err(error) => {
                let name = app.plan.name.clone();
                self.fail(Some(&name), &error);
            }
        }
    }

    /// Waits until something happens, and deals with it.
    fn round(&mut self) {
        let Some(answers) = self.wait() else { return self.obey(ToSupervisor::Kill) };
        let mut answers = answers.into_iter();
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let signalled = happened();
        let commanded = self.has_parent && happened();
        let mut messages = Vec::new();
        // What is waited for now: an app's socket may be there only once its channel was heard.
        let notifying: Vec<bool> = self.apps.iter().map(|app| app.notifications().is_some()).collect();
        for app in &mut self.apps {
            if app.channel().is_some() && happened() {
                messages.extend(app.listen());
            }
        }
        for (app, notifying) in self.apps.iter_mut().zip(notifying) {
            if notifying && happened() {
                messages.extend(app.take_notifications());
            }
        }
        for carrier in self.inputs.iter_mut().chain(&mut self.outputs) {
            carrier.advance(&mut answers);
        }
        self.inputs.retain(|carrier| !carrier.is_done());
        self.outputs.retain(|carrier| !carrier.is_done());
        messages.extend(self.sessions.advance(&mut answers));
        messages.extend(self.forwards.advance(&mut answers));
        messages.into_iter().for_each(|message| self.tell(message));
        if signalled {
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap();
        }
        if commanded {
            self.receive();
        }
        let now = Instant::now();
        self.sessions.enforce(now);
        self.forwards.enforce(now).into_iter().for_each(|message| self.tell(message));
        self.advance_apps(now);
    }

    /// Whether apps may be started again.
    fn goes_on(&self) -> bool {
        self.order == Order::Run
    }

    /// Takes every app as far as it goes by now.
    fn advance_apps(&mut self, now: Instant) {
        let goes_on = self.goes_on();
        let messages: Vec<_> = self.apps.iter_mut().flat_map(|app| app.advance(now, goes_on)).collect();
        messages.into_iter().for_each(|message| self.tell(message));
        // What has just been told may have ended the pod.
        let goes_on = self.goes_on();
        let answers = self.changes.advance(&mut self.apps, now, goes_on);
        answers.into_iter().for_each(|message| self.tell(message));
    }

    /// The answers of poll in the order that [`Self::round`] takes them in; `None` if it cannot work.
    fn wait(&self) -> Option<Vec<PollFlags>> {
        let wanted = PollFlags::POLLIN;
        let mut set = vec![PollFd::new(self.signals.as_fd(), wanted)];
        set.extend(self.has_parent.then(|| PollFd::new(self.control.as_fd(), wanted)));
        let channels = self.apps.iter().filter_map(App::channel);
        set.extend(channels.map(|channel| PollFd::new(channel.as_fd(), wanted)));
        let notifications = self.apps.iter().filter_map(App::notifications);
        set.extend(notifications.map(|socket| PollFd::new(socket.as_fd(), wanted)));
        self.inputs.iter().chain(&self.outputs).for_each(|carrier| carrier.interests(&mut set));
        self.sessions.interests(&mut set);
        self.forwards.interests(&mut set);
        match poll(&mut set, self.timeout()) {
            Ok(_) => Some(set.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()),
            Err(Errno::EINTR) => Some(vec![PollFlags::empty(); set.len()]),
            Err(_) => None,
        }
    }

    fn timeout(&self) -> PollTimeout {
        let apps = self.apps.iter().filter_map(App::deadline);
        let deadline = apps.chain(self.sessions.deadline()).chain(self.forwards.deadline()).min();
        deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, for else the last millisecond is spent asking.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        })
    }

    fn receive(&mut self) {
        loop {
            match self.control.receive() {
                Received::Message(message) => self.obey(message),
                Received::Nothing => return,
                // Nobody is there for whom the pod would run.
                Received::Gone => {
                    self.has_parent = false;
                    return self.obey(ToSupervisor::Kill);
                }
            }
        }
    }

    fn obey(&mut self, message: ToSupervisor) {
        match message {
            // The first message, once; by now it is meaningless.
            ToSupervisor::Start(_) | ToSupervisor::Export(_) => {}
            ToSupervisor::Stop => self.stop(),
            ToSupervisor::Kill => {
                self.order = Order::Kill;
                let _ = kill(EVERYTHING, Signal::SIGKILL);
            }
            ToSupervisor::Signal(number) => {
                if Signal::try_from(number).is_ok() {
                    self.apps.iter().for_each(|app| app.signal(number));
                }
            }
            ToSupervisor::SetClock { unix_us } => set_clock(unix_us),
            ToSupervisor::Resize(size) => self.apps.iter().for_each(|app| app.resize(size)),
            ToSupervisor::ResizeApp { app, size } => {
                self.apps.iter().filter(|running| running.plan.name == app).for_each(|app| app.resize(size));
            }
            ToSupervisor::Enter { session, request } => {
                let app = self.apps.iter().find(|app| app.plan.name == request.app);
                let failed = self.sessions.begin(session, &request, app);
                failed.into_iter().for_each(|message| self.tell(message));
            }
            ToSupervisor::Change { session, app, run } => {
                let wanted = if run { Wanted::Start } else { Wanted::Stop };
                self.changes.add(session, app, wanted);
            }
            ToSupervisor::Remove { session, app, teardown } => {
                self.changes.add(session, app, Wanted::Removal(teardown));
            }
            ToSupervisor::Add { session, new } => self.add(session, *new),
            ToSupervisor::Measure { session, subject } => self.measure(session, &subject),
            ToSupervisor::Connect { session, port } => {
                // Taken in any case, for the next session is not to find it.
                let stream = self.sessions.take_connection(session);
                self.forwards.begin(session, port, stream).into_iter().for_each(|message| self.tell(message));
            }
            ToSupervisor::ResizeSession { session, size } => self.sessions.resize(session, size),
            ToSupervisor::Hangup { session } => self.sessions.hang_up(session),
        }
    }

    /// Takes an app into the pod.
    fn add(&mut self, session: SessionId, new: NewApp) {
        // Taken in any case, for the next session is not to find it.
        let handed = self.sessions.take_app(session, &new);
        let added = handed.and_then(|handed| match self.goes_on() {
            true => newcomer::take_in(new, handed),
            false => Err(Error::Impossible("the pod ends".into())),
        });
        let answer = match added {
            Ok(newcomer::Newcomer { app, inputs, outputs }) => {
                self.apps.push(app);
                self.inputs.extend(inputs);
                self.outputs.extend(outputs);
                FromSupervisor::SessionExited { session, status: ExitStatus::SUCCESS }
            }
            Err(error) => FromSupervisor::SessionFailed { session, causes: causes(&error) },
        };
        self.tell(answer);
    }

    fn measure(&mut self, session: SessionId, subject: &Subject) {
        let (measurement, name) = match subject {
            Subject::App(name) => {
                let app = self.apps.iter().find(|app| app.plan.name == *name);
                let statistics = app.and_then(App::measure).map(Box::new);
                (statistics.map(Measurement::App), format!("app \"{name}\""))
            }
            Subject::Guest => (self.own_kernel.then(measure_guest).flatten(), "the kernel".to_owned()),
        };
        self.tell(match measurement {
            Some(measurement) => FromSupervisor::Measured { session, measurement },
            None => FromSupervisor::SessionFailed {
                session,
                causes: vec![format!("{name} is not measured here")],
            },
        });
    }

    fn stop(&mut self) {
        if self.order == Order::Run {
            self.order = Order::Stop;
            let now = Instant::now();
            self.apps.iter_mut().for_each(|app| app.stop(now));
        }
    }

    /// Takes every process that has ended: the apps', and those that lost their parents to us.
    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ExitStatus::Code(code as u8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ExitStatus::Signal(signal as u8)),
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => {
                    self.has_children = false;
                    return;
                }
            };
            let goes_on = self.goes_on();
            let of_app = self.apps.iter_mut().find_map(|app| app.ended(pid, status, goes_on));
            let messages = of_app.or_else(|| self.sessions.ended(pid, status));
            messages.into_iter().flatten().for_each(|message| self.tell(message));
        }
    }

    fn tell(&mut self, message: FromSupervisor) {
        self.control.send(&message);
        if let FromSupervisor::Exited { app, status } = message {
            self.note(&app, status);
        }
    }

    /// The first app that fails decides how the pod has ended. An app whose end somebody wanted has not failed.
    fn note(&mut self, app: &AcName, status: ExitStatus) {
        let has_failed = status != ExitStatus::SUCCESS;
        if self.mutable {
            return;
        }
        if self.apps.iter().any(|known| known.plan.name == *app && known.life.is_held) {
            return;
        }
        if has_failed {
            self.first_failure.get_or_insert(status);
        }
        if self.exit_policy.ends(has_failed) {
            self.stop();
        }
    }
}

/// Carries out what comes before the apps; every app's cgroups.
fn set_up(plan: &Plan, cgroups: Vec<AppCgroups>, trees: Vec<OwnedFd>) -> Result<Vec<AppCgroups>, Error> {
    umask(Mode::empty());
    let cgroups = if cgroups.is_empty() { cgroup::make(plan)? } else { cgroups };
    carry_out(&plan.setup, &Scope::new(Path::new("/"))?, &trees)?;
    Ok(cgroups)
}

/// Sets the kernel's clock. A pod whose clock is wrong goes on with it.
fn set_clock(unix_us: u64) {
    let now = TimeSpec::from_duration(Duration::from_micros(unix_us));
    let _unlikely = clock_settime(ClockId::CLOCK_REALTIME, now);
}
