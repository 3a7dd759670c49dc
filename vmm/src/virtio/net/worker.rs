//! Moves frames between the tap and the queues.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vmm_sys_util::epoll::EventSet;

use super::super::buffers::{AccessError, Sink, Source};
use super::super::queue::{Chain, DeviceQueue, host};
use super::Throttles;
use super::tap::HEADER_BYTES;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

/// The longest frame with its header: a segment of 64 KiB with what precedes it (section 5.1.6.3.1).
pub const MAX_FRAME_BYTES: usize = 65_562;
/// How many frames are received in one call.
pub const MAX_FRAMES_PER_CALL: usize = 64;
/// How many pieces of memory a frame goes to, well below what a system call takes.
const MAX_PIECES: usize = 512;
/// Where the header tells how many buffers the frame takes.
const NUM_BUFFERS_OFFSET: usize = 10;

const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;
const TAP: u32 = 2;

/// The running device.
pub struct Worker {
    memory: DeviceMemory,
    to_guest: DeviceQueue,
    from_guest: DeviceQueue,
    tap: File,
    /// Whether a frame may take several of the guest's buffers.
    mergeable: bool,
    /// The guest lacks buffers for a frame, and has been asked to notify of new ones.
    stalled: bool,
    /// The guest has received as much as it may, and the loop wakes this worker when it may again.
    throttled: bool,
    /// Whether the loop watches the tap, which it must not while nothing can be done about a frame.
    watched: bool,
    throttles: Throttles,
}

/// What came of the attempt to receive a frame.
enum Received {
    Frame,
    /// The tap has none.
    Nothing,
    /// The guest has no room for one.
    NoRoom,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.to_guest.watch(registry, TO_GUEST)?;
        self.from_guest.watch(registry, FROM_GUEST)?;
        self.watch_tap(registry)
    }

    fn handle(&mut self, token: u32, _: EventSet, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        match token {
            FROM_GUEST => self.transmit(registry),
            TO_GUEST => {
                self.to_guest.clear_notification()?;
                // Whatever the tap has kept since the stall is received now: nothing else would call for it.
                if std::mem::take(&mut self.stalled) { self.receive(registry) } else { Ok(()) }
            }
            _ => self.receive(registry),
        }?;
        self.watch_tap(registry)
    }

    /// Whichever direction asked for it: the other one asks again if it has to.
    fn wake(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.transmit(registry)?;
        if std::mem::take(&mut self.throttled) {
            self.receive(registry)?;
        }
        self.watch_tap(registry)
    }
}

impl Worker {
    /// A worker for a tap and two queues.
    pub fn new(
        memory: DeviceMemory,
        to_guest: DeviceQueue,
        from_guest: DeviceQueue,
        tap: File,
        mergeable: bool,
        throttles: Throttles,
    ) -> Self {
        let (stalled, throttled, watched) = (false, false, false);
        Self { memory, to_guest, from_guest, tap, mergeable, stalled, throttled, watched, throttles }
    }

    fn watch_tap(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        let tap = self.tap.as_raw_fd();
        let wanted = !self.stalled && !self.throttled;
        match (self.watched, wanted) {
            (false, true) => registry.add(tap, EventSet::IN, TAP),
            (true, false) => registry.remove(tap),
            _ => Ok(()),
        }
        .map_err(host("watching the tap"))?;
        self.watched = wanted;
        Ok(())
    }

    fn transmit(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        let Self { memory, from_guest, tap, throttles, .. } = self;
        let throttle = &throttles.from_guest;
        let admits = || throttle.admits(registry);
        from_guest.serve_while(memory, admits, |chain| {
            // One that claims to be longer is lost.
            throttle.charge(chain.readable.len().min(MAX_FRAME_BYTES).saturating_sub(HEADER_BYTES));
            transmit(memory, tap, chain)
        })
    }

    /// Receives frames until there are no more, or no buffers for them, or the guest has had enough, or it is enough for one
    /// call: the tap remains readable for the rest.
    fn receive(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        for _ in 0..MAX_FRAMES_PER_CALL {
            if !self.throttles.to_guest.admits(registry) {
                self.throttled = true;
                break;
            }
            match self.receive_frame()? {
                Received::Frame => {}
                Received::Nothing => break,
                // Buffers that came in the meantime are not notified of: look again instead of waiting.
                Received::NoRoom if self.to_guest.await_notification(&self.memory)? => {}
                Received::NoRoom => {
                    self.stalled = true;
                    break;
                }
            }
        }
        self.to_guest.signal(&self.memory)
    }

    fn receive_frame(&mut self) -> Result<Received, HandlerError> {
        let Self { memory, to_guest, tap, mergeable, .. } = self;
        let most = if *mergeable { to_guest.size() } else { 1 };
        let chains = to_guest.fetch(memory, |chains| buffers_for_frame(chains, most).is_some())?;
        let Some(count) = buffers_for_frame(chains, most) else { return Ok(Received::NoRoom) };
        // One byte more than there is room for tells a frame that is cut off from one that just fits.
        let mut excess = [0];
        let (sink, room) = match sink(memory, chains.iter().take(count), &mut excess) {
            Ok(sink) => sink,
            Err(error) => return Err(to_guest.broken(error.to_string())),
        };
        let len = match sink.read_from(tap.as_fd()) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) => return Err(host("reading from the tap")(error)),
        };
        self.throttles.to_guest.charge(len.saturating_sub(HEADER_BYTES));
        // One that is too long is lost.
        if (HEADER_BYTES..=room).contains(&len) {
            self.deliver(len)?;
        }
        Ok(Received::Frame)
    }

    /// Returns the buffers that the `len` bytes of a frame are in.
    fn deliver(&mut self, len: usize) -> Result<(), HandlerError> {
        let mut used = Vec::new();
        let mut left = len;
        while left > 0 {
            let Some(chain) = self.to_guest.pop(&self.memory)? else { break };
            let part = chain.writable.len().min(left);
            left -= part;
            used.push((chain, part as u32));
        }
        // Where buffers are not merged, the number has to be 1 all the same.
        let num_buffers = (used.len() as u16).to_le_bytes();
        if let Some((first, _)) = used.first() {
            first
                .writable
                .write(&self.memory, NUM_BUFFERS_OFFSET, &num_buffers)
                .map_err(|error| self.to_guest.broken(error.to_string()))?;
        }
        used.into_iter().try_for_each(|(chain, part)| self.to_guest.give_back(&self.memory, chain, part))
    }
}

/// How many of the guest's buffers the next frame may take; `None` if it might not fit and the guest can post more. One
/// that has posted as many as its queue holds (`most`) will not before it gets some back, so then they have to do.
fn buffers_for_frame(chains: &VecDeque<Chain>, most: usize) -> Option<usize> {
    let (mut bytes, mut pieces) = (0_usize, 0);
    (1..).zip(chains).find_map(|(count, chain)| {
        bytes = bytes.saturating_add(chain.writable.len());
        pieces += chain.writable.pieces();
        (bytes >= MAX_FRAME_BYTES || pieces >= MAX_PIECES || count >= most).then_some(count)
    })
}

/// The memory of `chains` and, behind it, `excess`; and how much the guest's part of it is, as far as frames go.
fn sink<'m>(
    memory: &'m DeviceMemory,
    chains: impl Iterator<Item = &'m Chain>,
    excess: &'m mut [u8],
) -> Result<(Sink<'m>, usize), AccessError> {
    let mut sink = Sink::default();
    for chain in chains {
        // Each buffer has room for a header (section 5.1.6.3.1).
        chain.writable.range(0, HEADER_BYTES)?;
        sink.add(memory, &chain.writable)?;
    }
    let room = sink.len().min(MAX_FRAME_BYTES);
    sink.add_overflow(excess)?;
    Ok((sink, room))
}

/// Sends a frame. One that is too long or short, or that the tap does not take, is lost, as frames may be.
fn transmit(memory: &DeviceMemory, tap: &File, chain: &Chain) -> u32 {
    if (HEADER_BYTES..=MAX_FRAME_BYTES).contains(&chain.readable.len()) {
        let _lost = Source::new(memory, &chain.readable)
            .map_err(io::Error::from)
            .and_then(|frame| frame.write_to(tap.as_fd()));
    }
    0
}
