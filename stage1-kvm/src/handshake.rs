//! The guest's way in: its first control connection, then exactly the stream connections that the plan has. Once they
//! are there the doors are closed for good, before any app runs.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pod::control::{
    self, CONTROL_PORT, FromSupervisor, MAX_FROM_SUPERVISOR_BYTES, STREAM_PORT, StreamHello, ToSupervisor,
};
use pod::plan::Plan;
use vmm::virtio::vsock::HostEnds;

/// How long a guest may take to say Ready, and again to connect its streams. Honest guests take a fraction of a second;
/// this is for one that hangs, and long enough for a host that emulates its processor and is loaded. One under a debugger has a day.
pub const PATIENCE: Duration = Duration::from_secs(if cfg!(feature = "gdb") { 86_400 } else { 120 });
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

/// Where the guest's connections arrive: there are as many as it is to make, and no more can be made.
pub struct Doors {
    control: UnixStream,
    streams: Vec<UnixStream>,
}

/// The machine's ends of the connections.
pub struct Ends {
    control: UnixStream,
    streams: Vec<UnixStream>,
}

/// A guest that has its plan.
#[derive(Debug)]
pub struct Guest {
    /// Its control connection.
    pub control: OwnedFd,
    /// Its streams; some are missing if it has something to tell instead.
    pub streams: Vec<(StreamHello, OwnedFd)>,
}

/// The doors for a pod with `plan`, and what is behind them.
pub fn doors(plan: &Plan) -> io::Result<(Doors, Ends)> {
    let (control, control_end) = UnixStream::pair()?;
    let pairs = expected(plan).iter().map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    let (streams, stream_ends) = pairs.into_iter().unzip();
    Ok((Doors { control, streams }, Ends { control: control_end, streams: stream_ends }))
}

impl Ends {
    /// Their descriptors.
    pub fn descriptors(&self) -> Vec<RawFd> {
        std::iter::once(&self.control).chain(&self.streams).map(AsRawFd::as_raw_fd).collect()
    }

    /// What the machine's socket device takes them from, by port.
    pub fn into_ports(self) -> Vec<(u32, HostEnds)> {
        vec![(CONTROL_PORT, supply(vec![self.control])), (STREAM_PORT, supply(self.streams))]
    }
}

fn supply(ends: Vec<UnixStream>) -> HostEnds {
    let ends = Mutex::new(ends.into_iter());
    Arc::new(move || ends.lock().ok()?.next())
}

impl Doors {
    /// Waits for the guest and gives it the plan. `interrupted` tells whether the pod is to end.
    pub fn welcome(self, plan: &Plan, interrupted: &dyn Fn() -> bool) -> Result<Guest, Refusal> {
        let Self { control: mut connection, streams } = self;
        let waiting = Waiting::new("said Ready", interrupted);
        match waiting.read_message(&connection)? {
            FromSupervisor::Ready => {}
            _ => return Err(Refusal::Protocol("its first message is not Ready".into())),
        }
        let start = control::encode(&ToSupervisor::Start(Box::new(plan.clone())))
            .map_err(|error| Refusal::Protocol(error.to_string()))?;
        connection.write_all(&start).map_err(|_| Refusal::Gone)?;
        let streams = collect(streams, plan, &connection, interrupted)?;
        Ok(Guest { control: connection.into(), streams })
    }
}

/// The streams of `plan`; fewer only if the guest has something to say first, which can only be that it failed.
fn collect(
    mut connections: Vec<UnixStream>,
    plan: &Plan,
    control: &UnixStream,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<(StreamHello, OwnedFd)>, Refusal> {
    let waiting = Waiting::new("connected its apps' streams", interrupted);
    let mut expected = expected(plan);
    let mut streams = Vec::with_capacity(expected.len());
    while !expected.is_empty() {
        let Some(index) = waiting.first_readable(&connections, control)? else { break };
        let connection = connections.remove(index);
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

    /// Which of `connections` is readable; `None` if only `control` is.
    fn first_readable(
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
    use std::sync::mpsc::channel;
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
    struct Outside(Vec<(u32, HostEnds)>);

    impl Outside {
        fn connect(&self, port: u32) -> UnixStream {
            let (_, ends) = self.0.iter().find(|(number, _)| *number == port).unwrap();
            ends().unwrap()
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
        let (doors, ends) = doors(&plan()).unwrap();
        let (done, end) = channel::<()>();
        let thread = thread::spawn(move || {
            let outside = Outside(ends.into_ports());
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
        let (doors, ends) = doors(&plan()).unwrap();
        drop(ends);
        assert!(matches!(doors.welcome(&plan(), &|| false), Err(Refusal::Gone)));
        let result = welcome(|outside| drop(outside.connect(CONTROL_PORT)));
        assert!(matches!(result, Err(Refusal::Gone)), "{result:?}");
    }

    #[test]
    fn a_wait_can_be_interrupted() {
        let (silent, _ends) = doors(&plan()).unwrap();
        assert!(matches!(silent.welcome(&plan(), &|| true), Err(Refusal::Interrupted)));
        let (doors, ends) = doors(&plan()).unwrap();
        let _connection = Outside(ends.into_ports()).connect(CONTROL_PORT);
        assert!(matches!(doors.welcome(&plan(), &|| true), Err(Refusal::Interrupted)));
    }
}
