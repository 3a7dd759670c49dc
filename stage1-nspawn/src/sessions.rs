//! The streams of sessions: made by the parent, and handed to the supervisor as descriptors, before it is told what
//! they are for. A session's process gets them as they are; the client carries.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use pod::control::{Stream, StreamHello};
use pod::session::{SessionId, session_streams};
use relay::packets;
use stage2::{AppStreams, SessionStreams};

use crate::error::Error;

/// The parent's end.
#[derive(Debug)]
pub struct Door(OwnedFd);

/// The supervisor's end.
#[derive(Debug)]
pub struct Inside(OwnedFd);

/// Both ends of what streams are handed over by.
pub fn pair() -> Result<(Door, Inside), Error> {
    let (door, inside) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(Error::system("make the door for sessions"))?;
    Ok((Door(door), Inside(inside)))
}

impl Door {
    /// Hands a session's streams over; their other ends.
    pub fn open(&self, session: SessionId, streams: &[Stream]) -> nix::Result<Vec<OwnedFd>> {
        let terminal = streams == session_streams(true);
        let open_one = |stream: &Stream| {
            let (inside, outside) = connection(*stream, terminal)?;
            let hello = StreamHello { app: session, stream: *stream };
            packets::send(&self.0, &hello.encode(), &[inside.as_fd()])?;
            Ok(outside)
        };
        streams.iter().map(open_one).collect()
    }
}

/// A connection's ends inside and outside.
fn connection(stream: Stream, terminal: bool) -> nix::Result<(OwnedFd, OwnedFd)> {
    if terminal {
        return socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok(if stream == Stream::Stdin { (read, write) } else { (write, read) })
}

impl SessionStreams for Inside {
    fn open(&mut self, session: SessionId, terminal: bool) -> Result<AppStreams, stage2::Error> {
        let next = |stream| self.receive(StreamHello { app: session, stream }).map_err(failed);
        match terminal {
            true => Ok(AppStreams::Terminal { carrier: next(Stream::Stdin)? }),
            false => Ok(AppStreams::Direct {
                stdin: next(Stream::Stdin)?,
                stdout: next(Stream::Stdout)?,
                stderr: next(Stream::Stderr)?,
            }),
        }
    }
}

impl Inside {
    /// Takes a stream that was handed over; what is left of sessions that never began is dropped.
    fn receive(&self, wanted: StreamHello) -> nix::Result<OwnedFd> {
        loop {
            let packet = packets::receive(&self.0, StreamHello::BYTES)?.ok_or(Errno::EPIPE)?;
            let hello = packet.bytes.try_into().ok().map(StreamHello::decode);
            match (hello, packet.descriptors.into_iter().next()) {
                (Some(Ok(hello)), Some(stream)) if hello == wanted => return Ok(stream),
                _ => {}
            }
        }
    }
}

fn failed(source: Errno) -> stage2::Error {
    stage2::Error::System { action: "take the session's streams".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_gets_its_own_streams() {
        let (door, mut inside) = pair().unwrap();
        // One whose client went before the supervisor was told.
        door.open(1, session_streams(false)).unwrap();
        let outside = door.open(2, session_streams(false)).unwrap();
        let AppStreams::Direct { stdin, stdout, .. } = inside.open(2, false).unwrap() else {
            panic!("not three streams")
        };
        let mut bytes = [0; 9];
        nix::unistd::write(&outside[0], b"in").unwrap();
        assert_eq!(nix::unistd::read(&stdin, &mut bytes).unwrap(), 2);
        nix::unistd::write(&stdout, b"out").unwrap();
        assert_eq!(nix::unistd::read(&outside[1], &mut bytes).unwrap(), 3);
        door.open(3, session_streams(true)).unwrap();
        assert!(matches!(inside.open(3, true), Ok(AppStreams::Terminal { .. })));
        assert!(inside.open(4, false).is_err(), "nothing was handed over");
    }
}
