//! The `port-forward` entrypoint: listens at ports of the host, and carries each connection to one that the pod's supervisor
//! makes to the pod's own loopback. Each is a session of its own; if this process goes, all of them end.

mod connection;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ::pod::abi::{PodDirectory, PortForwardArguments};
use ::pod::forward::{Forward, MAX_FORWARDED};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::connection::Connection;
use crate::error::report;
use crate::{Error, stop};

/// The most connections that wait for the supervisor at a time: each is a session until then, of which a pod has few.
const MAX_ASKING: usize = 4;
/// How long clients have after the pod's end to take the last bytes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Forwards ports into the pod in the working directory until it has ended.
pub fn port_forward(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let PortForwardArguments { debug, uuid, forwards } = PortForwardArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let (_, pod) = stop::living_parent(&PodDirectory::new("."), uuid, "connected to")?;
    let mut doors = Vec::new();
    for forward in &forwards {
        doors.extend(listen(forward)?);
    }
    let lines: String = doors.iter().map(Door::line).collect();
    // Nobody may read it.
    let _ = std::io::stdout().write_all(lines.as_bytes());
    Forwarder { pod, doors, connections: Vec::new(), most: MAX_FORWARDED, debug, farewell: None }.run()
}

/// A listening socket, and where its connections lead.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    at: SocketAddr,
    port: NonZeroU16,
}

impl Door {
    fn line(&self) -> String {
        format!("Forwarding {} to port {} of the pod\n", self.at, self.port)
    }
}

/// Opens the ports of one `forward`; both loopbacks have the same, though it may be any.
fn listen(forward: &Forward) -> Result<Vec<Door>, Error> {
    let mut doors: Vec<Door> = Vec::new();
    for (mut address, may_be_missing) in forward.listeners() {
        if let Some(first) = doors.first() {
            address.set_port(first.at.port());
        }
        let opened = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Door { at: listener.local_addr()?, listener, port: forward.remote })
        });
        match opened {
            Ok(door) => doors.push(door),
            Err(error) if may_be_missing && is_no_address(&error) => {}
            Err(source) => return Err(Error::NotListening { address, source }),
        }
    }
    Ok(doors)
}

fn is_no_address(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

struct Forwarder {
    /// Becomes readable when the pod's parent has ended.
    pod: OwnedFd,
    doors: Vec<Door>,
    connections: Vec<Connection>,
    /// How many connections there may be; further ones wait in the kernel.
    most: usize,
    /// Whether each connection is told.
    debug: bool,
    /// Until when connections go on, once the pod has ended.
    farewell: Option<Instant>,
}

impl Forwarder {
    fn run(mut self) -> Result<(), Error> {
        while self.round()? {}
        // Nobody may read it.
        let _ = writeln!(std::io::stdout(), "The pod has ended");
        Ok(())
    }

    /// Does what can be done now; whether the pod goes on.
    fn round(&mut self) -> Result<bool, Error> {
        let accepting = self.has_room();
        let mut answers = self.wait(accepting)?.into_iter();
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let ended = self.farewell.is_none() && happened();
        let called: Vec<bool> = self.doors.iter().map(|_| accepting && happened()).collect();
        let now = Instant::now();
        for connection in &mut self.connections {
            if let Err(error) = connection.advance(&mut answers, now) {
                report(&error);
            }
        }
        let debug = self.debug;
        self.connections.retain(|connection| {
            let is_over = connection.is_over();
            if debug && is_over {
                eprintln!("stage1: the connection from {} is over", connection.from());
            }
            !is_over
        });
        for (index, _) in called.into_iter().enumerate().filter(|(_, called)| *called) {
            self.accept(index)?;
        }
        if ended {
            self.farewell = Some(now + FAREWELL);
        }
        Ok(self.farewell.is_none_or(|farewell| now < farewell && !self.connections.is_empty()))
    }

    fn has_room(&self) -> bool {
        if self.farewell.is_some() {
            return false;
        }
        let asking = self.connections.iter().filter(|connection| !connection.is_carrying()).count();
        asking < MAX_ASKING && self.connections.len() < self.most
    }

    fn wait(&self, accepting: bool) -> Result<Vec<PollFlags>, Error> {
        let mut set = Vec::new();
        if self.farewell.is_none() {
            set.push(PollFd::new(self.pod.as_fd(), PollFlags::POLLIN));
        }
        if accepting {
            set.extend(self.doors.iter().map(|door| PollFd::new(door.listener.as_fd(), PollFlags::POLLIN)));
        }
        self.connections.iter().for_each(|connection| connection.interests(&mut set));
        let deadlines = self.connections.iter().filter_map(Connection::deadline);
        let deadline = deadlines.chain(self.farewell).min();
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut set, timeout) {
            Ok(_) => Ok(set.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()),
            Err(Errno::EINTR) => Ok(vec![PollFlags::empty(); set.len()]),
            Err(source) => Err(Error::System { action: "wait for connections", source }),
        }
    }

    fn accept(&mut self, index: usize) -> Result<(), Error> {
        if !self.has_room() {
            return Ok(());
        }
        let Some(door) = self.doors.get(index) else { return Ok(()) };
        let (stream, from) = match door.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.most = self.connections.len().max(1);
                return Ok(());
            }
            // It has gone again, or its network is in trouble (accept(2)).
            Err(error) if error.kind() != ErrorKind::InvalidInput => return Ok(()),
            Err(source) => return Err(Error::NotListening { address: door.at, source }),
        };
        if self.debug {
            eprintln!("stage1: a connection from {from} to port {}", door.port);
        }
        match Connection::ask(stream, from, door.port) {
            Ok(connection) => self.connections.push(connection),
            Err(error) => report(&error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_free_port_is_the_same_at_both_addresses() {
        let doors = listen(&"0:80".parse().unwrap()).unwrap();
        let ports: Vec<u16> = doors.iter().map(|door| door.at.port()).collect();
        assert!(ports[0] > 0 && ports.iter().all(|port| *port == ports[0]), "{doors:?}");
        let line = format!("Forwarding 127.0.0.1:{} to port 80 of the pod\n", ports[0]);
        assert_eq!(doors[0].line(), line);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(&format!("{address}:80").parse().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
    }
}
