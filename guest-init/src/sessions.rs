//! The streams of sessions: the host connects them, after it was asked on its side, so that no app can make one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{VMADDR_CID_ANY, VMADDR_CID_HOST};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, VsockAddr, accept4, bind, getpeername, listen,
    recv, socket,
};
use pod::control::{Stream, StreamHello};
use pod::plan::{NewApp, Stdio};
use pod::session::{MAX_SESSIONS, SESSION_PORT, SessionId};
use stage2::{AppStreams, HandedOver, SessionStreams};

use crate::connect::app_streams;
use crate::error::Error;

/// How long a session's connections may take after the host has announced it; it has made them by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the host's connections arrive.
#[derive(Debug)]
pub struct HostSessions {
    listener: OwnedFd,
}

impl HostSessions {
    /// Before any app runs, so that none has the port.
    pub fn listen() -> Result<Self, Error> {
        let listening = || {
            let listener = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            bind(listener.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, SESSION_PORT))?;
            // Each has three streams at most.
            let backlog = i32::try_from(3 * MAX_SESSIONS).unwrap_or(i32::MAX);
            listen(&listener, Backlog::new(backlog)?)?;
            Ok(listener)
        };
        let listener =
            listening().map_err(|errno: Errno| Error::Listen { port: SESSION_PORT, source: errno.into() })?;
        Ok(Self { listener })
    }

    /// The streams of one session; those of sessions that never began are dropped.
    fn collect(&self, session: SessionId, wanted: &[Stream]) -> nix::Result<BTreeMap<Stream, OwnedFd>> {
        let until = Instant::now() + PATIENCE;
        let mut streams = BTreeMap::new();
        while !wanted.iter().all(|stream| streams.contains_key(stream)) {
            let (hello, connection) = self.next(until)?;
            if hello.app == session && wanted.contains(&hello.stream) {
                streams.insert(hello.stream, connection);
            }
        }
        Ok(streams)
    }

    /// The next connection of the host.
    fn next(&self, until: Instant) -> nix::Result<(StreamHello, OwnedFd)> {
        loop {
            wait(&self.listener, until)?;
            let fd = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
            // SAFETY: accept4 has just made it, and nobody else knows of it.
            let connection = unsafe { OwnedFd::from_raw_fd(fd) };
            // Whoever is in the guest itself is not the host.
            let is_host = getpeername::<VsockAddr>(fd).is_ok_and(|peer| peer.cid() == VMADDR_CID_HOST);
            if is_host && let Some(hello) = read_hello(&connection, until)? {
                return Ok((hello, connection));
            }
        }
    }
}

/// The hello of a connection, and not a byte more; `None` if it has none.
fn read_hello(connection: &OwnedFd, until: Instant) -> nix::Result<Option<StreamHello>> {
    let mut hello = [0; StreamHello::BYTES];
    let mut filled = 0;
    while let Some(space) = hello.get_mut(filled..).filter(|space| !space.is_empty()) {
        wait(connection, until)?;
        match recv(connection.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Ok(None),
            Ok(count) => filled += count,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Ok(None),
        }
    }
    Ok(StreamHello::decode(hello).ok())
}

fn wait(fd: &OwnedFd, until: Instant) -> nix::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) => Err(Errno::ETIMEDOUT),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl SessionStreams for HostSessions {
    fn open(&mut self, session: SessionId, terminal: bool) -> Result<AppStreams, stage2::Error> {
        let stdio = if terminal { Stdio::Terminal } else { Stdio::Streams(Stdio::THREE.to_vec()) };
        self.streams(session, &stdio)
    }

    fn open_app(&mut self, session: SessionId, new: &NewApp) -> Result<HandedOver, stage2::Error> {
        let streams = self.streams(session, &new.app.stdio)?;
        Ok(HandedOver { streams, cgroups: None, trees: Vec::new() })
    }
}

impl HostSessions {
    fn streams(&self, session: SessionId, stdio: &Stdio) -> Result<AppStreams, stage2::Error> {
        let failed = |source| stage2::Error::System { action: "take the session's streams".into(), source };
        let mut streams = self.collect(session, stdio.streams()).map_err(failed)?;
        app_streams(stdio, |stream| streams.remove(&stream).ok_or_else(|| failed(Errno::ENOENT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap()
    }

    #[test]
    fn hellos_are_read_whole_and_no_further() {
        let until = Instant::now() + Duration::from_secs(10);
        let (host, guest) = pair();
        let hello = StreamHello { app: 7, stream: Stream::Stderr };
        nix::unistd::write(&host, &hello.encode()).unwrap();
        nix::unistd::write(&host, b"x").unwrap();
        assert_eq!(read_hello(&guest, until).unwrap(), Some(hello));
        assert_eq!(nix::unistd::read(&guest, &mut [0; 9]).unwrap(), 1);
    }

    #[test]
    fn connections_without_a_hello() {
        let until = Instant::now() + Duration::from_millis(50);
        let (host, guest) = pair();
        nix::unistd::write(&host, b"\0\0\x09\0").unwrap();
        assert_eq!(read_hello(&guest, until).unwrap(), None, "nonsense");
        nix::unistd::write(&host, b"\0\0").unwrap();
        assert_eq!(read_hello(&guest, until).unwrap_err(), Errno::ETIMEDOUT);
        drop(host);
        assert_eq!(read_hello(&guest, until).unwrap(), None, "closed");
    }
}
