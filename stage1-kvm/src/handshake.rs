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

#[cfg(test)]
mod tests {
    use std::thread;

    use pod::control::Stream;

    use super::*;

    /// A plan of one app with three streams.
    fn plan() -> Plan {
        let json = r#"{"setup": [], "grace_period_ms": 1, "apps": [{"name": "a", "setup": [], "stdio": {"streams": ["stdin", "stdout", "stderr"]},
            "pre_start": null, "post_stop": null, "cgroup": null, "process": {"exec": ["/a"], "user": "0",
            "group": "0", "supplementary_gids": [], "working_directory": "/", "environment": [],
            "capabilities": 0, "no_new_privileges": false, "oom_score_adj": null, "rlimits": [], "filter": null}}]}"#;
        serde_json::from_str(json).unwrap()
    }

    /// The guest's side of the doors.
    struct Outside(Vec<(u32, Sender<UnixStream>)>);

    impl Outside {
        fn connect(&self, port: u32) -> UnixStream {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (_, door) = self.0.iter().find(|(number, _)| *number == port).unwrap();
            door.send(theirs).unwrap();
            ours
        }

        fn stream(&self, app: u16, stream: Stream) -> UnixStream {
            let mut connection = self.connect(STREAM_PORT);
            connection.write_all(&StreamHello { app, stream }.encode()).unwrap();
            connection
        }

        /// A control connection that has said Ready and got the plan.
        fn ready(&self) -> UnixStream {
            let mut control = self.connect(CONTROL_PORT);
            control.write_all(&control::encode(&FromSupervisor::Ready).unwrap()).unwrap();
            let start = control::read_message::<ToSupervisor>(&mut control, 1 << 20).unwrap();
            assert_eq!(start, ToSupervisor::Start(Box::new(plan())));
            control
        }
    }

    /// Lets `guest` in, which keeps what it returns open.
    fn welcome<T: Send + 'static>(
        guest: impl FnOnce(&Outside) -> T + Send + 'static,
    ) -> Result<Guest, Refusal> {
        let (doors, to_host) = doors();
        let (done, end) = channel::<()>();
        let thread = thread::spawn(move || {
            let outside = Outside(to_host);
            let open = guest(&outside);
            // Until the host has decided.
            let _ = end.recv();
            drop(open);
        });
        let result = doors.welcome(&plan(), &|| false);
        drop(done);
        thread.join().unwrap();
        result
    }

    fn protocol_error(result: Result<Guest, Refusal>) -> String {
        match result {
            Err(Refusal::Protocol(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_honest_guest() {
        let guest = welcome(|outside| {
            let control = outside.ready();
            (control, [Stream::Stderr, Stream::Stdin, Stream::Stdout].map(|stream| outside.stream(0, stream)))
        });
        let order: Vec<Stream> = guest.unwrap().streams.iter().map(|(hello, _)| hello.stream).collect();
        assert_eq!(order, [Stream::Stderr, Stream::Stdin, Stream::Stdout]);
    }

    #[test]
    fn one_that_says_something_else_first() {
        for first in [
            control::encode(&FromSupervisor::PodExited { status: pod::control::ExitStatus::SUCCESS })
                .unwrap(),
            u32::MAX.to_le_bytes().to_vec(),
            b"\x02\0\0\0{]".to_vec(),
        ] {
            let result = welcome(move |outside| {
                let mut control = outside.connect(CONTROL_PORT);
                control.write_all(&first).unwrap();
                control
            });
            protocol_error(result);
        }
    }

    #[test]
    fn streams_that_the_plan_has_not_or_has_once() {
        let second = |app, stream| {
            welcome(move |outside| {
                (outside.ready(), outside.stream(0, Stream::Stdout), outside.stream(app, stream))
            })
        };
        protocol_error(second(1, Stream::Stdin));
        protocol_error(second(0, Stream::Stdout));
        let nonsense = welcome(|outside| {
            let control = outside.ready();
            let mut stream = outside.connect(STREAM_PORT);
            stream.write_all(&[0, 0, 9, 0]).unwrap();
            (control, stream)
        });
        protocol_error(nonsense);
    }

    #[test]
    fn one_that_fails_before_its_streams_is_listened_to() {
        let guest = welcome(|outside| {
            let mut control = outside.ready();
            let failed = FromSupervisor::Failed { app: None, causes: vec!["no loopback".into()] };
            control.write_all(&control::encode(&failed).unwrap()).unwrap();
            control
        });
        let guest = guest.unwrap();
        assert!(guest.streams.is_empty());
        let mut control = UnixStream::from(guest.control);
        let message = control::read_message::<FromSupervisor>(&mut control, 1 << 10).unwrap();
        assert!(matches!(message, FromSupervisor::Failed { .. }));
    }

    #[test]
    fn one_that_ends_or_hangs_up() {
        let (doors, to_host) = doors();
        drop(to_host);
        assert!(matches!(doors.welcome(&plan(), &|| false), Err(Refusal::Gone)));
        let result = welcome(|outside| drop(outside.connect(CONTROL_PORT)));
        assert!(matches!(result, Err(Refusal::Gone)), "{result:?}");
    }

    #[test]
    fn a_wait_can_be_interrupted() {
        let (silent, _to_host) = doors();
        assert!(matches!(silent.welcome(&plan(), &|| true), Err(Refusal::Interrupted)));
        let (doors, to_host) = doors();
        let _connection = Outside(to_host).connect(CONTROL_PORT);
        assert!(matches!(doors.welcome(&plan(), &|| true), Err(Refusal::Interrupted)));
    }
}
