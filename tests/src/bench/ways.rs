//! What goes through a network from one end to the other. All ways are measured in turn, so that what changes with time is the same for
//! all. Nothing is repeated: where something may stand still (`patience`), that is the end of it.

use std::fs;
use std::net::Ipv4Addr;

use crate::bridge::{FREE, LIMITED, address_of};
use crate::ends::{End, enter, idle_pod, shell};
use crate::firecracker::Guest;
use crate::measure::Summary;
use crate::patience::run_for_a_while;
use crate::sleeping::SleepingPod;
use crate::{Bench, Error, tell, tools};

/// The servers' addresses, the first of them; and those of clients that are not pods.
const FIRST_SERVER: u8 = 101;
const FIRST_CLIENT: u8 = 151;

/// From one end to the other.
#[derive(Clone, Debug)]
pub struct Way {
    /// Which ends.
    pub name: &'static str,
    /// MiB a second of one stream.
    pub stream: Vec<f64>,
    /// The microseconds of a byte there and back.
    pub round_trip: Vec<f64>,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Each stream.
    pub stream_mib: u32,
    /// After a round to warm up.
    pub rounds: usize,
}

/// Measures ways, each with its name and ends, and has `note` take what there is after each round. It ends before its time if something
/// stands still.
pub fn measure(
    bench: &Bench,
    ways: &[(&'static str, End, End)],
    amount: Amount,
    mut note: impl FnMut(&[Way]) -> Result<(), Error>,
) -> Result<Vec<Way>, Error> {
    let lines = ways.iter().zip(0..).map(|(way, number)| Line::new(bench, way, number));
    let mut lines = lines.collect::<Result<Vec<_>, Error>>()?;
    for round in 0..=amount.rounds {
        for line in &mut lines {
            let Some((stream, round_trip)) = line.ask(bench, amount)? else {
                tell(line.way.name, "stands still");
                return Ok(lines.into_iter().map(|line| line.way).collect());
            };
            tell(line.way.name, &format!("{stream:.0} MiB/s, {round_trip:.0} us"));
            // The first round is to warm up.
            if round > 0 {
                line.way.stream.push(stream);
                line.way.round_trip.push(round_trip);
            }
        }
        note(&lines.iter().map(|line| line.way.clone()).collect::<Vec<_>>())?;
    }
    let ways = lines.into_iter().map(Line::end).collect();
    bench.collect_garbage()?;
    ways
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

/// A way with its server and its client.
struct Line {
    way: Way,
    address: Ipv4Addr,
    server: Server,
    client: Client,
}

enum Server {
    Program(SleepingPod),
    Guest(Guest),
}

impl Server {
    fn start(bench: &Bench, end: End, address: Ipv4Addr) -> Result<Self, Error> {
        match shell(bench, end, Some(&address.to_string()), "exec serve") {
            Some(mut command) => SleepingPod::of(&mut command).map(Self::Program),
            None => Guest::start(bench, address).map(Self::Guest),
        }
    }

    fn stop(self) -> Result<(), Error> {
        match self {
            Self::Program(pod) => pod.stop(),
            Self::Guest(mut guest) => guest.stop(),
        }
    }
}

/// Who asks; pods and VMs are there all the time, as their servers are.
enum Client {
    Program(End),
    Pod { pod: SleepingPod, uuid: String },
    Guest(Guest),
}

impl Client {
    fn start(bench: &Bench, end: End, number: u8) -> Result<Self, Error> {
        match end {
            End::Host | End::Namespace | End::Limited => Ok(Self::Program(end)),
            End::Pod(isolation) => {
                let file = bench.work.join(format!("client-{number}"));
                let pod = SleepingPod::of(&mut idle_pod(bench, isolation, &file))?;
                Ok(Self::Pod { pod, uuid: fs::read_to_string(file)?.trim().to_owned() })
            }
            End::Firecracker => Guest::start(bench, address(FIRST_CLIENT + number)).map(Self::Guest),
        }
    }

    /// What a shell prints there that gets this line; nothing, if it stands still.
    fn told(&self, bench: &Bench, line: &str) -> Result<Option<String>, Error> {
        let mut command = match self {
            Self::Program(end) => shell(bench, *end, None, line).ok_or("no shell to ask with")?,
            Self::Pod { uuid, .. } => enter(bench, uuid, line),
            Self::Guest(guest) => return guest.run(line),
        };
        let output = run_for_a_while(&mut command)?;
        Ok(output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn stop(self) -> Result<(), Error> {
        match self {
            Self::Program(_) => Ok(()),
            Self::Pod { pod, .. } => pod.stop(),
            Self::Guest(mut guest) => guest.stop(),
        }
    }
}

impl Line {
    fn new(bench: &Bench, &(name, from, to): &(&'static str, End, End), number: u8) -> Result<Self, Error> {
        let address = match to {
            End::Namespace => address_of(FREE)?.parse()?,
            End::Limited => address_of(LIMITED)?.parse()?,
            End::Host | End::Pod(_) | End::Firecracker => address(FIRST_SERVER + number),
        };
        tell(name, &format!("a server at {address}"));
        let server = Server::start(bench, to, address)?;
        let client = Client::start(bench, from, number)?;
        Ok(Self { way: Way::new(name), address, server, client })
    }

    /// A stream and a round trip; nothing, if it stands still.
    fn ask(&self, bench: &Bench, amount: Amount) -> Result<Option<(f64, f64)>, Error> {
        let server = self.address.to_string();
        let ask = |line: &str| self.client.told(bench, line);
        let Some(stream) = ask(&tools::stream(&server, amount.stream_mib))? else { return Ok(None) };
        let Some(round_trip) = ask(&tools::round_trip(&server))? else { return Ok(None) };
        Ok(Some((tools::stream_mib_a_second(&stream)?, tools::round_trip_us(&round_trip)?)))
    }

    fn end(self) -> Result<Way, Error> {
        self.server.stop()?;
        self.client.stop()?;
        Ok(self.way)
    }
}

impl Way {
    /// One of which nothing is known yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, stream: Vec::new(), round_trip: Vec::new() }
    }

    /// This way's streams and round trips in units of those of another, round by round.
    pub fn of(&self, other: &Self) -> [Option<Summary>; 2] {
        let columns = [(&self.stream, &other.stream), (&self.round_trip, &other.round_trip)];
        columns.map(|(ours, theirs)| {
            let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            Summary::of(&ratios)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_compared_round_by_round() {
        let ours = Way { name: "ours", stream: vec![300.0, 500.0], round_trip: vec![40.0, 90.0] };
        let theirs = Way { name: "theirs", stream: vec![100.0, 100.0], round_trip: vec![40.0, 30.0] };
        let [stream, round_trip] = ours.of(&theirs);
        assert_eq!(stream, Some(Summary { median: 3.0, min: 3.0, max: 5.0 }));
        assert_eq!(round_trip, Some(Summary { median: 1.0, min: 1.0, max: 3.0 }));
    }
}
