//! The parent's end of the control channel. The other end may be hostile: nothing waits for it, and it decides about no
//! more memory than one message of it takes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use ::pod::control::{Decoder, FromSupervisor, MAX_FROM_SUPERVISOR_BYTES, ToSupervisor, encode};
use ::pod::plan::Plan;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, recv, send};

use super::Control;
use crate::Error;

/// The control channel, from before it exists to after it.
#[derive(Debug)]
pub struct Link {
    state: State,
    decoder: Decoder,
    outgoing: Vec<u8>,
    has_plan: bool,
}

#[derive(Debug)]
enum State {
    Expected(UnixListener),
    Open(OwnedFd),
    Closed,
}

impl Link {
    pub fn new(control: Control) -> Result<Self, Error> {
        let (state, has_plan) = match control {
            Control::Connected(socket) => (State::Open(socket), true),
            Control::Expected(listener) => {
                nonblocking(&listener)?;
                (State::Expected(listener), false)
            }
        };
        let decoder = Decoder::new(MAX_FROM_SUPERVISOR_BYTES);
        Ok(Self { state, decoder, outgoing: Vec::new(), has_plan })
    }

    /// Whether the supervisor can be talked to.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_)) && self.has_plan
    }

    /// Whether it will not say anything any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    pub fn close(&mut self) {
        self.state = State::Closed;
        self.decoder = Decoder::new(0);
    }

    /// Sends a message, or keeps it until it can be sent; the plan comes before everything else.
    pub fn send(&mut self, message: &ToSupervisor) {
        if self.is_open()
            && let Ok(frame) = encode(message)
        {
            self.outgoing.extend(frame);
            self.flush();
        }
    }

    /// Sends the plan, once.
    pub fn send_plan(&mut self, plan: &Plan) {
        if !self.has_plan {
            self.has_plan = true;
            self.send(&ToSupervisor::Start(Box::new(plan.clone())));
        }
    }

    pub fn interests<'a>(&'a self, set: &mut Vec<PollFd<'a>>) {
        let writing = if self.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        match &self.state {
            State::Expected(listener) => set.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN)),
            State::Open(socket) => set.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN | writing)),
            State::Closed => {}
        }
    }

    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) {
        let answer = match self.state {
            State::Closed => return,
            _ => answers.next().unwrap_or(PollFlags::empty()),
        };
        if answer.is_empty() {
            return;
        }
        if let State::Expected(listener) = &self.state {
            if let Ok((connection, _)) = listener.accept() {
                self.state = State::Open(connection.into());
            }
            return;
        }
        if answer.contains(PollFlags::POLLOUT) {
            self.flush();
        }
        if answer.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.read();
        }
    }

    /// The next message that is there.
    pub fn next_message(&mut self) -> Result<Option<FromSupervisor>, Error> {
        self.decoder
            .next_message()
            .map_err(|source| Error::Pod { what: "cannot understand the pod's supervisor".into(), source })
    }

    fn read(&mut self) {
        let State::Open(socket) = &self.state else { return };
        let mut bytes = [0; 4096];
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => self.state = State::Closed,
            Ok(count) => self.decoder.push(bytes.get(..count).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.state = State::Closed,
        }
    }

    fn flush(&mut self) {
        let State::Open(socket) = &self.state else { return };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // What cannot be sent because the other side has gone is of no use to anybody; reading finds that out.
        let sent = match send(socket.as_raw_fd(), &self.outgoing, flags) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(_) => self.outgoing.len(),
        };
        self.outgoing.drain(..sent);
    }
}

pub(super) fn nonblocking(listener: &UnixListener) -> Result<(), Error> {
    listener.set_nonblocking(true).map_err(|error| Error::System {
        action: "wait for the pod's connections",
        source: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    })
}
