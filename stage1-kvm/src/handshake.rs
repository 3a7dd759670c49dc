//! The guest's way in: its first control connection, then exactly the stream connections that the plan has. Once they
//! are there the doors are closed for good, before any app runs.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use pod::control::{self, CONTROL_PORT, FromSupervisor, STREAM_PORT, StreamHello, ToSupervisor};
use pod::plan::Plan;
use vmm::virtio::vsock::HostEnds;

use crate::waiting::{Refusal, Waiting};

/// Where the guest's connections arrive: there are as many as it is to make, and no more can be made.
pub struct Doors {
    control: UnixStream,
    streams: Vec<UnixStream>,
    expected: Vec<StreamHello>,
}

/// The machine's ends of the connections.
pub struct Ends {
    control: UnixStream,
    streams: Vec<UnixStream>,
}

/// A guest that has its order.
#[derive(Debug)]
pub struct Guest {
    /// Its control connection.
    pub control: OwnedFd,
    /// Its streams; some are missing if it has something to tell instead.
    pub streams: Vec<(StreamHello, OwnedFd)>,
}

/// The doors for a guest with these streams, and what is behind them.
pub fn doors(expected: Vec<StreamHello>) -> io::Result<(Doors, Ends)> {
    let (control, control_end) = UnixStream::pair()?;
    let pairs = expected.iter().map(|_| UnixStream::pair()).collect::<io::Result<Vec<_>>>()?;
    let (streams, stream_ends) = pairs.into_iter().unzip();
    Ok((Doors { control, streams, expected }, Ends { control: control_end, streams: stream_ends }))
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
    /// Waits for the guest and gives it its order. `interrupted` tells whether the pod is to end.
    pub fn welcome(self, order: &ToSupervisor, interrupted: &dyn Fn() -> bool) -> Result<Guest, Refusal> {
        let Self { control: mut connection, streams, expected } = self;
        let waiting = Waiting::new("said Ready", interrupted);
        match waiting.read_message(&connection)? {
            FromSupervisor::Ready => {}
            _ => return Err(Refusal::Protocol("its first message is not Ready".into())),
        }
        let order = control::encode(order).map_err(|error| Refusal::Protocol(error.to_string()))?;
        connection.write_all(&order).map_err(|_| Refusal::Gone)?;
        let streams = collect(streams, expected, &connection, interrupted)?;
        Ok(Guest { control: connection.into(), streams })
    }
}

/// The `expected` streams; fewer only if the guest has something to say first, which can only be that it failed.
fn collect(
    mut connections: Vec<UnixStream>,
    mut expected: Vec<StreamHello>,
    control: &UnixStream,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<(StreamHello, OwnedFd)>, Refusal> {
    let waiting = Waiting::new("connected its apps' streams", interrupted);
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
pub fn streams_of(plan: &Plan) -> Vec<StreamHello> {
    let apps = (0..=u16::MAX).zip(&plan.apps);
    apps.flat_map(|(app, plan)| plan.stdio.streams().iter().map(move |&stream| StreamHello { app, stream }))
        .collect()
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

    fn order() -> ToSupervisor {
        ToSupervisor::Start(Box::new(plan()))
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
            assert_eq!(start, order());
            control
        }
    }

    /// Lets `guest` in, which keeps what it returns open.
    fn welcome<T: Send + 'static>(
        guest: impl FnOnce(&Outside) -> T + Send + 'static,
    ) -> Result<Guest, Refusal> {
        let (doors, ends) = doors(streams_of(&plan())).unwrap();
        let (done, end) = channel::<()>();
        let thread = thread::spawn(move || {
            let outside = Outside(ends.into_ports());
            let open = guest(&outside);
            // Until the host has decided.
            let _ = end.recv();
            drop(open);
        });
        let result = doors.welcome(&order(), &|| false);
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
        let (doors, ends) = doors(streams_of(&plan())).unwrap();
        drop(ends);
        assert!(matches!(doors.welcome(&order(), &|| false), Err(Refusal::Gone)));
        let result = welcome(|outside| drop(outside.connect(CONTROL_PORT)));
        assert!(matches!(result, Err(Refusal::Gone)), "{result:?}");
    }

    #[test]
    fn a_wait_can_be_interrupted() {
        let (silent, _ends) = doors(streams_of(&plan())).unwrap();
        assert!(matches!(silent.welcome(&order(), &|| true), Err(Refusal::Interrupted)));
        let (doors, ends) = doors(streams_of(&plan())).unwrap();
        let _connection = Outside(ends.into_ports()).connect(CONTROL_PORT);
        assert!(matches!(doors.welcome(&order(), &|| true), Err(Refusal::Interrupted)));
    }
}
