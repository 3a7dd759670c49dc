//! A device behind its registers, guest memory with a read-only part, and a driver that does anything to both.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arbitrary::Arbitrary;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::ProtFlags;
use vm_memory::{Bytes, GuestAddress};
use vmm::console::ConsoleLog;
use vmm::event_loop::{EventHandler, EventLoop, HandlerError, OnFailure, Registry, WorkerId, Workers};
use vmm::memory::{DeviceMemory, Mapping, Region};
use vmm::virtio::device::VirtioDevice;
use vmm::virtio::mmio::MmioTransport;
use vmm::virtio::window::{Window, Windows};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const RAM_BYTES: u64 = 2 << 20;
/// Where the read-only memory of the pmem device is.
pub const ROM_START: u64 = 1 << 30;
/// Its size.
pub const ROM_BYTES: u64 = 16 << 10;
/// Each queue's descriptors, driver ring and device ring, and a table of indirect descriptors.
const QUEUE_BYTES: u64 = 0x4000;
const BUFFERS: u64 = 0x10_0000;
const QUEUE_ENTRIES: u16 = 64;
/// How often a handler is called after each operation. A driver may keep it busy for ever, at its own cost.
const TURNS: usize = 8;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// An address in guest memory, or not.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Buffer(u16),
    Ram(u32),
    Rom(u16),
    /// Among the rings of a queue.
    Ring(u8, u16),
    Wild(u64),
}

impl Place {
    fn address(self) -> u64 {
        match self {
            Self::Buffer(at) => BUFFERS + u64::from(at),
            Self::Ram(at) => u64::from(at) % (RAM_BYTES + 8),
            Self::Rom(at) => ROM_START + u64::from(at) % (ROM_BYTES + 8),
            Self::Ring(queue, at) => base(queue.into()) + u64::from(at) % QUEUE_BYTES,
            Self::Wild(address) => address,
        }
    }
}

/// A part of a request.
#[derive(Arbitrary, Clone, Debug)]
enum Piece {
    /// These bytes, for the device to read.
    Bytes(Vec<u8>),
    Read(Place, u32),
    Write(Place, u32),
    /// Room of a modest size in free memory.
    Room(u16),
}

/// What the driver, or the host's end, does.
#[derive(Arbitrary, Clone, Debug)]
enum Operation {
    WriteRegister {
        offset: u16,
        width: u8,
        value: u64,
    },
    ReadRegister {
        offset: u16,
        width: u8,
    },
    /// As it should be done, from the reset to DRIVER_OK, but for the features that are not wanted.
    Start {
        without: u64,
        order: u8,
    },
    /// As it should be done, but for one queue's rings.
    StartWith {
        queue: u8,
        rings: [Place; 3],
        size: u32,
    },
    Reset,
    Request {
        queue: u8,
        pieces: Vec<Piece>,
        indirect: bool,
    },
    Descriptor {
        queue: u8,
        index: u8,
        place: Place,
        len: u32,
        flags: u16,
        next: u16,
    },
    Offer {
        queue: u8,
        head: u16,
        step: u16,
    },
    Poke {
        place: Place,
        bytes: Vec<u8>,
    },
    Notify(u8),
    Host(Vec<u8>),
}

/// What a fuzzer's input means.
#[derive(Arbitrary, Debug)]
pub struct Program(Vec<Operation>);

/// The host's side of a device: does something that `bytes` choose.
pub type HostEnd = Box<dyn FnMut(&[u8])>;

/// The worker and what it watches, on no thread of its own, so that a run is the same each time.
#[derive(Default)]
struct Loop {
    handler: Option<(Box<dyn EventHandler>, OnFailure)>,
    watched: Watched,
}

#[derive(Default)]
struct Watched(BTreeMap<RawFd, (EventSet, u32)>);

impl Registry for Watched {
    fn add(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        assert!(self.0.insert(fd, (events, token)).is_none(), "{fd} is watched already");
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        assert!(self.0.insert(fd, (events, token)).is_some(), "{fd} is not watched");
        Ok(())
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        assert!(self.0.remove(&fd).is_some(), "{fd} is not watched");
        Ok(())
    }

    // Time stands still: no device here has a limit that it would wait for.
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn wake_at(&mut self, _: Duration) {}
}

impl Loop {
    fn call(&mut self, call: impl FnOnce(&mut dyn EventHandler, &mut Watched) -> Result<(), HandlerError>) {
        let Some((handler, _)) = &mut self.handler else { return };
        if let Err(error) = call(&mut **handler, &mut self.watched) {
            self.watched.0.clear();
            // The handler goes before its failure is told, as on the real loop.
            if let Some(tell) = self.handler.take().map(|(_, on_failure)| on_failure) {
                tell(error);
            }
        }
    }

    /// Calls the handler for each descriptor that is ready; whether there was one.
    fn turn(&mut self) -> bool {
        let fds: Vec<(RawFd, PollFlags)> =
            self.watched.0.iter().map(|(fd, (events, _))| (*fd, flags(*events))).collect();
        // SAFETY: a handler takes a descriptor off before it closes it, and is not called while these are borrowed.
        let borrowed = |fd: RawFd| unsafe { BorrowedFd::borrow_raw(fd) };
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().map(|(fd, flags)| PollFd::new(borrowed(*fd), *flags)).collect();
        poll(&mut polled, PollTimeout::ZERO).expect("poll");
        let ready: Vec<PollFlags> =
            polled.iter().map(|entry| entry.revents().unwrap_or(PollFlags::empty())).collect();
        assert!(
            !ready.iter().any(|flags| flags.contains(PollFlags::POLLNVAL)),
            "a closed descriptor is watched"
        );
        for ((fd, _), flags) in fds.iter().zip(&ready).filter(|(_, flags)| !flags.is_empty()) {
            let events = EventSet::from_bits_truncate(flags.bits() as u32);
            if let Some((_, token)) = self.watched.0.get(fd).copied() {
                self.call(|handler, watched| handler.handle(token, events, watched));
            }
        }
        ready.iter().any(|flags| !flags.is_empty())
    }
}

fn flags(events: EventSet) -> PollFlags {
    PollFlags::from_bits_truncate(events.bits() as i16)
}

#[derive(Clone, Default)]
pub(crate) struct Bench(Arc<Mutex<Loop>>);

impl Bench {
    pub(crate) fn settle(&self) {
        let mut events = self.0.lock().expect("the loop");
        for _ in 0..TURNS {
            if !events.turn() {
                break;
            }
        }
    }
}

impl Workers for Bench {
    fn add(&self, handler: Box<dyn EventHandler>, on_failure: OnFailure) -> Option<WorkerId> {
        let mut events = self.0.lock().expect("the loop");
        assert!(events.handler.is_none(), "two workers of one device");
        events.handler = Some((handler, on_failure));
        events.call(|handler, watched| handler.start(watched));
        Some(*WORKER.get_or_init(a_worker_id))
    }

    fn remove(&self, _: WorkerId) {
        let mut events = self.0.lock().expect("the loop");
        events.watched.0.clear();
        events.handler = None;
    }
}

static WORKER: OnceLock<WorkerId> = OnceLock::new();

/// Only a loop makes these.
fn a_worker_id() -> WorkerId {
    struct Idle;
    impl EventHandler for Idle {
        fn start(&mut self, _: &mut dyn Registry) -> Result<(), HandlerError> {
            Ok(())
        }
        fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
            Ok(())
        }
    }
    let events = EventLoop::<()>::new().expect("a loop");
    let handle = events.handle();
    let thread = std::thread::spawn(|| events.run());
    let id = handle.add(Box::new(Idle), Box::new(|_| ())).expect("a running loop");
    handle.stop(());
    thread.join().expect("the loop's thread").expect("the loop's end");
    id
}

/// RAM, and read-only memory above it.
pub fn memory() -> DeviceMemory {
    let region = |start, bytes, protection| Region {
        start: GuestAddress(start),
        mapping: Arc::new(Mapping::anonymous(bytes, protection).expect("memory")),
    };
    let ram = region(0, RAM_BYTES, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
    DeviceMemory::new(vec![ram], vec![region(ROM_START, ROM_BYTES, ProtFlags::PROT_READ)]).expect("regions")
}

/// A transport for `device` whose worker runs on `bench`, what a driver reads of it, and the descriptors by which its queues are notified.
pub(crate) fn transport(
    device: Box<dyn VirtioDevice>,
    memory: &DeviceMemory,
    bench: &Bench,
) -> (MmioTransport, Window, Vec<EventFd>) {
    let event = || EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let notify: Vec<EventFd> = device.queue_sizes().iter().map(|_| event()).collect();
    let given = notify.iter().map(|fd| fd.try_clone().expect("a duplicate")).collect();
    let bench = Box::new(bench.clone());
    let window = Windows::new().expect("windows").window(0);
    let console = ConsoleLog::new(None);
    let transport =
        MmioTransport::new(device, window.clone(), given, event(), memory.clone(), bench, console);
    (transport, window, notify)
}

struct Machine {
    transport: MmioTransport,
    window: Window,
    memory: DeviceMemory,
    bench: Bench,
    notify: Vec<EventFd>,
    host: HostEnd,
    queues: Vec<Ring>,
    next_buffer: u64,
}

/// What the driver remembers of a queue.
#[derive(Clone, Copy, Default)]
struct Ring {
    descriptor: u16,
    available: u16,
}

fn base(queue: u64) -> u64 {
    0x1000 + queue % 4 * QUEUE_BYTES
}

/// Runs a program against a device.
pub fn run(program: Program, device: Box<dyn VirtioDevice>, host: HostEnd) {
    let bench = Bench::default();
    let memory = memory();
    let (transport, window, notify) = transport(device, &memory, &bench);
    let queues = vec![Ring::default(); notify.len()];
    let mut machine =
        Machine { transport, window, memory, bench, notify, host, queues, next_buffer: BUFFERS };
    for operation in program.0 {
        machine.carry_out(operation);
        machine.bench.settle();
    }
    machine.write(0x70, 0);
    assert!(machine.bench.0.lock().expect("the loop").handler.is_none(), "a reset leaves a worker");
}

impl Machine {
    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.window.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes as much as there is memory for: the guest itself cannot do more.
    fn poke(&self, address: u64, bytes: &[u8]) {
        let _not_all_memory = self.memory.write_slice(bytes, GuestAddress(address));
    }

    fn queue(&self, queue: u8) -> usize {
        usize::from(queue) % self.queues.len()
    }

    fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::WriteRegister { offset, width, value } => {
                let bytes = value.to_le_bytes();
                self.transport.write(u64::from(offset) % 0x1000, &bytes[..usize::from(width) % 9]);
            }
            Operation::ReadRegister { offset, width } => {
                self.window.read(u64::from(offset) % 0x1000, &mut [0; 8][..usize::from(width) % 9]);
            }
            Operation::Start { without, order } => self.start(without, order, None),
            Operation::StartWith { queue, rings, size } => {
                let queue = self.queue(queue);
                self.start(0, 0, Some((queue, rings.map(Place::address), size)));
            }
            Operation::Reset => {
                self.write(0x70, 0);
                assert_eq!(self.read(0x70), 0, "a reset is over when the register is read");
            }
            Operation::Request { queue, pieces, indirect } => self.request(queue, pieces, indirect),
            Operation::Descriptor { queue, index, place, len, flags, next } => {
                let table = base(self.queue(queue) as u64);
                self.descriptor(table, index.into(), (place.address(), len, flags), next);
            }
            Operation::Offer { queue, head, step } => self.offer(queue, head, step),
            Operation::Poke { place, bytes } => self.poke(place.address(), &bytes),
            Operation::Notify(queue) => self.notify(queue),
            Operation::Host(bytes) => (self.host)(&bytes),
        }
    }

    /// `odd` is a queue with rings and a size of the fuzzer's choice.
    fn start(&mut self, without: u64, order: u8, odd: Option<(usize, [u64; 3], u32)>) {
        for value in [0, 1, 3] {
            self.write(0x70, value);
        }
        for select in [0, 1] {
            self.write(0x14, select);
            let offered = self.read(0x10);
            let unwanted = if select == 0 { without as u32 } else { (without >> 32) as u32 & !1 };
            self.write(0x24, select);
            self.write(0x20, offered & !unwanted);
        }
        self.write(0x70, 11);
        self.poke(0, &vec![0; BUFFERS as usize / 8]);
        let entries = 1 << (order % 7);
        for index in 0..self.queues.len() {
            let start = base(index as u64);
            let usual = (
                [start, start + 0x1000, start + 0x2000],
                if order == 0 { QUEUE_ENTRIES.into() } else { entries },
            );
            let (rings, size) =
                odd.filter(|(queue, ..)| *queue == index).map_or(usual, |(_, rings, size)| (rings, size));
            self.write(0x30, index as u32);
            self.write(0x38, size);
            for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(rings) {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(0x44, 1);
        }
        self.queues.fill(Ring::default());
        self.next_buffer = BUFFERS;
        self.write(0x70, 15);
    }

    fn descriptor(&self, table: u64, index: u16, (address, len, flags): (u64, u32, u16), next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.poke(table + 16 * u64::from(index), &bytes);
    }

    /// Free memory, from the beginning again when all was used.
    fn buffer(&mut self, len: u64) -> u64 {
        if self.next_buffer + len > RAM_BYTES {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += len.next_multiple_of(16);
        address
    }

    fn place(&mut self, piece: &Piece) -> (u64, u32, u16) {
        match piece {
            Piece::Bytes(bytes) => {
                let address = self.buffer(bytes.len() as u64);
                self.poke(address, bytes);
                (address, bytes.len() as u32, 0)
            }
            Piece::Read(place, len) => (place.address(), *len, 0),
            Piece::Write(place, len) => (place.address(), *len, WRITE),
            Piece::Room(len) => (self.buffer((*len).into()), (*len).into(), WRITE),
        }
    }

    fn request(&mut self, queue: u8, pieces: Vec<Piece>, indirect: bool) {
        let at = self.queue(queue);
        let table = if indirect { base(at as u64) + 0x3000 } else { base(at as u64) };
        let head = self.queues[at].descriptor;
        let first = if indirect { 0 } else { head };
        let pieces = &pieces[..pieces.len().min(QUEUE_ENTRIES.into())];
        for (count, piece) in (0_u16..).zip(pieces) {
            let (address, len, flags) = self.place(piece);
            let last = usize::from(count) + 1 == pieces.len();
            let index = (first + count) % QUEUE_ENTRIES;
            let flags = if last { flags } else { flags | NEXT };
            self.descriptor(table, index, (address, len, flags), (index + 1) % QUEUE_ENTRIES);
        }
        let used = if indirect {
            let bytes = 16 * pieces.len() as u32;
            self.descriptor(base(at as u64), head, (table, bytes, INDIRECT), 0);
            1
        } else {
            pieces.len() as u16
        };
        self.queues[at].descriptor = (head + used) % QUEUE_ENTRIES;
        self.offer(queue, head, 1);
        self.notify(queue);
    }

    fn offer(&mut self, queue: u8, head: u16, step: u16) {
        let at = self.queue(queue);
        let ring = base(at as u64) + 0x1000;
        let slot = self.queues[at].available % QUEUE_ENTRIES;
        self.poke(ring + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        self.queues[at].available = self.queues[at].available.wrapping_add(step);
        self.poke(ring + 2, &self.queues[at].available.to_le_bytes());
    }

    fn notify(&mut self, queue: u8) {
        let at = self.queue(queue);
        self.notify[at].write(1).expect("an eventfd");
    }
}
