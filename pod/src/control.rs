//! The control channel between a pod's supervisor and its parent outside: typed messages in JSON, each after its length
//! as four little-endian bytes. Over a Unix socket for namespaces, over vsock for a VM; neither end can tell.
//!
//! In a VM the other end is hostile: a reader takes no message above its limit, and the parent acts only on the first
//! control connection, which the supervisor makes before any app runs.

use std::io;
use std::num::NonZeroU16;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::plan::{Export, NewApp, Operation, Plan};
use crate::session::{Session, SessionId};
use crate::statistics::{Measurement, OomKills, Subject};
use crate::types::AcName;

/// The vsock port on the host that the supervisor's control connection goes to.
pub const CONTROL_PORT: u32 = 1024;
/// The vsock port on the host that each stream of an app's standard input and output goes to; the connection begins
/// with a [`StreamHello`].
pub const STREAM_PORT: u32 = 1025;
/// The I/O port of the machine to which a guest's init writes a [`GuestMark`], for the timeline.
pub const MARK_PORT: u16 = 0x510;
/// The largest message that a parent accepts from a supervisor.
pub const MAX_FROM_SUPERVISOR_BYTES: usize = 64 << 10;
/// The largest message that a supervisor accepts: a plan is the largest.
pub const MAX_TO_SUPERVISOR_BYTES: usize = 16 << 20;

/// A point in a guest's life, by its number on the [`MARK_PORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GuestMark {
    /// The first instruction of init.
    Init = 1,
    /// The plan is there and every stream is connected: the supervisor begins.
    Supervisor = 2,
    /// Init has nothing more to do and resets the machine.
    Leaving = 3,
}

/// From the parent to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToSupervisor {
    /// Set the pod up and start its apps; the first message, once.
    Start(Box<Plan>),
    /// Pack what an app has left, in place of a pod: the first message to a throw-away guest. The archive is the first app's
    /// standard output; [`FromSupervisor::PodExited`] says that all of it was written.
    Export(Box<Export>),
    /// End the pod in an orderly way: to each app its signal, and SIGKILL when its time is over.
    Stop,
    /// End the pod at once.
    Kill,
    /// Send a signal to every app's main process.
    Signal(i32),
    /// The time of day has jumped; it is now this, in microseconds since the Epoch. Only for a supervisor whose kernel is its own.
    SetClock {
        /// The time.
        unix_us: u64,
    },
    /// The caller's terminal has changed its size.
    Resize(TerminalSize),
    /// The terminal of whoever is attached to an app's has changed its size.
    ResizeApp {
        /// Which app.
        app: AcName,
        /// The size.
        size: TerminalSize,
    },
    /// Start a session; its streams are on their way.
    Enter {
        /// Its number.
        session: SessionId,
        /// What is to run.
        request: Box<Session>,
    },
    /// The terminal of a session has changed its size.
    ResizeSession {
        /// Which.
        session: SessionId,
        /// Its size.
        size: TerminalSize,
    },
    /// Start an app that has ended, or end one.
    Change {
        /// Its number, among those of sessions.
        session: SessionId,
        /// Which app.
        app: AcName,
        /// Whether it is to run.
        run: bool,
    },
    /// Take an app into the pod; what it needs is on its way. It is started by a [`Self::Change`].
    Add {
        /// Its number, among those of sessions.
        session: SessionId,
        /// The app.
        new: Box<NewApp>,
    },
    /// End an app, and take it out of the pod.
    Remove {
        /// Its number, among those of sessions.
        session: SessionId,
        /// Which app.
        app: AcName,
        /// What is carried out once it has ended, in the pod's root.
        teardown: Vec<Operation>,
    },
    /// Measure what an app or the guest uses; the answer is the session's last message.
    Measure {
        /// Who wants to know.
        session: SessionId,
        /// Of what.
        subject: Subject,
    },
    /// Connect to a port of the pod's own loopback, and carry between that and the session's one stream, which is on its
    /// way. [`FromSupervisor::SessionExited`] tells that it is connected.
    Connect {
        /// Its number, among those of sessions.
        session: SessionId,
        /// The port.
        port: NonZeroU16,
    },
    /// A session's client has gone: end what it has started.
    Hangup {
        /// Which session.
        session: SessionId,
    },
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// From the supervisor to the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromSupervisor {
    /// The first message of a supervisor in a VM: it is there and waits for [`ToSupervisor::Start`].
    Ready,
    /// An app's main process runs.
    Started {
        /// Which app.
        app: AcName,
    },
    /// An app whose main process has ended will be started again.
    Restarting {
        /// Which app.
        app: AcName,
        /// How often it has been started again, this time included; not
        /// counted are those times that somebody wanted it.
        restarts: u32,
    },
    /// An app that tells when it is ready has told so ([`crate::plan::AppPlan::notify`]).
    AppReady {
        /// Which app.
        app: AcName,
    },
    /// Processes of an app were killed for want of memory; comes before [`Self::Exited`] and [`Self::Restarting`], from
    /// where the supervisor counts.
    OutOfMemory {
        /// Which app.
        app: AcName,
        /// How many so far, and why.
        kills: OomKills,
    },
    /// What an app or the guest uses.
    Measured {
        /// Who wanted to know.
        session: SessionId,
        /// It.
        measurement: Measurement,
    },
    /// An app's main process has ended, and is not started again by itself.
    Exited {
        /// Which app.
        app: AcName,
        /// How.
        status: ExitStatus,
    },
    /// Setting up the pod or an app failed: the chain of causes, outermost first. The pod ends.
    Failed {
        /// The app, unless it was the pod as a whole.
        app: Option<AcName>,
        /// The chain of causes.
        causes: Vec<String>,
    },
    /// A session's process could not be started, or a change or connection not be made: the chain of causes, outermost
    /// first. The session's last message.
    SessionFailed {
        /// Which.
        session: SessionId,
        /// The chain of causes.
        causes: Vec<String>,
    },
    /// A session's process has ended; a change or connection, which is made, succeeds. The session's last message.
    SessionExited {
        /// Which.
        session: SessionId,
        /// How.
        status: ExitStatus,
    },
    /// All apps have ended, all output is delivered, all file systems are synced: the last message.
    PodExited {
        /// The status of the first app that failed, else of success.
        status: ExitStatus,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It exited by itself.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
}

impl ExitStatus {
    /// Success.
    pub const SUCCESS: Self = Self::Code(0);

    /// As a shell has it: the code, or 128 plus the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// The three standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard input; of an app with a terminal, both directions of the terminal.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The first bytes of a stream connection: which stream of which app it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHello {
    /// The app's index in the plan; of a session's stream, the session's number.
    pub app: u16,
    /// The stream.
    pub stream: Stream,
}

impl StreamHello {
    /// Its size on the wire.
    pub const BYTES: usize = 4;

    /// Its form on the wire: the index in two little-endian bytes, the stream's number, zero.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let [low, high] = self.app.to_le_bytes();
        [low, high, self.stream as u8, 0]
    }

    /// From the wire.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, Error> {
        let [low, high, stream, zero] = bytes;
        let stream = match (stream, zero) {
            (0, 0) => Stream::Stdin,
            (1, 0) => Stream::Stdout,
            (2, 0) => Stream::Stderr,
            _ => return Err(Error::Invalid(format!("no stream has the number {stream}"))),
        };
        Ok(Self { app: u16::from_le_bytes([low, high]), stream })
    }
}

const LENGTH_BYTES: usize = 4;

/// A message as it goes over the wire.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut frame, message)
        .map_err(|source| Error::Json { what: "control message", source })?;
    let length = frame.len() - LENGTH_BYTES;
    let length = u32::try_from(length)
        .map_err(|_| Error::MessageTooLarge { bytes: length, limit: u32::MAX as usize })?;
    for (to, from) in frame.iter_mut().zip(length.to_le_bytes()) {
        *to = from;
    }
    Ok(frame)
}

/// Puts messages together from the pieces in which they arrive; holds at most one message beyond what was pushed.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of the bytes are of messages that were taken. They are let go together: one by one, each small message of a large
    /// piece would move all that follow it.
    taken: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder that refuses messages of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, limit }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one. After an error the channel is of no more use.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = left.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.limit {
            return Err(Error::MessageTooLarge { bytes: length, limit: self.limit });
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(message)
            .map_err(|source| Error::Json { what: "control message", source })?;
        self.taken += LENGTH_BYTES + length;
        Ok(Some(message))
    }
}

/// Reads one message of at most `limit` bytes, and not a byte more: what follows may be another reader's.
pub fn read_message<T: DeserializeOwned>(from: &mut impl io::Read, limit: usize) -> io::Result<T> {
    let invalid = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut decoder = Decoder::new(limit);
    let mut length = [0; LENGTH_BYTES];
    from.read_exact(&mut length)?;
    decoder.push(&length);
    // Without its body a message is either too large or not whole yet.
    if let Some(message) = decoder.next_message().map_err(invalid)? {
        return Ok(message);
    }
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut body)?;
    decoder.push(&body);
    decoder.next_message().map_err(invalid)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_message_is_left_alone() {
        let mut wire = encode(&ToSupervisor::Signal(7)).unwrap();
        wire.extend(encode(&ToSupervisor::Stop).unwrap());
        let mut wire = wire.as_slice();
        let mut read = || read_message::<ToSupervisor>(&mut wire, 100);
        assert_eq!(read().unwrap(), ToSupervisor::Signal(7));
        assert_eq!(read().unwrap(), ToSupervisor::Stop);
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_cut_or_oversized_message_is_an_error() {
        let wire = encode(&ToSupervisor::Kill).unwrap();
        let read = |mut wire: &[u8]| read_message::<ToSupervisor>(&mut wire, 100).unwrap_err().kind();
        assert_eq!(read(&wire[..wire.len() - 1]), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&101u32.to_le_bytes()), io::ErrorKind::InvalidData);
        assert_eq!(read(&0u32.to_le_bytes()), io::ErrorKind::InvalidData);
    }

    #[test]
    fn messages_survive_any_cutting() {
        let messages = [FromSupervisor::Ready, FromSupervisor::PodExited { status: ExitStatus::Signal(9) }];
        let wire: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
        for piece in 1..wire.len() {
            let mut decoder = Decoder::new(MAX_FROM_SUPERVISOR_BYTES);
            let mut received = Vec::new();
            for bytes in wire.chunks(piece) {
                decoder.push(bytes);
                while let Some(message) = decoder.next_message::<FromSupervisor>().unwrap() {
                    received.push(message);
                }
            }
            assert_eq!(received, messages);
        }
    }

    #[test]
    fn what_was_taken_is_let_go_with_the_next_piece() {
        let piece = [encode(&FromSupervisor::Ready).unwrap(), vec![5]].concat();
        let mut decoder = Decoder::new(100);
        let mut take = |bytes: &[u8]| {
            decoder.push(bytes);
            let messages = std::iter::from_fn(|| decoder.next_message::<FromSupervisor>().unwrap()).count();
            (messages, decoder.bytes.len())
        };
        assert_eq!(take(&piece), (1, piece.len()));
        // The byte that was left begins a length.
        assert_eq!(take(&[0, 0, 0]), (0, 4));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_arrives() {
        let mut decoder = Decoder::new(100);
        decoder.push(&101u32.to_le_bytes());
        assert!(matches!(
            decoder.next_message::<FromSupervisor>(),
            Err(Error::MessageTooLarge { bytes: 101, limit: 100 })
        ));
    }

    #[test]
    fn hellos() {
        let hello = StreamHello { app: 258, stream: Stream::Stderr };
        assert_eq!(StreamHello::decode(hello.encode()).unwrap(), hello);
        assert!(StreamHello::decode([0, 0, 3, 0]).is_err());
    }

    #[test]
    fn status_codes() {
        assert_eq!(ExitStatus::Code(42).code(), 42);
        assert_eq!(ExitStatus::Signal(9).code(), 137);
    }
}
