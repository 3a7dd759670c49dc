//! The caller's standard streams, and what is carried between them and the apps'; and what passes by them, to logs and to
//! whoever is attached.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use ::pod::control::{Stream, StreamHello};
use ::pod::plan::{AppPlan, Plan, Stdio};
use ::pod::session::MAX_SESSIONS;
use ::pod::streams::{InputMode, StreamModes};
use ::pod::types::AcName;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stdin, dup2_stdout};
use relay::{Carrier, Listener, Sink, SinkEnd, Source};

use super::Streams;
use super::link::nonblocking;
use super::outlets::Outlets;
use crate::Error;
use crate::pod::Pod;

/// A connection that has not said yet which stream it is.
#[derive(Debug)]
struct Unknown {
    connection: UnixStream,
    hello: Vec<u8>,
}

/// An app as far as its streams depend on it.
#[derive(Clone, Debug)]
pub struct StreamedApp {
    /// Its name.
    pub name: AcName,
    /// What its streams are.
    pub stdio: Stdio,
    /// Where they lead.
    pub modes: StreamModes,
}

impl From<&AppPlan> for StreamedApp {
    fn from(app: &AppPlan) -> Self {
        Self { name: app.name.clone(), stdio: app.stdio.clone(), modes: app.streams }
    }
}

/// All that is carried.
#[derive(Debug)]
pub struct CallerStreams {
    /// By their numbers: their indices in the plan, or the next ones.
    apps: BTreeMap<u16, StreamedApp>,
    /// Whether each line says whose it is: among several apps.
    names_lines: bool,
    listener: Option<UnixListener>,
    unknown: Vec<Unknown>,
    known: HashSet<(u16, Stream)>,
    inputs: Vec<Carrier>,
    /// The inputs of apps whom others may write to, by the apps' numbers.
    doors: HashMap<u16, Carrier>,
    /// To standard output, to standard error, and to neither.
    outputs: [Option<Carrier>; 3],
    outlets: Outlets,
}

impl CallerStreams {
    pub fn new(pod: &Pod, plan: &Plan, streams: Streams) -> Result<Self, Error> {
        let mut caller = Self {
            apps: (0..=u16::MAX).zip(plan.apps.iter().map(StreamedApp::from)).collect(),
            names_lines: plan.mutable || plan.apps.len() != 1,
            listener: None,
            unknown: Vec::new(),
            known: HashSet::new(),
            inputs: Vec::new(),
            doors: HashMap::new(),
            outputs: [None, None, None],
            outlets: Outlets::default(),
        };
        caller.apps.iter().for_each(|(number, app)| caller.outlets.open_log(pod, *number, app));
        match streams {
            Streams::Connected(streams) => {
                for (hello, fd) in streams {
                    caller.connect(hello, fd)?;
                }
                caller.release().map_err(|source| Error::System {
                    action: "let go of the caller's standard streams",
                    source,
                })?;
            }
            Streams::Expected(listener) => {
                nonblocking(&listener)?;
                caller.listener = Some(listener);
            }
        }
        Ok(caller)
    }

    /// Lets go of the caller's streams that are carried by descriptors of their own, so that whoever is at their other
    /// ends learns when the app closes them. Standard error stays, for messages, and a terminal, to be restored.
    fn release(&self) -> nix::Result<()> {
        if self.apps.values().any(has_callers_terminal) {
            return Ok(());
        }
        let null = null()?;
        if !self.inputs.is_empty() {
            dup2_stdin(&null)?;
        }
        if self.outputs.first().is_some_and(Option::is_some) {
            dup2_stdout(&null)?;
        }
        Ok(())
    }

    /// Whether all output that has come is where it belongs.
    pub fn is_delivered(&self) -> bool {
        self.unknown.is_empty() && self.outputs.iter().flatten().all(Carrier::is_done)
    }

    /// Nobody is there any more to read what the caller says, or to connect; who has connected is heard out.
    pub fn close_inputs(&mut self) {
        self.inputs.clear();
        self.doors.clear();
        while self.accept() {}
        self.listener = None;
    }

    pub fn interests<'s>(&'s self, set: &mut Vec<PollFd<'s>>) {
        let wanted = PollFlags::POLLIN;
        set.extend(self.listener.iter().map(|listener| PollFd::new(listener.as_fd(), wanted)));
        set.extend(self.unknown.iter().map(|unknown| PollFd::new(unknown.connection.as_fd(), wanted)));
        let carriers = self.inputs.iter().chain(self.doors.values()).chain(self.outputs.iter().flatten());
        carriers.for_each(|carrier| carrier.interests(set));
    }

    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) -> Result<(), Error> {
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let called = self.listener.is_some() && happened();
        let spoke: Vec<bool> = self.unknown.iter().map(|_| happened()).collect();
        self.inputs
            .iter_mut()
            .chain(self.doors.values_mut())
            .chain(self.outputs.iter_mut().flatten())
            .for_each(|carrier| carrier.advance(answers));
        self.inputs.retain(|carrier| !carrier.is_done());
        self.doors.retain(|_, carrier| !carrier.is_done());
        self.greet(&spoke)?;
        if called {
            self.accept();
        }
        Ok(())
    }

    /// Takes a connection, but no more than can be meant: the other side may be hostile.
    fn accept(&mut self) -> bool {
        const STREAMS_PER_APP: usize = 3;
        let Some(Ok((connection, _))) = self.listener.as_ref().map(UnixListener::accept) else {
            return false;
        };
        let room = self.unknown.len() + self.known.len() < STREAMS_PER_APP * self.apps.len();
        if room && connection.set_nonblocking(true).is_ok() {
            self.unknown.push(Unknown { connection, hello: Vec::new() });
        }
        room
    }

    /// Hears which streams the connections are that spoke.
    fn greet(&mut self, spoke: &[bool]) -> Result<(), Error> {
        let mut waiting = Vec::new();
        let unknown = std::mem::take(&mut self.unknown);
        for (mut unknown, spoke) in unknown.into_iter().zip(spoke) {
            match if *spoke { unknown.listen() } else { Greeting::Unfinished } {
                Greeting::Unfinished => waiting.push(unknown),
                Greeting::Hello(hello) => self.connect(hello, unknown.connection.into())?,
                Greeting::Nonsense => {}
            }
        }
        self.unknown = waiting;
        Ok(())
    }

    /// Carries a stream that the plan has and that is not carried yet; whatever else is closed.
    fn connect(&mut self, hello: StreamHello, fd: OwnedFd) -> Result<(), Error> {
        let Some(app) = self.apps.get(&hello.app).cloned() else { return Ok(()) };
        let meant = app.stdio.streams().contains(&hello.stream);
        if !meant || !self.known.insert((hello.app, hello.stream)) {
            return Ok(());
        }
        self.carry(hello, &app, fd)
            .map_err(|source| Error::System { action: "carry the app's standard streams", source })
    }

    fn carry(&mut self, hello: StreamHello, app: &StreamedApp, fd: OwnedFd) -> nix::Result<()> {
        if hello.stream != Stream::Stdin {
            return self.carry_output(hello, app, fd);
        }
        if app.stdio == Stdio::Terminal {
            self.carry_output(hello, app, duplicate(fd.as_fd())?)?;
        }
        let sink = Sink::new(fd, SinkEnd::HalfClose)?;
        if app.modes.stdin == InputMode::Inherit {
            let source = Source::new(duplicate(stdin().as_fd())?);
            self.inputs.push(Carrier::new(vec![source], sink));
        } else {
            self.doors.insert(hello.app, Carrier::lasting(sink));
        }
        Ok(())
    }

    fn carry_output(&mut self, hello: StreamHello, app: &StreamedApp, fd: OwnedFd) -> nix::Result<()> {
        let source = match self.names_lines {
            false => Source::new(fd),
            true => Source::named(fd, app.name.as_str()),
        };
        let source = source.observed(self.outlets.observers(hello.app, app, hello.stream));
        let [output, error, neither] = &mut self.outputs;
        match (app.modes.output(hello.stream).inherit, hello.stream) {
            (true, Stream::Stderr) => add(error, source, || Sink::shared(stderr().as_fd())),
            (true, _) => add(output, source, || Sink::shared(stdout().as_fd())),
            (false, _) => add(neither, source, || Sink::new(null()?, SinkEnd::Close)),
        }
    }

    /// The number and the streams of an app.
    pub fn find(&self, name: &AcName) -> Option<(u16, &StreamedApp)> {
        self.apps.iter().find(|(_, app)| app.name == *name).map(|(number, app)| (*number, app))
    }

    /// Carries the streams of an app that comes into the pod.
    pub fn add(&mut self, pod: &Pod, app: &AppPlan, streams: Vec<(Stream, OwnedFd)>) -> Result<(), Error> {
        // There are no more apps than there can be cgroups, by far.
        let Some(number) = (0..=u16::MAX).find(|number| !self.apps.contains_key(number)) else {
            return Err(Error::System { action: "number the app", source: Errno::ENOSPC });
        };
        let app = StreamedApp::from(app);
        self.outlets.open_log(pod, number, &app);
        self.apps.insert(number, app);
        streams.into_iter().try_for_each(|(stream, fd)| self.connect(StreamHello { app: number, stream }, fd))
    }

    /// Forgets an app that has left; its last output is still on the way.
    pub fn remove(&mut self, name: &AcName) {
        let Some((number, _)) = self.find(name) else { return };
        self.apps.remove(&number);
        self.known.retain(|(app, _)| *app != number);
        self.doors.remove(&number);
        self.outlets.close(number);
    }

    /// Adds somebody who reads an app's stream; `false` if that has ended.
    pub fn listen(&self, app: u16, stream: Stream, listener: &Rc<Listener>) -> bool {
        self.outlets.listen(app, stream, listener)
    }

    /// Adds somebody who writes to an app's input; `false` if nobody reads that, or too many write already.
    pub fn speak(&mut self, app: u16, source: Source) -> bool {
        match self.doors.get_mut(&app) {
            Some(carrier) if carrier.sources() < MAX_SESSIONS => {
                carrier.add(source);
                true
            }
            _ => false,
        }
    }
}

/// Whether the app's terminal is connected to the caller's.
fn has_callers_terminal(app: &StreamedApp) -> bool {
    app.stdio == Stdio::Terminal && app.modes.stdin == InputMode::Inherit
}

fn null() -> nix::Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Adds a source to what goes to one sink, which is made for the first one.
fn add(
    carrier: &mut Option<Carrier>,
    source: Source,
    sink: impl FnOnce() -> nix::Result<Sink>,
) -> nix::Result<()> {
    match carrier {
        Some(carrier) if !carrier.is_done() => carrier.add(source),
        _ => *carrier = Some(Carrier::new(vec![source], sink()?)),
    }
    Ok(())
}

fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

enum Greeting {
    Unfinished,
    Hello(StreamHello),
    Nonsense,
}

impl Unknown {
    /// Reads no byte beyond the hello: those are the stream's.
    fn listen(&mut self) -> Greeting {
        let mut bytes = [0; StreamHello::BYTES];
        let missing = StreamHello::BYTES - self.hello.len();
        let Some(space) = bytes.get_mut(..missing) else { return Greeting::Nonsense };
        match self.connection.read(space) {
            Ok(count @ 1..) => self.hello.extend(space.iter().take(count)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Greeting::Unfinished,
            _ => return Greeting::Nonsense,
        }
        match <[u8; StreamHello::BYTES]>::try_from(self.hello.as_slice()) {
            Ok(hello) => StreamHello::decode(hello).map_or(Greeting::Nonsense, Greeting::Hello),
            Err(_) => Greeting::Unfinished,
        }
    }
}
