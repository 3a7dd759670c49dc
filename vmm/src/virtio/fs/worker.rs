//! Moves messages between the queues and the server's socket, straight from and to the guest's memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use vmm_sys_util::epoll::EventSet;

use super::super::buffers::{Sink, Source};
use super::super::queue::{Chain, DeviceQueue, MAX_CHAINS_PER_CALL, host};
use super::MAX_REQUEST_BYTES;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

/// `struct fuse_in_header`: what every request begins with.
const IN_HEADER_BYTES: usize = 40;
/// Where that has the request's number, which an answer repeats.
const UNIQUE_OFFSET: usize = 8;

const SERVER: u32 = 2;

/// The running device.
pub struct Worker {
    memory: DeviceMemory,
    queues: [DeviceQueue; 2],
    server: OwnedFd,
    /// What the server has got and not answered yet, in this order, with the number of its queue.
    pending: VecDeque<(usize, Chain)>,
    /// The server's socket is full: the loop waits until it takes more.
    full: bool,
    /// What the loop watches the socket for, if it does.
    watched: Option<EventSet>,
    /// There is no server any more, and every request fails.
    gone: bool,
}

/// What came of the attempt to send a request.
enum Sent {
    Yes,
    /// The socket is full.
    Full,
    /// It cannot be sent, whoever is to blame.
    Refused,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        for (token, queue) in (0..).zip(&self.queues) {
            queue.watch(registry, token)?;
        }
        self.watch_server(registry)
    }

    fn handle(
        &mut self,
        token: u32,
        events: EventSet,
        registry: &mut dyn Registry,
    ) -> Result<(), HandlerError> {
        match token {
            SERVER => {
                self.receive()?;
                if events.contains(EventSet::OUT) {
                    self.full = false;
                    (0..self.queues.len()).try_for_each(|queue| self.send(queue))?;
                }
            }
            queue => self.send(queue as usize)?,
        }
        for queue in &mut self.queues {
            queue.signal(&self.memory)?;
        }
        self.watch_server(registry)
    }
}

impl Worker {
    /// A worker for two queues and a server.
    pub fn new(memory: DeviceMemory, queues: [DeviceQueue; 2], server: OwnedFd) -> Self {
        Self { memory, queues, server, pending: VecDeque::new(), full: false, watched: None, gone: false }
    }

    fn watch_server(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        let events = if self.full { EventSet::IN | EventSet::OUT } else { EventSet::IN };
        let wanted = (!self.gone).then_some(events);
        let fd = self.server.as_raw_fd();
        match (self.watched, wanted) {
            (None, Some(events)) => registry.add(fd, events, SERVER),
            (Some(_), None) => registry.remove(fd),
            (Some(was), Some(events)) if was != events => registry.modify(fd, events, SERVER),
            _ => Ok(()),
        }
        .map_err(host("watching a file system's server"))?;
        self.watched = wanted;
        Ok(())
    }

    /// Sends requests of a queue until there are no more, or the socket is full, or it is enough for one call.
    fn send(&mut self, index: usize) -> Result<(), HandlerError> {
        let Self { memory, queues, server, pending, full, gone, .. } = self;
        let Some(queue) = queues.get_mut(index) else { return Ok(()) };
        queue.clear_notification()?;
        for _ in 0..MAX_CHAINS_PER_CALL {
            if *full {
                return Ok(());
            }
            let Some(chain) = queue.fetch(memory, |chains| !chains.is_empty())?.front() else {
                match queue.await_notification(memory)? {
                    true => continue,
                    false => return Ok(()),
                }
            };
            let sent = if *gone { Sent::Refused } else { send(memory, server, chain) };
            if matches!(sent, Sent::Full) {
                *full = true;
                return Ok(());
            }
            let Some(chain) = queue.pop(memory)? else { return Ok(()) };
            match sent {
                Sent::Yes => pending.push_back((index, chain)),
                _ => {
                    let written = refuse(memory, &chain);
                    queue.give_back(memory, chain, written)?;
                }
            }
        }
        queue.kick()
    }

    /// Takes answers until there are no more, or it is enough for one call: the socket remains readable for the rest.
    fn receive(&mut self) -> Result<(), HandlerError> {
        for _ in 0..MAX_CHAINS_PER_CALL {
            let Some((_, chain)) = self.pending.front() else { return self.expect_silence() };
            let received = receive(&self.memory, &self.server, chain);
            let written = match received {
                Ok(0) => return self.lose_server(),
                // One byte stands for no reply.
                Ok(1) => 0,
                Ok(count) => count.min(chain.writable.len()) as u32,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The guest's buffers are no memory; the answer is still there, and has to go.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    discard(&self.server).map_err(host("reading from a file system's server"))?;
                    0
                }
                Err(_) => return self.lose_server(),
            };
            self.answer_first(|_, _| written)?;
        }
        Ok(())
    }

    /// Nothing is asked, so nothing can come but the end.
    fn expect_silence(&mut self) -> Result<(), HandlerError> {
        match discard(&self.server) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => self.lose_server(),
        }
    }

    /// Lets everything fail that waits, rather than wait for ever.
    fn lose_server(&mut self) -> Result<(), HandlerError> {
        (self.gone, self.full) = (true, false);
        while !self.pending.is_empty() {
            self.answer_first(refuse)?;
        }
        (0..self.queues.len()).try_for_each(|queue| self.send(queue))
    }

    fn answer_first(&mut self, write: impl FnOnce(&DeviceMemory, &Chain) -> u32) -> Result<(), HandlerError> {
        let Some((index, chain)) = self.pending.pop_front() else { return Ok(()) };
        let written = write(&self.memory, &chain);
        match self.queues.get_mut(index) {
            Some(queue) => queue.give_back(&self.memory, chain, written),
            None => Ok(()),
        }
    }
}

fn send(memory: &DeviceMemory, server: &OwnedFd, chain: &Chain) -> Sent {
    if !(IN_HEADER_BYTES..=MAX_REQUEST_BYTES).contains(&chain.readable.len()) {
        return Sent::Refused;
    }
    let sent = Source::new(memory, &chain.readable)
        .map_err(io::Error::from)
        .and_then(|request| request.send(server.as_fd()));
    match sent {
        Ok(_) => Sent::Yes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
        Err(_) => Sent::Refused,
    }
}

/// Receives one packet into a request's buffers; what does not fit is lost. At least one byte fits.
fn receive(memory: &DeviceMemory, server: &OwnedFd, chain: &Chain) -> io::Result<usize> {
    let mut excess = [0];
    let mut sink = Sink::new(memory, &chain.writable)?;
    sink.add_overflow(&mut excess)?;
    sink.receive(server.as_fd())
}

/// Takes a packet away.
fn discard(server: &OwnedFd) -> io::Result<()> {
    let mut excess = [0];
    let mut sink = Sink::default();
    sink.add_overflow(&mut excess)?;
    match sink.receive(server.as_fd())? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Answers a request with an I/O error (`struct fuse_out_header`), if it has room for an answer.
fn refuse(memory: &DeviceMemory, chain: &Chain) -> u32 {
    const OUT_HEADER_BYTES: u32 = 16;
    let Ok(unique) = chain.readable.read::<8>(memory, UNIQUE_OFFSET) else { return 0 };
    let mut header = Vec::from(OUT_HEADER_BYTES.to_le_bytes());
    header.extend((-libc::EIO).to_le_bytes());
    header.extend(unique);
    chain.writable.write(memory, 0, &header).map_or(0, |()| OUT_HEADER_BYTES)
}
