//! Sessions: commands that run in an app beside the app's own process, with everything that confines that (`rkt enter`).
//!
//! A client connects to the socket in the pod's directory ([`crate::abi::PodDirectory::entrance`]), where the pod's
//! parent listens, and says [`FromClient::Begin`]. The parent makes the streams' connections, hands the client's ends
//! over with [`ToClient::Connected`], and asks the supervisor for the process. One JSON message a packet
//! (SOCK_SEQPACKET), so that none has to be put together. A client that closes its connection ends its session.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::control::{ExitStatus, Stream, TerminalSize};
use crate::image_manifest::EnvironmentVariable;
use crate::plan::{Process, Stdio};
use crate::statistics::{Measurement, Subject};
use crate::types::AcName;

/// The most sessions that a pod has at a time.
pub const MAX_SESSIONS: usize = 16;
/// The largest packet between client and parent; a command has to fit.
pub const MAX_PACKET_BYTES: usize = 64 << 10;
/// The vsock port of the guest to which the host connects each stream of a session; the connection begins with a
/// [`crate::control::StreamHello`] that has the session's number for an app's.
pub const SESSION_PORT: u32 = 1026;

/// A session's number among those of its pod; one that has ended gives its number free.
pub type SessionId = u16;

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// In which app.
    pub app: AcName,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// As root, with nothing that confines the app: only in its namespaces, its root and its cgroups.
    #[serde(default)]
    pub privileged: bool,
    /// On a terminal; with streams otherwise.
    pub terminal: Option<SessionTerminal>,
}

/// What is to become of an app of the pod. Like a session it has a number, and the same last messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which app.
    pub app: AcName,
    /// What.
    pub action: Action,
}

/// What can become of an app; what it is already is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It runs again.
    Start,
    /// It is asked to end, killed when its time is over, and not started again; all that it has started ends with it.
    Stop,
    /// It comes into the pod, and does not run yet ([`crate::abi::PodDirectory::addition`] says what it is).
    Add,
    /// It is stopped, and leaves the pod with all that it has written.
    Remove,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Add, Self::Remove];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Add => "add",
            Self::Remove => "rm",
        })
    }
}

impl FromStr for Action {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|action| action.to_string() == text);
        found.ok_or_else(|| Error::syntax(text, "a change of an app"))
    }
}

/// The caller's terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerminal {
    /// Its size.
    pub size: TerminalSize,
    /// What it is, by the caller's TERM.
    pub term: Option<String>,
}

impl Session {
    /// The streams that are carried.
    pub fn streams(&self) -> &'static [Stream] {
        session_streams(self.terminal.is_some())
    }

    /// The process of this session, where the app's is `app`.
    pub fn process(&self, app: &Process) -> Process {
        let app = if self.privileged { app.privileged() } else { app.clone() };
        let mut process = Process { exec: self.command.clone(), ..app };
        if let Some(term) = self.terminal.as_ref().and_then(|terminal| terminal.term.clone()) {
            process.environment.retain(|variable| variable.name != "TERM");
            process.environment.push(EnvironmentVariable { name: "TERM".into(), value: term });
        }
        process
    }
}

/// The streams that a session's connections carry.
pub fn session_streams(terminal: bool) -> &'static [Stream] {
    if terminal { &Stdio::OF_TERMINAL } else { &Stdio::THREE }
}

/// The one stream of a connection that is forwarded, for both directions.
pub const CONNECTION: [Stream; 1] = Stdio::OF_TERMINAL;

/// What a client attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The app.
    pub app: AcName,
    /// Those of its [`crate::streams::StreamModes::endpoints`] that are wanted.
    pub streams: Vec<Stream>,
}

/// From a client to the pod's parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromClient {
    /// The first message, once.
    Begin(Session),
    /// The first message instead, once.
    Change(Change),
    /// Instead of [`Self::Begin`]: attach to streams of an app's own process. The parent answers with the client's ends,
    /// in the order of [`Stream`], and tells how the app has ended when it has.
    Attach(Attach),
    /// The first message instead, once: what an app or the guest uses.
    Measure(Subject),
    /// The first message instead, once: a connection to a port of the pod's own loopback. The parent answers with the
    /// client's end, then that it is connected ([`ToClient::Exited`]) or why not; the client keeps this socket as long as
    /// it uses the connection.
    Connect(NonZeroU16),
    /// The caller's terminal has changed its size.
    Resize(TerminalSize),
}

/// From the pod's parent to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToClient {
    /// With the client's end of each of [`Session::streams`], of [`Attach::streams`], or of [`CONNECTION`], in that order.
    Connected,
    /// There is no such process, change or connection: the chain of causes, outermost first. The last message.
    Failed(Vec<String>),
    /// The process has ended, and its output may still be on the way; or the change or the connection is made, with success.
    /// The last message.
    Exited(ExitStatus),
    /// The answer to [`FromClient::Measure`]. The last message.
    Measured(Measurement),
}

/// A packet of this message.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let packet =
        serde_json::to_vec(message).map_err(|source| Error::Json { what: "session message", source })?;
    match packet.len() {
        bytes if bytes > MAX_PACKET_BYTES => Err(Error::MessageTooLarge { bytes, limit: MAX_PACKET_BYTES }),
        _ => Ok(packet),
    }
}

/// The message of a packet.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(packet).map_err(|source| Error::Json { what: "session message", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::CapabilitySet;

    fn app() -> Process {
        let variable =
            |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
        Process {
            exec: vec!["/app".into()],
            user: "web".into(),
            group: "34".into(),
            supplementary_gids: vec![7],
            working_directory: "/srv".into(),
            environment: vec![variable("TERM", "dumb"), variable("A", "1")],
            capabilities: CapabilitySet(5),
            no_new_privileges: true,
            apparmor: None,
            selinux: None,
            landlock: None,
            oom_score_adj: Some(3),
            rlimits: vec!["CORE=0".parse().unwrap()],
            filter: None,
        }
    }

    fn session(terminal: Option<SessionTerminal>) -> Session {
        let (app, command) = ("web".parse().unwrap(), vec!["ls".into(), "-l".into()]);
        Session { app, command, privileged: false, terminal }
    }

    #[test]
    fn a_session_is_as_confined_as_its_app() {
        let process = session(None).process(&app());
        assert_eq!(process, Process { exec: vec!["ls".into(), "-l".into()], ..app() });
    }

    #[test]
    fn a_privileged_one_is_roots() {
        let process = Session { privileged: true, ..session(None) }.process(&app());
        let app = app();
        assert_eq!((process.user.as_str(), process.group.as_str()), ("0", "0"));
        assert_eq!(process.capabilities, CapabilitySet::ALL);
        assert!(
            !process.no_new_privileges && process.rlimits.is_empty() && process.supplementary_gids.is_empty()
        );
        assert_eq!(
            (process.environment, process.working_directory),
            (app.environment, app.working_directory)
        );
    }

    #[test]
    fn a_terminal_brings_its_kind_along() {
        let terminal = SessionTerminal { size: TerminalSize::default(), term: Some("xterm".into()) };
        let process = session(Some(terminal.clone())).process(&app());
        let terms = process.environment.iter().filter(|variable| variable.name == "TERM");
        assert_eq!(terms.map(|term| term.value.as_str()).collect::<Vec<_>>(), ["xterm"]);
        let unknown = session(Some(SessionTerminal { term: None, ..terminal }));
        assert_eq!(unknown.process(&app()).environment, app().environment);
        assert_eq!((unknown.streams().len(), session(None).streams().len()), (1, 3));
    }

    #[test]
    fn packets() {
        for message in [FromClient::Begin(session(None)), FromClient::Connect(NonZeroU16::MIN)] {
            assert_eq!(decode::<FromClient>(&encode(&message).unwrap()).unwrap(), message);
        }
        for bad in [&b"{}"[..], b"{\"connect\":0}", b"{\"connect\":65536}"] {
            assert!(decode::<FromClient>(bad).is_err());
        }
        let long = Session { command: vec!["x".repeat(MAX_PACKET_BYTES)], ..session(None) };
        assert!(matches!(encode(&FromClient::Begin(long)), Err(Error::MessageTooLarge { .. })));
    }
}
