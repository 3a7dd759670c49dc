//! The driver's side of the queues, for the devices' tests.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{Activation, ActiveQueue, Interrupt};
use super::throttle::Throttle;
use super::window::Windows;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;
use crate::rate_limiter::{Rate, RateLimits};

/// The flag of a descriptor that another one follows.
pub const NEXT: u16 = 1;
/// The flag of a descriptor that the device writes.
pub const WRITE: u16 = 2;
/// The flag of a descriptor that refers to a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Where the buffers of the tests may be; the rings are below.
pub const BUFFERS: u64 = 0x10_0000;
const MEMORY_BYTES: usize = 64 << 20;
const QUEUE_BYTES: u64 = 0x4000;

/// A piece of a request as a driver writes it.
#[derive(Clone, Copy, Debug)]
pub enum Piece {
    /// Bytes for the device to read.
    Read(u64, u32),
    /// Room for the device to write.
    Write(u64, u32),
}

/// The driver's end of one queue.
pub struct DriverQueue {
    memory: DeviceMemory,
    base: u64,
    size: u16,
    next_descriptor: u16,
    available: u16,
    seen_used: u16,
    /// Whether the device said which buffers it wants to be told of.
    event_idx: Cell<bool>,
    /// Tells the device of new buffers.
    pub notify: EventFd,
}

impl DriverQueue {
    fn avail(&self) -> u64 {
        self.base + 0x2000
    }

    fn used(&self) -> u64 {
        self.base + 0x3000
    }

    fn device_side(&self) -> ActiveQueue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_size(self.size);
        queue.set_desc_table_address(Some(self.base as u32), Some(0));
        queue.set_avail_ring_address(Some(self.avail() as u32), Some(0));
        queue.set_used_ring_address(Some(self.used() as u32), Some(0));
        queue.set_ready(true);
        assert!(queue.is_valid(&self.memory));
        ActiveQueue { queue, notify: self.notify.try_clone().unwrap() }
    }

    /// Writes one descriptor, whatever it says.
    pub fn set_descriptor(&mut self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let descriptor = Descriptor::new(address, len, flags, next);
        self.memory.write_obj(descriptor, GuestAddress(self.base + 16 * u64::from(index))).unwrap();
    }

    /// Puts the chain that starts at `head` in the ring, and moves the index by `step`.
    pub fn offer(&mut self, head: u16, step: u16) {
        let slot = self.avail() + 4 + 2 * u64::from(self.available % self.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(step);
        self.memory.store(self.available, GuestAddress(self.avail() + 2), Ordering::SeqCst).unwrap();
    }

    /// Adds a proper chain, notifies if the device wants that, and returns the chain's head.
    pub fn add(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next_descriptor;
        for (at, piece) in pieces.iter().enumerate() {
            let (address, len, flags) = match *piece {
                Piece::Read(address, len) => (address, len, 0),
                Piece::Write(address, len) => (address, len, WRITE),
            };
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let chained = if at + 1 < pieces.len() { NEXT } else { 0 };
            self.set_descriptor(index, address, len, flags | chained, self.next_descriptor);
        }
        self.offer(head, 1);
        if self.device_wants_to_know() {
            self.notify.write(1).unwrap();
        }
        head
    }

    /// Whether the buffer offered last is the one that the device waits for (virtio 1.2, section 2.7.10).
    fn device_wants_to_know(&self) -> bool {
        let avail_event = self.used() + 4 + 8 * u64::from(self.size);
        let awaited: u16 = self.memory.load(GuestAddress(avail_event), Ordering::SeqCst).unwrap();
        !self.event_idx.get() || awaited == self.available.wrapping_sub(1)
    }

    /// The next chain that the device has returned: its head and the bytes written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = self.memory.load(GuestAddress(self.used() + 2), Ordering::SeqCst).unwrap();
        if index == self.seen_used {
            return None;
        }
        let slot = self.used() + 4 + 8 * u64::from(self.seen_used % self.size);
        self.seen_used = self.seen_used.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        // With EVENT_IDX: an interrupt for the next one, please.
        let used_event = self.avail() + 4 + 2 * u64::from(self.size);
        self.memory.store(self.seen_used, GuestAddress(used_event), Ordering::SeqCst).unwrap();
        Some((head as u16, len))
    }
}

/// A driver with its memory and its queues, and the interrupt that it receives.
pub struct Driver {
    /// Guest memory.
    pub memory: DeviceMemory,
    /// The queues, in the device's order.
    pub queues: Vec<DriverQueue>,
    irqfd: Arc<EventFd>,
}

impl Driver {
    /// A driver that has set up queues of these sizes, at most 256 each.
    pub fn new(sizes: &[u16]) -> Self {
        let regions = [(GuestAddress(0), MEMORY_BYTES)];
        Self::with_memory(DeviceMemory::from(GuestMemoryMmap::from_ranges(&regions).unwrap()), sizes)
    }

    /// The same with memory of the test's making.
    pub fn with_memory(memory: DeviceMemory, sizes: &[u16]) -> Self {
        let queues = sizes
            .iter()
            .zip(0..)
            .map(|(size, index)| DriverQueue {
                memory: memory.clone(),
                base: QUEUE_BYTES * (index + 1),
                size: *size,
                next_descriptor: 0,
                available: 0,
                seen_used: 0,
                event_idx: Cell::new(false),
                notify: EventFd::new(EFD_NONBLOCK).unwrap(),
            })
            .collect();
        let irqfd = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        Self { memory, queues, irqfd }
    }

    /// What the device gets at DRIVER_OK.
    pub fn activation(&self, features: u64) -> Activation {
        for queue in &self.queues {
            queue.event_idx.set(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
        }
        Activation {
            memory: self.memory.clone(),
            interrupt: Interrupt::new(Windows::new().unwrap().window(0), self.irqfd.clone()),
            queues: self.queues.iter().map(DriverQueue::device_side).collect(),
            features,
        }
    }

    /// How many interrupts came since the last call.
    pub fn interrupts(&self) -> u64 {
        self.irqfd.read().unwrap_or(0)
    }

    /// Writes guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Reads guest memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// What a handler watches, and a loop around poll(2) to run it, whose time passes as a test says.
#[derive(Default)]
pub struct Watched {
    fds: BTreeMap<RawFd, (EventSet, u32)>,
    now: Duration,
    wake_at: Option<Duration>,
}

impl Watched {
    /// Whether `fd` is watched.
    pub fn is_watched(&self, fd: RawFd) -> bool {
        self.fds.contains_key(&fd)
    }

    /// How many descriptors are watched.
    pub fn len(&self) -> usize {
        self.fds.len()
    }

    /// When the handler is to be woken.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.wake_at
    }

    /// Lets time pass, up to `now`.
    pub fn set_clock(&mut self, now: Duration) {
        self.now = now;
    }

    /// Calls the handler for everything that is ready, the time included, once each; returns how many calls that were.
    pub fn turn(&mut self, handler: &mut dyn EventHandler) -> Result<usize, HandlerError> {
        let mut polled: Vec<libc::pollfd> = self
            .fds
            .iter()
            .map(|(fd, (events, _))| libc::pollfd { fd: *fd, events: events.bits() as i16, revents: 0 })
            .collect();
        // SAFETY: the array is of the length given.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as u64, 0) };
        assert!(ready >= 0);
        let mut calls = 0;
        for entry in polled.iter().filter(|entry| entry.revents != 0) {
            // An earlier call may have removed it.
            let Some((_, token)) = self.fds.get(&entry.fd).copied() else { continue };
            let events = EventSet::from_bits_truncate(entry.revents as u32);
            handler.handle(token, events, self)?;
            calls += 1;
        }
        if self.wake_at.is_some_and(|at| at <= self.now) {
            self.wake_at = None;
            handler.wake(self)?;
            calls += 1;
        }
        Ok(calls)
    }

    /// Calls the handler until nothing is ready; panics if that does not come to pass.
    pub fn settle(&mut self, handler: &mut dyn EventHandler) -> Result<usize, HandlerError> {
        let mut calls = 0;
        for _ in 0..10_000 {
            match self.turn(handler)? {
                0 => return Ok(calls),
                more => calls += more,
            }
        }
        panic!("the handler runs without end");
    }
}

impl Registry for Watched {
    fn add(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        assert!(self.fds.insert(fd, (events, token)).is_none(), "{fd} is watched already");
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        assert!(self.fds.insert(fd, (events, token)).is_some(), "{fd} is not watched");
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        assert!(self.fds.remove(&fd).is_some(), "{fd} is not watched");
        Ok(())
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn wake_at(&mut self, at: Duration) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Free guest memory for buffers, handed out in order and never taken back.
pub struct Arena(u64);

impl Arena {
    /// All of the memory above the rings.
    pub fn new() -> Self {
        Self(BUFFERS)
    }

    /// The address of `len` fresh bytes.
    pub fn take(&mut self, len: u32) -> u64 {
        let address = self.0;
        self.0 += u64::from(len).next_multiple_of(16);
        assert!(self.0 <= MEMORY_BYTES as u64);
        address
    }
}

/// A throttle of so many bytes and operations a second, of which a full bucket holds one second's; 0 is no limit.
pub fn throttle(bytes: u64, operations: u64) -> Throttle {
    let rate = |amount| NonZeroU64::new(amount).map(|amount| Rate { per_second: amount, burst: amount });
    Throttle::new(RateLimits { bytes: rate(bytes), operations: rate(operations) })
}

/// All that a queue has returned.
pub fn drain(queue: &mut DriverQueue) -> VecDeque<(u16, u32)> {
    std::iter::from_fn(|| queue.take_used()).collect()
}
