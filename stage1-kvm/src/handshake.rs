//! The guest's way in: its first control connection, then exactly the stream connections that the plan has. Once they
//! are there the doors are closed for good, before any app runs.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pod::control::{
    self, CONTROL_PORT, FromSupervisor, MAX_FROM_SUPERVISOR_BYTES, STREAM_PORT, StreamHello, ToSupervisor,
};
use pod::plan::Plan;

/// How long a guest may take to say Ready, and again to connect its streams. Honest guests take a fraction of a second;
/// this is for one that hangs, and long enough for a host that emulates its processor and is loaded.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a wait looks for signals.
const SLICE: Duration = Duration::from_millis(50);

/// Why there is no pod behind the doors.
#[derive(Debug)]
pub enum Refusal {
    /// The machine has ended.
    Gone,
    /// Nothing came in time: what was waited for.
    Silent(&'static str),
    /// The pod is to end before it has begun.
    Interrupted,
    /// The guest does not keep to the protocol.
    Protocol(String),
}

/// Where the guest's connections arrive.
pub struct Doors {
    control: Receiver<UnixStream>,
    streams: Receiver<UnixStream>,
}

/// A guest that has its plan.
#[derive(Debug)]
pub struct Guest {
    /// Its control connection.
    pub control: OwnedFd,
    /// Its streams; some are missing if it has something to tell instead.
    pub streams: Vec<(StreamHello, OwnedFd)>,
}

/// The doors, and what the machine's socket device needs to know of them.
pub fn doors() -> (Doors, Vec<(u32, Sender<UnixStream>)>) {
    let (to_control, control) = channel();
    let (to_streams, streams) = channel();
    (Doors { control, streams }, vec![(CONTROL_PORT, to_control), (STREAM_PORT, to_streams)])
}

impl Doors {
    /// Waits for the guest and gives it the plan. `interrupted` tells whether the pod is to end.
    pub fn welcome(self, plan: &Plan, interrupted: &dyn Fn() -> bool) -> Result<Guest, Refusal> {
        let Self { control, streams } = self;
        let waiting = Waiting::new("said Ready", interrupted);
        let mut connection = waiting.receive(&control, || false)?.ok_or(Refusal::Gone)?;
        // There is one control connection, whatever the guest tries.
        drop(control);
        match waiting.read_message(&connection)? {
            FromSupervisor::Ready => {}
            _ => return Err(Refusal::Protocol("its first message is not Ready".into())),
        }
        let start = control::encode(&ToSupervisor::Start(Box::new(plan.clone())))
            .map_err(|error| Refusal::Protocol(error.to_string()))?;
        connection.write_all(&start).map_err(|_| Refusal::Gone)?;
        let streams = collect(&streams, plan, &connection, interrupted)?;
        Ok(Guest { control: connection.into(), streams })
    }
}

/// The streams of `plan`; fewer only if the guest has something to say first, which can only be that it failed.
fn collect(
    door: &Receiver<UnixStream>,
    plan: &Plan,
    control: &UnixStream,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<(StreamHello, OwnedFd)>, Refusal> {
    let waiting = Waiting::new("connected its apps' streams", interrupted);
    let mut expected = expected(plan);
    let mut streams = Vec::with_capacity(expected.len());
    while !expected.is_empty() {
        let Some(connection) = waiting.receive(door, || readable(control, PollTimeout::ZERO))? else { break };
        let mut hello = [0; StreamHello::BYTES];
        waiting.read_exact(&connection, &mut hello)?;
        let hello = StreamHello::decode(hello).map_err(|error| Refusal::Protocol(error.to_string()))?;
        let Some(place) = expected.iter().position(|awaited| *awaited == hello) else {
            return Err(Refusal::Protocol(format!("it connects {hello:?}, which it has not or has already")));
        };
        expected.swap_remove(place);
        streams.push((hello, connection.into()));
    }
    Ok(streams)
}

/// Every stream that the plan's apps have.
fn expected(plan: &Plan) -> Vec<StreamHello> {
    let apps = (0..=u16::MAX).zip(&plan.apps);
    apps.flat_map(|(app, plan)| plan.stdio.streams().iter().map(move |&stream| StreamHello { app, stream }))
        .collect()
}

fn readable(stream: &UnixStream, timeout: PollTimeout) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, timeout).is_ok_and(|ready| ready > 0)
}

/// A wait for the guest that has an end.
struct Waiting<'a> {
    what: &'static str,
    until: Instant,
    interrupted: &'a dyn Fn() -> bool,
}

impl<'a> Waiting<'a> {
    fn new(what: &'static str, interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { what, until: Instant::now() + PATIENCE, interrupted }
    }

    /// The next connection; `None` if `other` comes true before there is one.
    fn receive(
        &self,
        door: &Receiver<UnixStream>,
        other: impl Fn() -> bool,
    ) -> Result<Option<UnixStream>, Refusal> {
        loop {
            match door.recv_timeout(SLICE) {
                Ok(connection) => return Ok(Some(connection)),
                Err(RecvTimeoutError::Disconnected) => return Err(Refusal::Gone),
                Err(RecvTimeoutError::Timeout) if other() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.check()?,
            }
        }
    }

    fn read_message(&self, from: &UnixStream) -> Result<FromSupervisor, Refusal> {
        let mut from = Patient { stream: from, waiting: self, refusal: None };
        let result = control::read_message(&mut from, MAX_FROM_SUPERVISOR_BYTES);
        result.map_err(|error| from.refusal.unwrap_or_else(|| refusal(&error)))
    }

    fn read_exact(&self, from: &UnixStream, buffer: &mut [u8]) -> Result<(), Refusal> {
        let mut from = Patient { stream: from, waiting: self, refusal: None };
        let result = from.read_exact(buffer);
        result.map_err(|error| from.refusal.unwrap_or_else(|| refusal(&error)))
    }

    fn check(&self) -> Result<(), Refusal> {
        if (self.interrupted)() {
            return Err(Refusal::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(Refusal::Silent(self.what));
        }
        Ok(())
    }
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::InvalidData => Refusal::Protocol(error.to_string()),
        _ => Refusal::Gone,
    }
}

/// A connection whose reads take no longer than the wait they are part of.
struct Patient<'a> {
    stream: &'a UnixStream,
    waiting: &'a Waiting<'a>,
    refusal: Option<Refusal>,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let slice = PollTimeout::try_from(SLICE).unwrap_or(PollTimeout::ZERO);
        while !readable(self.stream, slice) {
            if let Err(refusal) = self.waiting.check() {
                self.refusal = Some(refusal);
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.stream.read(buffer)
    }
}
