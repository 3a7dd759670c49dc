//! The supervisor's end of the control channel.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use pod::control::{Decoder, FromSupervisor, MAX_TO_SUPERVISOR_BYTES, ToSupervisor, encode};
use pod::plan::Plan;

use crate::error::{Error, errno};

/// How long the parent may take to hear of the end before the machine goes.
const FAREWELL_MS: u16 = 5000;

/// The connection with the pod's parent.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    decoder: Decoder,
}

/// What has come from the parent.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(ToSupervisor),
    /// Nothing more for now.
    Nothing,
    /// The parent has gone, or speaks another language: there is nobody the pod runs for.
    Gone,
}

impl Control {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::new(MAX_TO_SUPERVISOR_BYTES) }
    }

    /// Tells the parent. If it has gone, [`Self::receive`] says so.
    pub fn send(&self, message: &FromSupervisor) {
        let Ok(frame) = encode(message) else { return };
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The next message, without waiting.
    pub fn receive(&mut self) -> Received {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Received::Message(message),
                Ok(None) => {}
                Err(_) => return Received::Gone,
            }
            let mut bytes = [0; 4096];
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Received::Gone,
                Ok(count) => self.decoder.push(bytes.get(..count).unwrap_or_default()),
                Err(Errno::EAGAIN | Errno::EINTR) => return Received::Nothing,
                Err(_) => return Received::Gone,
            }
        }
    }

    /// Waits until the parent has closed the connection, and so has everything that was sent.
    pub fn await_farewell(mut self) {
        while !matches!(self.receive(), Received::Gone) {
            let mut set = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut set, PollTimeout::from(FAREWELL_MS)), Ok(1..) | Err(Errno::EINTR)) {
                return;
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Says that a supervisor is ready, and waits for its plan; takes nothing that follows it from the connection.
pub fn receive_plan(control: BorrowedFd<'_>) -> Result<Plan, Error> {
    let failed = |error: std::io::Error| Error::system("receive the plan")(errno(&error));
    let mut socket = File::from(control.try_clone_to_owned().map_err(failed)?);
    socket.write_all(&encode(&FromSupervisor::Ready).map_err(Error::Control)?).map_err(failed)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length).map_err(failed)?;
    let mut decoder = Decoder::new(MAX_TO_SUPERVISOR_BYTES);
    decoder.push(&length);
    let whole = |decoder: &mut Decoder| decoder.next_message::<ToSupervisor>().map_err(Error::Control);
    let mut rest = u64::from(u32::from_le_bytes(length));
    loop {
        match whole(&mut decoder)? {
            Some(ToSupervisor::Start(plan)) => return Ok(*plan),
            Some(other) => return Err(Error::Impossible(format!("got {other:?} before the plan"))),
            None => {}
        }
        let mut piece = Vec::new();
        let read = (&mut socket).take(rest.min(64 << 10)).read_to_end(&mut piece).map_err(failed)?;
        if read == 0 {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        rest -= read as u64;
        decoder.push(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    #[test]
    fn the_plan_is_taken_and_what_follows_is_left() {
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let plan = Plan {
            outside: Vec::new(),
            setup: Vec::new(),
            apps: Vec::new(),
            network: Default::default(),
            grace_period_ms: 7,
            exit_policy: Default::default(),
            mutable: false,
            cgroup: Vec::new(),
        };
        let mut parent = File::from(there);
        parent.write_all(&encode(&ToSupervisor::Start(Box::new(plan.clone()))).unwrap()).unwrap();
        parent.write_all(&encode(&ToSupervisor::Stop).unwrap()).unwrap();
        assert_eq!(receive_plan(here.as_fd()).unwrap(), plan);
        let mut control = Control::new(here);
        assert!(matches!(control.receive(), Received::Message(ToSupervisor::Stop)));
        assert!(matches!(control.receive(), Received::Nothing));
        drop(parent);
        assert!(matches!(control.receive(), Received::Gone));
    }

    #[test]
    fn a_parent_that_goes_before_the_plan() {
        let (here, there) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        drop(there);
        assert!(receive_plan(here.as_fd()).is_err());
    }
}
