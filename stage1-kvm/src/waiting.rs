//! Waits for a guest that have an end, whatever the guest does.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pod::control::{self, FromSupervisor, MAX_FROM_SUPERVISOR_BYTES};

use crate::error::Error;

/// How long a guest may take to say Ready, again to connect its streams, and for each part of an archive. Honest guests take a
/// fraction of a second; this is for one that hangs, and long enough for a host that emulates its processor and is loaded. One under
/// a debugger has a day.
const PATIENCE: Duration = Duration::from_secs(if cfg!(feature = "gdb") { 86_400 } else { 120 });
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

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Protocol(what) => Self::Protocol(what),
            Refusal::Silent(what) => {
                Self::Silent { what, seconds: PATIENCE.as_secs(), console: String::new() }
            }
            Refusal::Gone | Refusal::Interrupted => stage1::Error::SupervisorGone.into(),
        }
    }
}

fn readable(stream: &UnixStream, timeout: PollTimeout) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, timeout).is_ok_and(|ready| ready > 0)
}

/// A wait for the guest that has an end.
pub struct Waiting<'a> {
    what: &'static str,
    until: Instant,
    interrupted: &'a dyn Fn() -> bool,
}

impl<'a> Waiting<'a> {
    /// Begins now. `what` the guest should have done when it is over.
    pub fn new(what: &'static str, interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { what, until: Instant::now() + PATIENCE, interrupted }
    }

    /// Which of `connections` is readable; `None` if only `control` is.
    pub fn first_readable(
        &self,
        connections: &[UnixStream],
        control: &UnixStream,
    ) -> Result<Option<usize>, Refusal> {
        loop {
            let all = connections.iter().chain([control]);
            let mut polled: Vec<_> =
                all.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
            let slice = PollTimeout::try_from(SLICE).unwrap_or(PollTimeout::ZERO);
            let _interrupted = poll(&mut polled, slice);
            match polled.iter().position(|stream| stream.any().unwrap_or_default()) {
                Some(index) => return Ok((index < connections.len()).then_some(index)),
                None => self.check()?,
            }
        }
    }

    /// The guest's next message.
    pub fn read_message(&self, from: &UnixStream) -> Result<FromSupervisor, Refusal> {
        self.patiently(from, |from| control::read_message(from, MAX_FROM_SUPERVISOR_BYTES))
    }

    /// Fills `buffer`.
    pub fn read_exact(&self, from: &UnixStream, buffer: &mut [u8]) -> Result<(), Refusal> {
        self.patiently(from, |from| from.read_exact(buffer))
    }

    /// What there is to read; nothing at the end.
    pub fn read(&self, from: &UnixStream, buffer: &mut [u8]) -> Result<usize, Refusal> {
        self.patiently(from, |from| from.read(buffer))
    }

    fn patiently<T>(
        &self,
        stream: &UnixStream,
        read: impl FnOnce(&mut Patient<'_>) -> io::Result<T>,
    ) -> Result<T, Refusal> {
        let mut patient = Patient { stream, waiting: self, refusal: None };
        let result = read(&mut patient);
        result.map_err(|error| patient.refusal.unwrap_or_else(|| refusal(&error)))
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
