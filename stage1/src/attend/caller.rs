//! The caller's standard streams, and what is carried between them and the apps'.

use std::collections::HashSet;
use std::io::{Read, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use ::pod::control::{Stream, StreamHello};
use ::pod::plan::{AppPlan, Plan, Stdio};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stdin, dup2_stdout};
use relay::{Carrier, Sink, SinkEnd, Source};

use super::Streams;
use super::link::nonblocking;
use crate::Error;

/// A connection that has not said yet which stream it is.
#[derive(Debug)]
struct Unknown {
    connection: UnixStream,
    hello: Vec<u8>,
}

/// All that is carried.
#[derive(Debug)]
pub struct CallerStreams<'a> {
    plan: &'a Plan,
    listener: Option<UnixListener>,
    unknown: Vec<Unknown>,
    known: HashSet<(u16, Stream)>,
    inputs: Vec<Carrier>,
    /// To standard output and to standard error.
    outputs: [Option<Carrier>; 2],
}

impl<'a> CallerStreams<'a> {
    pub fn new(plan: &'a Plan, streams: Streams) -> Result<Self, Error> {
        let mut caller = Self {
            plan,
            listener: None,
            unknown: Vec::new(),
            known: HashSet::new(),
            inputs: Vec::new(),
            outputs: [None, None],
        };
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
        if self.plan.apps.iter().any(|app| app.stdio == Stdio::Terminal) {
            return Ok(());
        }
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
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
        while self.accept() {}
        self.listener = None;
    }

    pub fn interests<'s>(&'s self, set: &mut Vec<PollFd<'s>>) {
        let wanted = PollFlags::POLLIN;
        set.extend(self.listener.iter().map(|listener| PollFd::new(listener.as_fd(), wanted)));
        set.extend(self.unknown.iter().map(|unknown| PollFd::new(unknown.connection.as_fd(), wanted)));
        self.inputs.iter().chain(self.outputs.iter().flatten()).for_each(|carrier| carrier.interests(set));
    }

    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) -> Result<(), Error> {
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let called = self.listener.is_some() && happened();
        let spoke: Vec<bool> = self.unknown.iter().map(|_| happened()).collect();
        self.inputs
            .iter_mut()
            .chain(self.outputs.iter_mut().flatten())
            .for_each(|carrier| carrier.advance(answers));
        self.inputs.retain(|carrier| !carrier.is_done());
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
        let room = self.unknown.len() + self.known.len() < STREAMS_PER_APP * self.plan.apps.len();
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
        let Some(app) = self.plan.apps.get(usize::from(hello.app)) else { return Ok(()) };
        let meant = app.stdio.streams().contains(&hello.stream);
        if !meant || !self.known.insert((hello.app, hello.stream)) {
            return Ok(());
        }
        self.carry(app, hello.stream, fd)
            .map_err(|source| Error::System { action: "carry the app's standard streams", source })
    }

    fn carry(&mut self, app: &AppPlan, stream: Stream, fd: OwnedFd) -> nix::Result<()> {
        let [output, error] = &mut self.outputs;
        match stream {
            Stream::Stdin => {
                if app.stdio == Stdio::Terminal {
                    add(output, Source::new(duplicate(fd.as_fd())?), stdout().as_fd())?;
                }
                let sink = Sink::new(fd, SinkEnd::HalfClose)?;
                let source = Source::new(duplicate(stdin().as_fd())?);
                self.inputs.push(Carrier::new(vec![source], sink));
                Ok(())
            }
            Stream::Stdout => add(output, source(self.plan, app, fd), stdout().as_fd()),
            Stream::Stderr => add(error, source(self.plan, app, fd), stderr().as_fd()),
        }
    }
}

/// Among several apps, each line says whose it is.
fn source(plan: &Plan, app: &AppPlan, fd: OwnedFd) -> Source {
    match plan.apps.len() {
        1 => Source::new(fd),
        _ => Source::named(fd, app.name.as_str()),
    }
}

/// Adds a source to what goes to one of the caller's streams.
fn add(carrier: &mut Option<Carrier>, source: Source, to: BorrowedFd<'_>) -> nix::Result<()> {
    match carrier {
        Some(carrier) if !carrier.is_done() => carrier.add(source),
        _ => *carrier = Some(Carrier::new(vec![source], Sink::shared(to)?)),
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
