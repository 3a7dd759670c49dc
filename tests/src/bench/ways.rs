//! What goes through a network from one end to the other. All ways are measured in turn, so that what changes with time is the same for
//! all.

use std::net::Ipv4Addr;

use crate::bridge::{FREE, LIMITED, address_of};
use crate::ends::{End, shell};
use crate::firecracker::Guest;
use crate::measure::Summary;
use crate::patience::{REPEATS, run_for_a_while};
use crate::sleeping::SleepingPod;
use crate::{Bench, Error, tell, tools};

/// The servers' addresses, the first of them; and those of clients that are not pods.
const FIRST_SERVER: u8 = 101;
const FIRST_CLIENT: u8 = 151;

/// From one end to the other.
#[derive(Debug)]
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

/// Measures ways, each with its name and ends.
pub fn measure(bench: &Bench, ways: &[(&'static str, End, End)], amount: Amount) -> Result<Vec<Way>, Error> {
    let lines = ways.iter().zip(0..).map(|(way, number)| Line::new(bench, way, number));
    let mut lines = lines.collect::<Result<Vec<_>, Error>>()?;
    for _ in 0..=amount.rounds {
        lines.iter_mut().try_for_each(|line| line.round(bench, amount))?;
        bench.collect_garbage()?;
    }
    let ways = lines.into_iter().map(Line::end).collect();
    bench.collect_garbage()?;
    ways
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, number)
}

/// A way with its server.
struct Line {
    way: Way,
    from: End,
    to: End,
    address: Ipv4Addr,
    server: Server,
    /// Where no shell can be had from here.
    client: Option<Guest>,
    number: u8,
    repeats: usize,
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

    /// Whatever it does.
    fn kill(&mut self) -> Result<(), Error> {
        match self {
            Self::Program(pod) => pod.kill(),
            Self::Guest(guest) => guest.stop(),
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
        let way = Way { name, stream: Vec::new(), round_trip: Vec::new() };
        tell(name, &format!("a server at {address}"));
        let server = Server::start(bench, to, address)?;
        let client = Self::client(bench, from, number)?;
        Ok(Self { way, from, to, address, server, client, number, repeats: 0 })
    }

    fn client(bench: &Bench, end: End, number: u8) -> Result<Option<Guest>, Error> {
        let is_peer = end == End::Firecracker;
        is_peer.then(|| Guest::start(bench, address(FIRST_CLIENT + number))).transpose()
    }

    /// Measures it once, and again with another server if one of both ends stands still.
    fn round(&mut self, bench: &Bench, amount: Amount) -> Result<(), Error> {
        loop {
            if let Some((stream, round_trip)) = self.ask(bench, amount)? {
                tell(self.way.name, &format!("{stream:.0} MiB/s, {round_trip:.0} us"));
                self.way.stream.push(stream);
                self.way.round_trip.push(round_trip);
                return Ok(());
            }
            self.repeats += 1;
            tell(self.way.name, "stands still; once more");
            if self.repeats > REPEATS {
                return Err(
                    format!("{}: it stands still, however often it is repeated", self.way.name).into()
                );
            }
            self.start_again(bench)?;
        }
    }

    fn ask(&self, bench: &Bench, amount: Amount) -> Result<Option<(f64, f64)>, Error> {
        let server = self.address.to_string();
        let ask = |line: &str| self.told(bench, line);
        let Some(stream) = ask(&tools::stream(&server, amount.stream_mib))? else { return Ok(None) };
        let Some(round_trip) = ask(&tools::round_trip(&server))? else { return Ok(None) };
        Ok(Some((tools::stream_mib_a_second(&stream)?, tools::round_trip_us(&round_trip)?)))
    }

    fn start_again(&mut self, bench: &Bench) -> Result<(), Error> {
        self.server.kill()?;
        self.client.as_mut().map(Guest::stop).transpose()?;
        // What is left of it has its address.
        bench.collect_garbage()?;
        self.server = Server::start(bench, self.to, self.address)?;
        self.client = Self::client(bench, self.from, self.number)?;
        Ok(())
    }

    /// What a client prints; nothing, if it stands still.
    fn told(&self, bench: &Bench, line: &str) -> Result<Option<String>, Error> {
        let Some(mut command) = shell(bench, self.from, None, line) else {
            return self.client.as_ref().ok_or("no VM to ask from")?.run(line);
        };
        let output = run_for_a_while(&mut command)?;
        Ok(output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// What was measured, without the round to warm up.
    fn end(mut self) -> Result<Way, Error> {
        self.server.stop()?;
        self.client.as_mut().map(Guest::stop).transpose()?;
        self.way.stream.remove(0);
        self.way.round_trip.remove(0);
        Ok(self.way)
    }
}

impl Way {
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
