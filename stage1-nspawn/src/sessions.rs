//! The streams of sessions: made by the parent, and handed to the supervisor as descriptors, before it is told what
//! they are for. A session's process gets them as they are; the client carries.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use pod::control::{Stream, StreamHello};
use pod::plan::{NewApp, Stdio};
use pod::session::{SessionId, session_streams};
use relay::packets;
use stage2::{AppCgroups, AppStreams, HandedOver, SessionStreams};

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

/// What a descriptor is, beside a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A stream.
    Stream(Stream),
    /// A detached mount.
    Tree,
    /// The `cgroup.procs` of one of an app's cgroups.
    Procs,
    /// The directory of one of them.
    Cgroup,
}

/// The first bytes of a packet: whose descriptor it brings, and what that is.
type Label = [u8; StreamHello::BYTES];

impl Thing {
    fn label(self, session: SessionId) -> Label {
        let [low, high] = session.to_le_bytes();
        let other = |number| [low, high, number, 1];
        match self {
            Self::Stream(stream) => StreamHello { app: session, stream }.encode(),
            Self::Tree => other(0),
            Self::Procs => other(1),
            Self::Cgroup => other(2),
        }
    }
}

impl Door {
    /// Hands something over.
    pub fn hand_over(&self, session: SessionId, thing: Thing, descriptor: BorrowedFd<'_>) -> nix::Result<()> {
        packets::send(&self.0, &thing.label(session), &[descriptor])
    }

    /// Hands a session's streams over; their other ends.
    pub fn open(&self, session: SessionId, streams: &[Stream]) -> nix::Result<Vec<OwnedFd>> {
        let terminal = streams == session_streams(true);
        let open_one = |stream: &Stream| {
            let (inside, outside) = connection(*stream, terminal)?;
            self.hand_over(session, Thing::Stream(*stream), inside.as_fd())?;
            Ok(outside)
        };
        streams.iter().map(open_one).collect()
    }
}

/// A connection's ends inside and outside.
pub fn connection(stream: Stream, terminal: bool) -> nix::Result<(OwnedFd, OwnedFd)> {
    if terminal {
        return socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok(if stream == Stream::Stdin { (read, write) } else { (write, read) })
}

impl SessionStreams for Inside {
    fn open(&mut self, session: SessionId, terminal: bool) -> Result<AppStreams, stage2::Error> {
        self.streams(session, session_streams(terminal), terminal)
    }

    fn open_app(&mut self, session: SessionId, new: &NewApp) -> Result<HandedOver, stage2::Error> {
        let next = |thing: Thing| self.receive(thing.label(session)).map_err(failed);
        let several = |thing, count| (0..count).map(|_| next(thing)).collect::<Result<Vec<_>, _>>();
        let stdio = &new.app.stdio;
        let streams = self.streams(session, stdio.streams(), *stdio == Stdio::Terminal)?;
        let procs = several(Thing::Procs, new.cgroups)?;
        let directory = if procs.is_empty() { None } else { Some(next(Thing::Cgroup)?) };
        let cgroups = AppCgroups { procs, directory, counts_here: false };
        Ok(HandedOver { streams, cgroups: Some(cgroups), trees: several(Thing::Tree, new.trees)? })
    }
}

impl Inside {
    /// The streams of a process, of which only `carried` ones were handed over.
    fn streams(
        &self,
        session: SessionId,
        carried: &[Stream],
        terminal: bool,
    ) -> Result<AppStreams, stage2::Error> {
        let next = |stream| match carried.contains(&stream) {
            true => self.receive(Thing::Stream(stream).label(session)).map(Some).map_err(failed),
            false => Ok(None),
        };
        match terminal {
            true => {
                let carrier = next(Stream::Stdin)?.ok_or_else(|| failed(Errno::ENOENT))?;
                Ok(AppStreams::Terminal { carrier })
            }
            false => Ok(AppStreams::Direct {
                stdin: next(Stream::Stdin)?,
                stdout: next(Stream::Stdout)?,
                stderr: next(Stream::Stderr)?,
            }),
        }
    }

    /// Takes what was handed over; what is left of sessions that never began is dropped.
    fn receive(&self, wanted: Label) -> nix::Result<OwnedFd> {
        loop {
            let packet = packets::receive(&self.0, wanted.len())?.ok_or(Errno::EPIPE)?;
            if let (true, Some(descriptor)) = (packet.bytes == wanted, packet.descriptors.into_iter().next())
            {
                return Ok(descriptor);
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
        let AppStreams::Direct { stdin: Some(stdin), stdout: Some(stdout), .. } =
            inside.open(2, false).unwrap()
        else {
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
