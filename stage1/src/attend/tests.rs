//! Supervisors good and bad at the other end.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use ::pod::abi::{PodDirectory, RunArguments};
use ::pod::control::{Decoder, MAX_TO_SUPERVISOR_BYTES, Stream, TerminalSize, encode};
use ::pod::plan::AppPlan;
use ::pod::pod_manifest::PodManifest;
use ::pod::session::{Action, Change, FromClient, Session, SessionId, ToClient};
use ::pod::types::AcName;
use nix::sys::eventfd::EventFd;
use tempfile::TempDir;

use super::*;

/// A machine that is no machine: what plays the supervisor gets a connection to the parent.
struct Machine {
    home: TempDir,
    control: UnixListener,
    streams: UnixListener,
    ended: EventFd,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let listen = |name: &str| UnixListener::bind(home.path().join(name)).unwrap();
        let (control, streams) = (listen("control"), listen("streams"));
        Self { home, control, streams, ended: EventFd::new().unwrap() }
    }

    /// Attends to `supervisor`, after whose return the machine has ended, and counts the kills.
    fn attend(
        self,
        supervisor: impl FnOnce(Guest) + Send + 'static,
    ) -> (Result<ExitStatus, Error>, usize, TempDir) {
        let guest =
            Guest { home: self.home.path().to_owned(), decoder: Decoder::new(MAX_TO_SUPERVISOR_BYTES) };
        let ended = OwnedFd::from(self.ended);
        let signal_end = std::fs::File::from(ended.try_clone().unwrap());
        let machine = thread::spawn(move || {
            supervisor(guest);
            (&signal_end).write_all(&1u64.to_ne_bytes()).unwrap();
        });
        let arguments = RunArguments::parse(["00000000-0000-0000-0000-000000000007".to_owned()]).unwrap();
        let manifest = PodManifest::new(Vec::new());
        let pod = Pod {
            directory: PodDirectory::new(self.home.path()),
            arguments,
            manifest,
            resolv_conf: None,
            hosts: ::pod::plan::Hosts { content: String::new(), replace: false },
            metadata: None,
            metadata_url: None,
            network_namespace: None,
        };
        let entrance = Entrance::open(&pod.directory).unwrap();
        let mut kills = 0;
        let connection = Connection {
            control: Control::Expected(self.control),
            streams: Streams::Expected(self.streams),
            ended,
            kill: &mut || kills += 1,
            entrance,
            door: Box::new(pipes),
            site: None,
            alarm: None,
            oom_kills: &|_| None,
            clock: None,
        };
        let signals = Signals::block().unwrap();
        let result = attend(&pod, &plan(), connection, &signals, None, &mut Timeline::default());
        machine.join().unwrap();
        (result, kills, self.home)
    }
}

/// Streams whose other ends are closed.
fn pipes(_: SessionId, streams: &[Stream]) -> nix::Result<Vec<OwnedFd>> {
    streams.iter().map(|_| nix::unistd::pipe().map(|(read, _)| read)).collect()
}

fn plan() -> Plan {
    let json = r#"{"name":"web","setup":[],"process":{"exec":["x"],"user":"0","group":"0","supplementary_gids":[],
        "working_directory":"/","environment":[],"capabilities":0,"no_new_privileges":false,"oom_score_adj":null,"rlimits":[],"filter":null},
        "pre_start":null,"post_stop":null,"stdio":{"streams":["stdin","stdout","stderr"]},"cgroup":null}"#;
    let app: AppPlan = serde_json::from_str(json).unwrap();
    Plan {
        outside: Vec::new(),
        setup: Vec::new(),
        apps: vec![app],
        network: Default::default(),
        grace_period_ms: 0,
        exit_policy: Default::default(),
        mutable: false,
        cgroup: Vec::new(),
    }
}

struct Guest {
    home: std::path::PathBuf,
    decoder: Decoder,
}

impl Guest {
    fn connect(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.home.join(name)).unwrap()
    }

    fn hear(&mut self, control: &mut UnixStream) -> ToSupervisor {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let mut bytes = [0; 100];
            let count = control.read(&mut bytes).unwrap();
            assert!(count > 0, "the parent has gone");
            self.decoder.push(&bytes[..count]);
        }
    }
}

fn say(control: &mut UnixStream, message: &FromSupervisor) {
    control.write_all(&encode(message).unwrap()).unwrap();
}

#[test]
fn a_pod_from_its_plan_to_its_end() {
    let (result, kills, home) = Machine::new().attend(|mut guest| {
        let mut control = guest.connect("control");
        say(&mut control, &FromSupervisor::Ready);
        assert_eq!(guest.hear(&mut control), ToSupervisor::Start(Box::new(plan())));
        let app: AcName = "web".parse().unwrap();
        say(&mut control, &FromSupervisor::Started { app: app.clone() });
        say(&mut control, &FromSupervisor::Exited { app, status: ExitStatus::Code(3) });
        // An app that the pod does not have is not written anywhere.
        let other = "other".parse().unwrap();
        say(&mut control, &FromSupervisor::Exited { app: other, status: ExitStatus::Code(4) });
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::Code(3) });
        assert_eq!(control.read(&mut [0]).unwrap(), 0, "the parent says goodbye");
    });
    assert_eq!((result.unwrap(), kills), (ExitStatus::Code(3), 0));
    let statuses = std::fs::read_dir(home.path().join("stage1/rootfs/rkt/status")).unwrap();
    let names: Vec<_> = statuses.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["web"]);
}

#[test]
fn a_supervisor_that_leaves_without_a_word() {
    let (result, kills, _home) = Machine::new().attend(|guest| drop(guest.connect("control")));
    assert!(matches!(result, Err(Error::SupervisorGone)));
    assert!(kills <= 1, "{kills}");
}

#[test]
fn a_machine_that_never_calls() {
    let (result, kills, _home) = Machine::new().attend(drop);
    assert!(matches!(result, Err(Error::SupervisorGone)));
    assert_eq!(kills, 0, "it has ended by itself");
}

#[test]
fn nonsense_ends_the_pod() {
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0{]", b"\0\0\0\0"] {
        let (result, kills, _home) = Machine::new().attend(move |guest| {
            let mut control = guest.connect("control");
            control.write_all(nonsense).unwrap();
            assert_eq!(control.read(&mut [0]).unwrap_or(0), 0, "the parent hangs up");
        });
        assert!(matches!(result, Err(Error::SupervisorGone)));
        assert_eq!(kills, 1);
    }
}

#[test]
fn streams_that_the_plan_does_not_have_are_closed() {
    let (result, _, _home) = Machine::new().attend(|mut guest| {
        let mut control = guest.connect("control");
        say(&mut control, &FromSupervisor::Ready);
        guest.hear(&mut control);
        for hello in [[7, 0, 1, 0], [0, 0, 9, 0], [0, 0, 1, 1]] {
            let mut stream = guest.connect("streams");
            stream.write_all(&hello).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{hello:?}");
        }
        let mut first = guest.connect("streams");
        first.write_all(&[0, 0, 2, 0]).unwrap();
        let mut again = guest.connect("streams");
        again.write_all(&[0, 0, 2, 0]).unwrap();
        assert_eq!(again.read(&mut [0]).unwrap_or(0), 0, "each stream is carried once");
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::SUCCESS });
    });
    assert_eq!(result.unwrap(), ExitStatus::SUCCESS);
}

/// A client of `rkt enter`.
struct Client(OwnedFd);

impl Client {
    fn begin(home: &std::path::Path, app: &str) -> Self {
        let path = PodDirectory::new(home).entrance();
        let client = Self(crate::entrance::connect_to(&path, nix::sys::socket::SockType::SeqPacket).unwrap());
        client.say(&FromClient::Begin(session(app)));
        client
    }

    fn say(&self, message: &FromClient) {
        match relay::packets::send(&self.0, &::pod::session::encode(message).unwrap(), &[]) {
            // Refused already.
            Ok(()) | Err(Errno::EPIPE) => {}
            Err(errno) => panic!("{errno}"),
        }
    }

    /// The next message, with the number of descriptors that came along; `None` at the end.
    fn hear(&self) -> Option<(ToClient, usize)> {
        let mut set = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut set, 10_000u16).unwrap(), 1, "nothing is heard");
        let packet = match relay::packets::receive(&self.0, 1 << 20) {
            // Not everything that was said has been heard.
            Err(Errno::ECONNRESET) => relay::packets::receive(&self.0, 1 << 20),
            other => other,
        };
        let packet = packet.unwrap()?;
        Some((::pod::session::decode(&packet.bytes).unwrap(), packet.descriptors.len()))
    }

    fn refusal(&self) -> String {
        match self.hear() {
            Some((ToClient::Failed(causes), 0)) => causes.join(": "),
            other => panic!("{other:?}"),
        }
    }
}

fn session(app: &str) -> Session {
    Session { app: app.parse().unwrap(), command: vec!["ls".into()], privileged: false, terminal: None }
}

fn ready(guest: &mut Guest) -> UnixStream {
    let mut control = guest.connect("control");
    say(&mut control, &FromSupervisor::Ready);
    guest.hear(&mut control);
    control
}

#[test]
fn sessions_from_their_beginning_to_their_end() {
    let (result, ..) = Machine::new().attend(|mut guest| {
        let mut control = ready(&mut guest);
        let app = || "web".parse::<AcName>().unwrap();
        let early = Client::begin(&guest.home, "web");
        assert!(Client::begin(&guest.home, "other").refusal().contains("no app \"other\""));
        say(&mut control, &FromSupervisor::Started { app: app() });
        // Who asked before the app had started gets what he asked for.
        let request = Box::new(session("web"));
        assert_eq!(guest.hear(&mut control), ToSupervisor::Enter { session: 0, request: request.clone() });
        assert_eq!(early.hear(), Some((ToClient::Connected, 3)));
        let late = Client::begin(&guest.home, "web");
        assert_eq!(guest.hear(&mut control), ToSupervisor::Enter { session: 1, request });
        assert_eq!(late.hear(), Some((ToClient::Connected, 3)));
        let size = TerminalSize { rows: 3, columns: 4 };
        late.say(&FromClient::Resize(size));
        assert_eq!(guest.hear(&mut control), ToSupervisor::ResizeSession { session: 1, size });
        // What the supervisor says of sessions that are none is nothing.
        say(&mut control, &FromSupervisor::SessionExited { session: 9, status: ExitStatus::SUCCESS });
        say(&mut control, &FromSupervisor::SessionExited { session: 0, status: ExitStatus::Code(4) });
        assert_eq!(early.hear(), Some((ToClient::Exited(ExitStatus::Code(4)), 0)));
        drop(early);
        drop(late);
        assert_eq!(guest.hear(&mut control), ToSupervisor::Hangup { session: 1 });
        // Its number is not free before the supervisor has done with it.
        let next = Client::begin(&guest.home, "web");
        let request = Box::new(session("web"));
        assert_eq!(guest.hear(&mut control), ToSupervisor::Enter { session: 0, request });
        assert_eq!(next.hear(), Some((ToClient::Connected, 3)));
        say(&mut control, &FromSupervisor::SessionExited { session: 1, status: ExitStatus::Signal(1) });
        say(&mut control, &FromSupervisor::SessionExited { session: 0, status: ExitStatus::SUCCESS });
        assert_eq!(next.hear(), Some((ToClient::Exited(ExitStatus::SUCCESS), 0)));
        say(&mut control, &FromSupervisor::Exited { app: app(), status: ExitStatus::SUCCESS });
        let after = Client::begin(&guest.home, "web");
        assert!(after.refusal().contains("has ended"));
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::SUCCESS });
    });
    assert_eq!(result.unwrap(), ExitStatus::SUCCESS);
}

#[test]
fn changes_from_their_beginning_to_their_end() {
    let (result, _, home) = Machine::new().attend(|mut guest| {
        let mut control = ready(&mut guest);
        let directory = PodDirectory::new(&guest.home);
        let app = || "web".parse::<AcName>().unwrap();
        let status = || directory.status(&app());
        let begin = |app: &str, action| {
            let path = directory.entrance();
            let client =
                Client(crate::entrance::connect_to(&path, nix::sys::socket::SockType::SeqPacket).unwrap());
            client.say(&FromClient::Change(Change { app: app.parse().unwrap(), action }));
            client
        };
        say(&mut control, &FromSupervisor::Started { app: app() });
        assert!(begin("other", Action::Stop).refusal().contains("no app \"other\""));
        let stopping = begin("web", Action::Stop);
        let told = |session, run| ToSupervisor::Change { session, app: app(), run };
        assert_eq!(guest.hear(&mut control), told(0, false));
        say(&mut control, &FromSupervisor::Exited { app: app(), status: ExitStatus::Signal(15) });
        say(&mut control, &FromSupervisor::SessionExited { session: 0, status: ExitStatus::SUCCESS });
        assert_eq!(stopping.hear(), Some((ToClient::Exited(ExitStatus::SUCCESS), 0)));
        assert_eq!(std::fs::read_to_string(status()).unwrap(), "143");
        // It is made all the same if the client goes; the number is free only then.
        drop(stopping);
        drop(begin("web", Action::Start));
        assert_eq!(guest.hear(&mut control), told(0, true));
        let other = begin("web", Action::Start);
        assert_eq!(guest.hear(&mut control), told(1, true));
        say(&mut control, &FromSupervisor::Restarting { app: app(), restarts: 2 });
        say(&mut control, &FromSupervisor::SessionExited { session: 0, status: ExitStatus::SUCCESS });
        let causes = vec!["no".to_owned()];
        say(&mut control, &FromSupervisor::SessionFailed { session: 1, causes: causes.clone() });
        assert_eq!(other.hear(), Some((ToClient::Failed(causes), 0)));
        assert!(!status().exists(), "it has not ended any more");
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::SUCCESS });
    });
    assert_eq!(result.unwrap(), ExitStatus::SUCCESS);
    let restarts = PodDirectory::new(home.path()).restarts(&"web".parse().unwrap());
    assert_eq!(std::fs::read_to_string(restarts).unwrap(), "2");
}

#[test]
fn sessions_are_counted_and_end_with_the_pod() {
    let begin = Instant::now();
    let (result, ..) = Machine::new().attend(|mut guest| {
        let mut control = ready(&mut guest);
        say(&mut control, &FromSupervisor::Started { app: "web".parse().unwrap() });
        let clients: Vec<_> = (0..::pod::session::MAX_SESSIONS)
            .map(|_| {
                let client = Client::begin(&guest.home, "web");
                assert_eq!(client.hear(), Some((ToClient::Connected, 3)));
                client
            })
            .collect();
        assert!(Client::begin(&guest.home, "web").refusal().contains("16 sessions"));
        say(&mut control, &FromSupervisor::SessionExited { session: 3, status: ExitStatus::Signal(9) });
        assert_eq!(clients[3].hear(), Some((ToClient::Exited(ExitStatus::Signal(9)), 0)));
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::SUCCESS });
        assert_eq!(clients[0].hear(), None, "the pod has ended");
        // One that does not take its last output does not keep the pod.
        std::mem::forget(clients);
    });
    assert_eq!(result.unwrap(), ExitStatus::SUCCESS);
    assert!(begin.elapsed().as_secs() < 20);
}

#[test]
fn clients_that_speak_nonsense_are_let_go() {
    let (result, ..) = Machine::new().attend(|mut guest| {
        let mut control = ready(&mut guest);
        let path = PodDirectory::new(&guest.home).entrance();
        let connect = || crate::entrance::connect_to(&path, nix::sys::socket::SockType::SeqPacket).unwrap();
        for nonsense in [b"{".to_vec(), vec![b' '; 100_000], br#"{"resize":{"rows":1,"columns":1}}"#.to_vec()]
        {
            let client = Client(connect());
            relay::packets::send(&client.0, &nonsense, &[]).unwrap();
            assert_eq!(client.hear(), None);
        }
        say(&mut control, &FromSupervisor::PodExited { status: ExitStatus::SUCCESS });
    });
    assert_eq!(result.unwrap(), ExitStatus::SUCCESS);
}
