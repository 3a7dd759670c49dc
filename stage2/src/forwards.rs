//! Connections that come from outside and lead to what listens on the pod's own loopback (`rkt port-forward`). The parent has
//! made each of them, and bounds their number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket, sockopt,
};
use pod::control::{ExitStatus, FromSupervisor};
use pod::session::SessionId;
use relay::{Carrier, both_directions};

use crate::error::{Error, causes};

/// Where something may listen, in the order in which it is tried.
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// How long a connection may take: one whose listener takes no more is told after that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last bytes may take after the pod's end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The connections of a pod.
#[derive(Debug, Default)]
pub struct Forwards {
    pending: Vec<Pending>,
    carriers: Vec<[Carrier; 2]>,
    /// When nobody waits for the rest any more, once the pod has ended.
    farewell: Option<Instant>,
}

/// A connection on its way.
#[derive(Debug)]
struct Pending {
    session: SessionId,
    port: NonZeroU16,
    outside: OwnedFd,
    /// What is being connected.
    inside: OwnedFd,
    address: SocketAddr,
    /// What else to try.
    rest: Vec<IpAddr>,
    /// Why that which was tried first has failed.
    first: Option<Error>,
    until: Instant,
}

impl Forwards {
    /// Connects to `port`; what the parent is to be told already.
    pub fn begin(
        &mut self,
        session: SessionId,
        port: NonZeroU16,
        outside: Result<OwnedFd, Error>,
    ) -> Option<FromSupervisor> {
        let rest: Vec<IpAddr> = LOOPBACKS.into_iter().rev().collect();
        let begun = outside.and_then(|outside| match self.farewell {
            None => Pending::connect(session, port, outside, rest, None, Instant::now() + PATIENCE),
            Some(_) => Err(Error::Impossible("the pod ends".into())),
        });
        match begun {
            Ok(pending) => {
                self.pending.push(pending);
                None
            }
            Err(error) => Some(failed(session, &error)),
        }
    }

    /// Adds what to wait for.
    pub fn interests<'a>(&'a self, set: &mut Vec<PollFd<'a>>) {
        set.extend(self.pending.iter().map(|one| PollFd::new(one.inside.as_fd(), PollFlags::POLLOUT)));
        self.carriers.iter().flatten().for_each(|carrier| carrier.interests(set));
    }

    /// Does what `answers` allow, in the order of [`Self::interests`]; what the parent is to be told.
    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) -> Vec<FromSupervisor> {
        let pending = std::mem::take(&mut self.pending);
        let ready: Vec<bool> = answers.take(pending.len()).map(|answer| !answer.is_empty()).collect();
        self.carriers.iter_mut().flatten().for_each(|carrier| carrier.advance(answers));
        self.carriers.retain(|both| !both.iter().all(Carrier::is_done));
        let mut messages = Vec::new();
        for (one, ready) in pending.into_iter().zip(ready) {
            if ready { messages.extend(self.settle(one)) } else { self.pending.push(one) }
        }
        messages
    }

    /// One is connected, or was refused.
    fn settle(&mut self, one: Pending) -> Option<FromSupervisor> {
        let session = one.session;
        let settled = match one.outcome() {
            Ok(()) => one.carry().map(|carriers| self.carriers.push(carriers)),
            Err(error) => match one.retry(error) {
                Ok(next) => {
                    self.pending.push(next);
                    return None;
                }
                Err(error) => Err(error),
            },
        };
        Some(match settled {
            Ok(()) => FromSupervisor::SessionExited { session, status: ExitStatus::SUCCESS },
            Err(error) => failed(session, &error),
        })
    }

    /// The pod ends, and what has listened with it: clients get a moment to take the last bytes.
    pub fn wind_up(&mut self, now: Instant) {
        self.farewell.get_or_insert(now + FAREWELL);
    }

    /// Whether nothing is connected.
    pub fn are_over(&self) -> bool {
        self.pending.is_empty() && self.carriers.is_empty()
    }

    /// When [`Self::enforce`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let farewell = self.farewell.filter(|_| !self.are_over());
        self.pending.iter().map(|one| one.until).chain(farewell).min()
    }

    /// Gives up what takes too long; what the parent is to be told.
    pub fn enforce(&mut self, now: Instant) -> Vec<FromSupervisor> {
        let is_farewell = self.farewell.is_some_and(|farewell| farewell <= now);
        if is_farewell {
            self.carriers.clear();
        }
        let late = |one: &mut Pending| is_farewell || one.until <= now;
        self.pending
            .extract_if(.., late)
            .map(|one| failed(one.session, &one.error(Errno::ETIMEDOUT)))
            .collect()
    }
}

impl Pending {
    /// Begins with the last of `rest` at which anything can be begun. If nothing can, what has failed first says most: it is
    /// where most things listen.
    fn connect(
        session: SessionId,
        port: NonZeroU16,
        outside: OwnedFd,
        mut rest: Vec<IpAddr>,
        mut first: Option<Error>,
        until: Instant,
    ) -> Result<Self, Error> {
        while let Some(address) = rest.pop() {
            let address = SocketAddr::new(address, port.get());
            match begin(address) {
                Ok(inside) => {
                    return Ok(Self { session, port, outside, inside, address, rest, first, until });
                }
                Err(errno) => drop(first.get_or_insert_with(|| refused(address, errno))),
            }
        }
        Err(first.unwrap_or_else(|| Error::Impossible("there is no loopback".into())))
    }

    /// Whether it is connected.
    fn outcome(&self) -> Result<(), Error> {
        match getsockopt(&self.inside, sockopt::SocketError) {
            Ok(0) => Ok(()),
            Ok(number) => Err(self.error(Errno::from_raw(number))),
            Err(errno) => Err(self.error(errno)),
        }
    }

    /// Tries the next address after this one has failed.
    fn retry(self, error: Error) -> Result<Self, Error> {
        let Self { session, port, outside, rest, first, until, .. } = self;
        Self::connect(session, port, outside, rest, first.or(Some(error)), until)
    }

    fn carry(self) -> Result<[Carrier; 2], Error> {
        // Whoever writes has decided about the size of the pieces already. Without it a connection is only slower.
        let _unlikely = setsockopt(&self.inside, sockopt::TcpNoDelay, &true);
        both_directions(self.outside, self.inside).map_err(Error::system("carry a connection"))
    }

    fn error(&self, errno: Errno) -> Error {
        refused(self.address, errno)
    }
}

fn refused(address: SocketAddr, errno: Errno) -> Error {
    Error::system(format!("connect to {address}"))(errno)
}

fn failed(session: SessionId, error: &Error) -> FromSupervisor {
    FromSupervisor::SessionFailed { session, causes: causes(error) }
}

/// A socket that connects; writable once it has, or has failed.
fn begin(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::os::unix::net::UnixStream;

    use nix::poll::{PollTimeout, poll};

    use super::*;

    /// Works until `done`, and returns what the parent was told.
    fn work(
        forwards: &mut Forwards,
        done: impl Fn(&Forwards, &[FromSupervisor]) -> bool,
    ) -> Vec<FromSupervisor> {
        let mut told = Vec::new();
        while !done(forwards, &told) {
            let mut set = Vec::new();
            forwards.interests(&mut set);
            assert!(poll(&mut set, PollTimeout::from(10_000u16)).unwrap() > 0, "nothing happens");
            let answers: Vec<_> = set.iter().map(|fd| fd.revents().unwrap()).collect();
            told.extend(forwards.advance(&mut answers.into_iter()));
        }
        told
    }

    fn port(listener: &TcpListener) -> NonZeroU16 {
        NonZeroU16::new(listener.local_addr().unwrap().port()).unwrap()
    }

    #[test]
    fn whatever_loopback_it_listens_on() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let (mut client, outside) = UnixStream::pair().unwrap();
            let mut forwards = Forwards::default();
            assert_eq!(forwards.begin(7, port(&listener), Ok(outside.into())), None);
            let told = work(&mut forwards, |_, told| !told.is_empty());
            assert_eq!(told, [FromSupervisor::SessionExited { session: 7, status: ExitStatus::SUCCESS }]);
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(work(&mut forwards, |forwards, _| forwards.are_over()), []);
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "question");
            server.join().unwrap();
        }
    }

    #[test]
    fn nothing_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port(&listener);
        drop(listener);
        let (mut client, outside) = UnixStream::pair().unwrap();
        let mut forwards = Forwards::default();
        let mut told: Vec<_> = forwards.begin(7, port, Ok(outside.into())).into_iter().collect();
        told.extend(work(&mut forwards, |forwards, _| forwards.are_over()));
        let [FromSupervisor::SessionFailed { session: 7, causes }] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert!(causes.concat().contains("127.0.0.1:"), "{causes:?}");
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it is closed");
    }

    #[test]
    fn a_pod_that_ends_waits_for_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_client, outside) = UnixStream::pair().unwrap();
        let mut forwards = Forwards::default();
        assert_eq!(forwards.begin(7, port(&listener), Ok(outside.into())), None);
        work(&mut forwards, |_, told| !told.is_empty());
        let now = Instant::now();
        forwards.wind_up(now);
        assert_eq!((forwards.deadline(), forwards.are_over()), (Some(now + FAREWELL), false));
        assert!(forwards.enforce(now).is_empty() && !forwards.are_over());
        assert!(forwards.enforce(now + FAREWELL).is_empty() && forwards.are_over());
        let (_client, outside) = UnixStream::pair().unwrap();
        assert!(forwards.begin(8, port(&listener), Ok(outside.into())).is_some(), "none is made any more");
    }
}
