//! What is on the other side of the pod's socket: the pod's parent, as its clients see it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ::pod::abi::PodDirectory;
use ::pod::session::{FromClient, MAX_PACKET_BYTES, ToClient, decode, encode};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockType;
use relay::packets;

use crate::Error;
use crate::entrance::connect_to;

/// A connection with the parent of the pod in the working directory.
#[derive(Debug)]
pub struct Parent(OwnedFd);

impl Parent {
    /// Connects.
    pub fn call() -> Result<Self, Error> {
        let socket = connect_to(&PodDirectory::new(".").entrance(), SockType::SeqPacket);
        socket.map(Self).map_err(Error::NotReached)
    }

    /// Says something.
    pub fn say(&self, message: &FromClient) -> Result<(), Error> {
        let packet = encode(message)
            .map_err(|source| Error::Pod { what: "cannot ask the pod for this".into(), source })?;
        match packets::send(&self.0, &packet, &[]) {
            // Reading tells why nobody listens any more.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(source) => Err(Error::System { action: "ask the pod", source }),
        }
    }

    /// What the parent says, with the descriptors that come along; `None` if there is nothing yet.
    pub fn hear(&self) -> Result<Option<(ToClient, Vec<OwnedFd>)>, Error> {
        let packet = match packets::receive(&self.0, MAX_PACKET_BYTES) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(Error::PodGone),
            // A parent that has not heard everything may have said something before it closed: that comes next.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNRESET) => return Ok(None),
            Err(source) => return Err(Error::System { action: "hear from the pod", source }),
        };
        let message = decode(&packet.bytes)
            .map_err(|source| Error::Pod { what: "cannot understand the pod's parent".into(), source })?;
        Ok(Some((message, packet.descriptors)))
    }

    /// Waits for what the parent says next, for as long as `patience` lasts.
    pub fn await_answer(&self, patience: Option<Duration>) -> Result<ToClient, Error> {
        let failed = |source| Error::System { action: "hear from the pod", source };
        let until = patience.map(|patience| Instant::now() + patience);
        loop {
            if let Some((answer, _)) = self.hear()? {
                return Ok(answer);
            }
            let timeout = until.map_or(PollTimeout::NONE, |until| {
                let left = until.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Err(failed(Errno::ETIMEDOUT)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
