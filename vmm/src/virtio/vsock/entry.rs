//! A connection with its host end: what each side's events mean for the other.
//!
//! An entry outlives the guest's interest in it: what the guest sent last is still delivered after the guest has closed
//! and reused its port. Then the host end is told of the end and closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use vmm_sys_util::epoll::EventSet;

use super::super::buffers::Buffers;
use super::connection::{Connection, Violation};
use super::host_end::{HostEnd, SendError};
use super::packet::{Halves, Header, Operation};
use crate::memory::DeviceMemory;

/// Who asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A program in the guest.
    Guest,
    /// A program on the host.
    Host,
}

/// What is left to do for an entry after something happened to it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The guest's part is over, and this packet tells it so.
    pub reset: Option<Header>,
    /// Both parts are over.
    pub ended: bool,
}

/// A connection and its socket.
#[derive(Debug)]
pub struct Entry {
    /// The guest's part, as long as the guest knows of it.
    link: Option<Connection>,
    host: HostEnd,
    origin: Origin,
    /// Whether a program on the host has been seen to hold the other end. An end that was handed out may lie unseen in a
    /// channel; it is not forgotten before that, or a guest that connects and closes could pile up descriptors.
    alive: bool,
    /// The socket was reported readable and has not been read empty since.
    readable: bool,
    hung_up: bool,
    refused: bool,
    /// Whether the entry is in the muxer's list of those that have something to send.
    pub queued: bool,
    /// What the socket is watched for, if it is.
    pub watched: Option<EventSet>,
}

impl Entry {
    /// A new connection.
    pub fn new(link: Connection, host: HostEnd, origin: Origin) -> Self {
        Self {
            link: Some(link),
            host,
            origin,
            alive: origin == Origin::Host,
            readable: false,
            hung_up: false,
            refused: false,
            queued: false,
            watched: None,
        }
    }

    /// Who asked for it.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The socket's number.
    pub fn fd(&self) -> RawFd {
        self.host.as_fd().as_raw_fd()
    }

    /// The number of bytes that the host has not taken yet.
    pub fn held(&self) -> usize {
        self.host.held()
    }

    /// Takes a packet from the guest.
    pub fn receive(
        &mut self,
        header: &Header,
        data: &Buffers,
        memory: &DeviceMemory,
    ) -> Result<(), Violation> {
        let Some(link) = &mut self.link else { return Err(Violation::State) };
        let len = link.receive(header)?;
        if len == 0 {
            return Ok(());
        }
        if !link.host_takes() {
            link.host_took(len);
            return Ok(());
        }
        let data = data.range(0, len).map_err(|_| Violation::State)?;
        match self.host.send(memory, &data) {
            Ok(taken) => link.host_took(taken),
            Err(SendError::Memory) => return Err(Violation::State),
            Err(SendError::Gone) => {
                link.host_took(len);
                self.host_is_gone();
            }
        }
        Ok(())
    }

    /// The guest gives up the connection at once.
    pub fn reset_by_guest(&mut self) {
        self.link = None;
    }

    /// The host gives up the connection with the guest at once; what it already got is still delivered.
    pub fn reset(&mut self) -> Option<Header> {
        self.link.take().map(|link| Header::to_guest(link.route(), Operation::Reset))
    }

    /// Takes an event of the socket.
    pub fn on_event(&mut self, events: EventSet) {
        self.alive = true;
        if events.contains(EventSet::IN) {
            self.readable = true;
        }
        if events.contains(EventSet::OUT) {
            self.flush();
        }
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            self.hung_up = true;
            self.readable = true;
            self.host_is_gone();
        }
    }

    /// Gives the host what it can take of what is held.
    pub fn flush(&mut self) {
        match self.host.flush() {
            Ok(taken) => {
                if let Some(link) = &mut self.link {
                    link.host_took(taken);
                }
            }
            Err(_) => self.host_is_gone(),
        }
    }

    /// Nobody takes data on the host any more.
    fn host_is_gone(&mut self) {
        let lost = self.host.discard();
        if let Some(link) = &mut self.link {
            link.host_took(lost);
            link.host_takes_no_more();
        }
    }

    /// The socket and the number of bytes to read from it at most, if the guest takes any now.
    pub fn source(&self) -> Option<(BorrowedFd<'_>, usize)> {
        let link = self.link.as_ref().filter(|link| self.readable && link.can_send())?;
        Some((self.host.as_fd(), link.credit()))
    }

    /// Notes how reading from the socket went, where `room` bytes were asked for; returns how many there were.
    pub fn note_read(&mut self, result: io::Result<usize>, room: usize) -> usize {
        match result {
            Ok(0) => self.host_sends_no_more(),
            Ok(count) => {
                // A stream that gives less than asked for has no more; if it has, it will be reported again.
                self.readable = count >= room;
                return count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {
                self.host_sends_no_more();
                self.host_is_gone();
            }
        }
        0
    }

    fn host_sends_no_more(&mut self) {
        self.readable = false;
        if let Some(link) = &mut self.link {
            link.host_sends_no_more();
        }
    }

    /// The header for `len` bytes of data that were read.
    pub fn data(&mut self, len: usize) -> Option<Header> {
        self.link.as_mut().map(|link| link.data(len))
    }

    /// The next packet without data.
    pub fn next_control(&mut self) -> Option<Header> {
        self.link.as_mut().and_then(Connection::next_control)
    }

    /// Whether there is a packet to send, with data or without.
    pub fn has_work(&self) -> bool {
        self.link.as_ref().is_some_and(Connection::has_control) || self.source().is_some()
    }

    /// Draws the conclusions after an event: passes the guest's shutdown on to the host once everything before it is
    /// delivered, and says whether the connection is over.
    pub fn settle(&mut self) -> Outcome {
        let guest_done =
            self.link.as_ref().map_or(Halves { receive: true, send: true }, Connection::guest_done);
        let delivered = self.host.held() == 0;
        if guest_done.receive && self.hung_up {
            self.host_sends_no_more();
        }
        if guest_done.receive && self.alive && !self.refused {
            self.refused = true;
            self.host.refuse();
        }
        if guest_done.send && delivered {
            self.host.finish();
        }
        let reset = if guest_done.both() && delivered { self.reset() } else { None };
        Outcome { reset, ended: self.link.is_none() && delivered && self.alive }
    }

    /// What the socket is to be watched for; no events mean that only its hanging up matters, `None` that nothing does.
    /// Nothing is asked for that could not be acted upon, or the loop would spin.
    pub fn interest(&self) -> Option<EventSet> {
        let mut events = EventSet::empty();
        if self.host.held() > 0 {
            events |= EventSet::OUT;
        }
        match &self.link {
            Some(link) if link.is_requested() => return None,
            Some(link) if link.can_send() && !self.readable => events |= EventSet::IN,
            Some(link) if link.guest_done().receive && !self.alive => events |= EventSet::IN,
            None if !self.alive => events |= EventSet::IN,
            _ => {}
        }
        if events.is_empty() && self.hung_up { None } else { Some(events) }
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.host.as_fd()
    }
}
