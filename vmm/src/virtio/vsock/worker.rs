//! Moves packets between the queues and the connections.
//!
//! Data is read from sockets straight into as many of the guest's buffers as a burst fills, leaving room for the headers,
//! and written to sockets straight from the guest's packets. A call does a limited amount of work and then
//! notifies itself for the rest.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::epoll::EventSet;

use super::super::buffers::{AccessError, Buffers, Sink};
use super::super::queue::{Chain, DeviceQueue, MAX_BYTES_PER_CALL, MAX_CHAINS_PER_CALL, host};
use super::entry::{Entry, Origin};
use super::muxer::{Muxer, SOCKET_TOKEN, Work};
use super::packet::{HEADER_BYTES, Header};
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;
const LISTENERS: u32 = 2;
/// How much is read from a socket at once, in at most this many packets.
const BURST_BYTES: usize = 64 << 10;
const BURST_PACKETS: usize = 32;
/// How many pieces of memory a burst goes to, well below what a system call takes.
const BURST_PIECES: usize = 512;
/// How many connections are accepted in one call.
const MAX_ACCEPTS_PER_CALL: usize = 16;
/// How long the last data waits for host programs to take it when the device stops.
const PARTING_TIME: Duration = Duration::from_secs(1);

/// A socket on which programs of the host connect to one of the guest's ports.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: UnixListener,
    /// The port in the guest.
    pub guest_port: u32,
    /// Whether the loop watches it.
    pub watched: bool,
}

/// The running device.
pub struct Worker {
    pub(super) memory: DeviceMemory,
    pub(super) to_guest: DeviceQueue,
    pub(super) from_guest: DeviceQueue,
    pub(super) listeners: Vec<Listener>,
    pub(super) muxer: Muxer,
    /// The guest's queue has no buffers, and it has been asked to notify of new ones.
    pub(super) starved: bool,
    /// Packets wait in the guest's other queue until their answers have room.
    pub(super) backlog: bool,
    /// Accepting failed; it is tried again when a connection has ended.
    pub(super) exhausted: bool,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.to_guest.watch(registry, TO_GUEST)?;
        self.from_guest.watch(registry, FROM_GUEST)?;
        self.watch(registry)
    }

    fn handle(
        &mut self,
        token: u32,
        events: EventSet,
        registry: &mut dyn Registry,
    ) -> Result<(), HandlerError> {
        match token {
            TO_GUEST => {
                self.to_guest.clear_notification()?;
                self.starved = false;
            }
            FROM_GUEST => {
                self.from_guest.clear_notification()?;
                self.receive()?;
            }
            socket if socket & SOCKET_TOKEN != 0 => self.muxer.on_event(socket & !SOCKET_TOKEN, events),
            listener => self.accept((listener - LISTENERS) as usize),
        }
        self.send()?;
        if self.backlog && self.muxer.accepts_packets() {
            self.backlog = false;
            self.from_guest.kick()?;
        }
        self.to_guest.signal(&self.memory)?;
        self.from_guest.signal(&self.memory)?;
        self.watch(registry)
    }
}

impl Worker {
    fn watch(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        let failed = host("watching a vsock connection");
        if self.muxer.watch(registry).map_err(&failed)? {
            self.exhausted = false;
        }
        let accepting = !self.exhausted && self.muxer.has_room(Origin::Host);
        for (listener, token) in self.listeners.iter_mut().zip(LISTENERS..) {
            let fd = listener.socket.as_raw_fd();
            match (listener.watched, accepting) {
                (false, true) => registry.add(fd, EventSet::IN, token).map_err(&failed)?,
                (true, false) => registry.remove(fd).map_err(&failed)?,
                _ => {}
            }
            listener.watched = accepting;
        }
        Ok(())
    }

    fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        for _ in 0..MAX_ACCEPTS_PER_CALL {
            if !self.muxer.has_room(Origin::Host) {
                return;
            }
            let accepted = listener.socket.accept();
            match accepted.and_then(|(stream, _)| self.muxer.connect(stream, listener.guest_port)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.exhausted = true;
                    return;
                }
            }
        }
    }

    /// Takes packets from the guest.
    fn receive(&mut self) -> Result<(), HandlerError> {
        let mut bytes = 0_usize;
        for _ in 0..MAX_CHAINS_PER_CALL {
            if !self.muxer.accepts_packets() {
                self.backlog = true;
                return Ok(());
            }
            let Some(chain) = self.from_guest.pop(&self.memory)? else {
                if self.from_guest.await_notification(&self.memory)? {
                    continue;
                }
                return Ok(());
            };
            bytes = bytes.saturating_add(chain.len());
            let mut data = chain.readable.clone();
            // A packet without a whole header says nothing of whom to answer.
            let header = data.split_front(HEADER_BYTES).and_then(|header| header.read(&self.memory, 0));
            if let Ok(header) = header {
                self.muxer.receive(&Header::from_bytes(&header), &data, &self.memory);
            }
            self.from_guest.give_back(&self.memory, chain, 0)?;
            if bytes >= MAX_BYTES_PER_CALL {
                break;
            }
        }
        self.from_guest.kick()
    }

    /// Sends packets to the guest as long as there are some and it has buffers.
    fn send(&mut self) -> Result<(), HandlerError> {
        for _ in 0..MAX_CHAINS_PER_CALL {
            if self.starved || !self.muxer.has_work() {
                return Ok(());
            }
            if self.to_guest.fetch(&self.memory, |chains| !chains.is_empty())?.is_empty() {
                self.starved = !self.to_guest.await_notification(&self.memory)?;
                continue;
            }
            match self.muxer.next_work() {
                Some(Work::Packet(header)) => self.send_packet(header, 0)?,
                Some(Work::Data(id)) => self.send_data(id)?,
                None => {}
            }
        }
        self.to_guest.kick()
    }

    /// Puts a header before `len` bytes of data that are already in the guest's next buffer.
    fn send_packet(&mut self, header: Header, len: usize) -> Result<(), HandlerError> {
        let Some(chain) = self.to_guest.pop(&self.memory)? else { return Ok(()) };
        chain
            .writable
            .write(&self.memory, 0, &header.to_bytes())
            .map_err(|error| self.to_guest.broken(error.to_string()))?;
        self.to_guest.give_back(&self.memory, chain, (HEADER_BYTES + len) as u32)
    }

    /// Reads a burst from a socket into the guest's next buffers, each of which becomes a packet.
    fn send_data(&mut self, id: u32) -> Result<(), HandlerError> {
        let Self { memory, to_guest, muxer, .. } = self;
        let Some((socket, credit)) = muxer.source(id) else { return Ok(()) };
        let parts = parts(to_guest, memory, credit.min(BURST_BYTES))?;
        let sink = sink(memory, &parts).map_err(|error| to_guest.broken(error.to_string()))?;
        let result = sink.read_from(socket);
        let mut left = muxer.note_read(id, result, sink.len());
        for part in parts {
            let len = part.len().min(left);
            let Some(header) = self.muxer.data(id, len).filter(|_| len > 0) else { break };
            left -= len;
            self.send_packet(header, len)?;
        }
        self.muxer.refresh(id);
        Ok(())
    }
}

/// The parts of the guest's next buffers, behind the headers, that hold `limit` bytes together.
fn parts(queue: &mut DeviceQueue, memory: &DeviceMemory, limit: usize) -> Result<Vec<Buffers>, HandlerError> {
    let room = |chain: &Chain| chain.writable.len().saturating_sub(HEADER_BYTES);
    let chains = queue.fetch(memory, |chains| {
        chains.len() >= BURST_PACKETS || chains.iter().map(room).sum::<usize>() >= limit
    })?;
    let (mut parts, mut left, mut pieces) = (Vec::new(), limit, 0);
    for chain in chains.iter().take(BURST_PACKETS) {
        pieces += chain.writable.pieces();
        let len = room(chain).min(left);
        if len == 0 || pieces > BURST_PIECES && !parts.is_empty() {
            break;
        }
        left -= len;
        // The range is there: `room` says so.
        parts.extend(chain.writable.range(HEADER_BYTES, len));
    }
    if parts.is_empty() {
        return Err(queue.broken("a buffer for packets is too short for a header and data"));
    }
    Ok(parts)
}

fn sink<'m>(memory: &'m DeviceMemory, parts: &[Buffers]) -> Result<Sink<'m>, AccessError> {
    let mut sink = Sink::default();
    for part in parts {
        sink.add(memory, part)?;
    }
    Ok(sink)
}

/// What the guest sent last is given to the host's programs if they take it in time: a guest that powers off
/// has no way to wait for that.
impl Drop for Worker {
    fn drop(&mut self) {
        let deadline = Instant::now() + PARTING_TIME;
        while wait_for_takers(&mut self.muxer, deadline.saturating_duration_since(Instant::now())) {
            self.muxer.holding().for_each(Entry::flush);
        }
    }
}

/// Waits until a program can take data that is held for it; false if there is none, or not in time.
fn wait_for_takers(muxer: &mut Muxer, timeout: Duration) -> bool {
    let holding: Vec<&mut Entry> = muxer.holding().collect();
    let mut takers: Vec<PollFd<'_>> =
        holding.iter().map(|entry| PollFd::new(entry.as_fd(), PollFlags::POLLOUT)).collect();
    let Ok(timeout) = PollTimeout::try_from(timeout) else { return false };
    !takers.is_empty() && matches!(poll(&mut takers, timeout), Ok(1..) | Err(Errno::EINTR))
}
