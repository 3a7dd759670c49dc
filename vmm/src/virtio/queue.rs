//! A virtqueue at work in a device, shared by all of them.
//!
//! [`DeviceQueue::serve`] is all that a device of simple requests needs: it takes a bounded number of requests,
//! gives each to the device, returns it with the number of bytes written, and interrupts the driver at most once.
//! A device that receives (net, vsock) looks ahead with [`DeviceQueue::fetch`] and returns chains when it has filled
//! them. Memory is passed in, not held, so that a worker can borrow it for I/O while it changes its queue.
//!
//! A driver that breaks the rules of the ring itself (an index that jumps, a chain that loops) yields
//! [`HandlerError::Queue`], upon which the device needs a reset; what is wrong within a chain is the device's to judge.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};

use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::buffers::Buffers;
use super::device::{ActivateError, Activation, ActiveQueue, Interrupt};
use crate::event_loop::{HandlerError, Registry};
use crate::memory::DeviceMemory;

/// The features of the rings, which every device that works through [`DeviceQueue`] may offer.
pub const RING_FEATURES: u64 = 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// The most requests that one call of [`DeviceQueue::serve`] handles.
pub const MAX_CHAINS_PER_CALL: usize = 64;
/// The number of bytes after which one call of [`DeviceQueue::serve`] takes no further request.
pub const MAX_BYTES_PER_CALL: usize = 4 << 20;

/// A request: the bytes that the driver offers and the room for the answer.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Buffers,
    /// What the device writes.
    pub writable: Buffers,
}

impl Chain {
    /// Collects the descriptors of a chain, which has to end by itself, with everything readable before
    /// everything writable, within the number of descriptors that a queue allows (virtio 1.2, section 2.7.4.2).
    fn parse(chain: DescriptorChain<&DeviceMemory>, queue_size: u16) -> Result<Self, &'static str> {
        let mut parsed =
            Self { head: chain.head_index(), readable: Buffers::default(), writable: Buffers::default() };
        let mut ended = false;
        for (count, descriptor) in chain.enumerate() {
            if count >= usize::from(queue_size) {
                return Err("a chain has more descriptors than the queue");
            }
            if descriptor.is_write_only() {
                parsed.writable.push(descriptor.addr(), descriptor.len());
            } else if parsed.writable.is_empty() {
                parsed.readable.push(descriptor.addr(), descriptor.len());
            } else {
                return Err("a readable descriptor follows a writable one");
            }
            ended = !descriptor.has_next();
        }
        // virtio-queue stops without a word at a descriptor that it cannot follow.
        if ended { Ok(parsed) } else { Err("a chain is broken or loops") }
    }

    /// The number of bytes in both directions.
    pub fn len(&self) -> usize {
        self.readable.len().saturating_add(self.writable.len())
    }

    /// Whether the chain has no bytes in either direction.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An active queue with its notification and its interrupt.
#[derive(Debug)]
pub struct DeviceQueue {
    index: usize,
    queue: Queue,
    notify: EventFd,
    interrupt: Interrupt,
    fetched: VecDeque<Chain>,
    unsignalled: bool,
}

/// Takes an activation apart into the memory and the `N` queues of the device.
pub fn open<const N: usize>(
    activation: Activation,
) -> Result<(DeviceMemory, [DeviceQueue; N]), ActivateError> {
    let Activation { memory, interrupt, queues, features } = activation;
    let queues: [ActiveQueue; N] =
        queues.try_into().map_err(|_| ActivateError::Driver("all of its queues"))?;
    let mut indices = 0..;
    let queues = queues.map(|active| {
        DeviceQueue::new(indices.next().unwrap_or_default(), active, interrupt.clone(), features)
    });
    Ok((memory, queues))
}

impl DeviceQueue {
    /// The queue with the given index of a device whose driver accepted `features`.
    pub fn new(index: usize, active: ActiveQueue, interrupt: Interrupt, features: u64) -> Self {
        let ActiveQueue { mut queue, notify } = active;
        queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        Self { index, queue, notify, interrupt, fetched: VecDeque::new(), unsignalled: false }
    }

    /// Watches the driver's notifications, reported with `token`.
    pub fn watch(&self, registry: &mut dyn Registry, token: u32) -> Result<(), HandlerError> {
        registry.add(self.notify_fd(), EventSet::IN, token).map_err(host("watching a queue"))
    }

    /// The descriptor that is readable when the driver has notified.
    pub fn notify_fd(&self) -> RawFd {
        self.notify.as_raw_fd()
    }

    /// Takes notice of a notification. Call it before looking at the queue, so that none is lost.
    pub fn clear_notification(&self) -> Result<(), HandlerError> {
        match self.notify.read() {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                Err(host("reading a queue's notification")(error))
            }
            _ => Ok(()),
        }
    }

    /// Notifies the device itself, to be called again for work that is left.
    pub fn kick(&self) -> Result<(), HandlerError> {
        self.notify.write(1).map_err(host("notifying a queue"))
    }

    /// The queue's size: the most chains that it can hold.
    pub fn size(&self) -> usize {
        usize::from(self.queue.size())
    }

    /// Handles the requests that are there, at most [`MAX_CHAINS_PER_CALL`], and calls itself again for the rest.
    /// `handle` returns how many bytes it wrote to the chain.
    pub fn serve(
        &mut self,
        memory: &DeviceMemory,
        handle: impl FnMut(&Chain) -> u32,
    ) -> Result<(), HandlerError> {
        self.serve_while(memory, || true, handle)
    }

    /// The same, as long as `admits` says so before each request. After it has not, requests stay in the queue until the next
    /// call, which it has to bring about: the driver may not notify again.
    pub fn serve_while(
        &mut self,
        memory: &DeviceMemory,
        mut admits: impl FnMut() -> bool,
        mut handle: impl FnMut(&Chain) -> u32,
    ) -> Result<(), HandlerError> {
        self.clear_notification()?;
        let mut bytes = 0_usize;
        for _ in 0..MAX_CHAINS_PER_CALL {
            if !admits() {
                return self.signal(memory);
            }
            let Some(chain) = self.pop(memory)? else {
                if self.await_notification(memory)? {
                    continue;
                }
                return self.signal(memory);
            };
            bytes = bytes.saturating_add(chain.len());
            let written = handle(&chain);
            self.give_back(memory, chain, written)?;
            if bytes >= MAX_BYTES_PER_CALL {
                break;
            }
        }
        self.kick()?;
        self.signal(memory)
    }

    /// Looks ahead until `enough` says so of the chains that are fetched, the queue is empty, or a queue's size of
    /// chains is fetched. The chains stay until they are popped.
    pub fn fetch(
        &mut self,
        memory: &DeviceMemory,
        mut enough: impl FnMut(&VecDeque<Chain>) -> bool,
    ) -> Result<&VecDeque<Chain>, HandlerError> {
        while self.fetched.len() < self.size() && !enough(&self.fetched) {
            let Some(chain) = self.next_available(memory)? else { break };
            self.fetched.push_back(chain);
        }
        Ok(&self.fetched)
    }

    /// The next request.
    pub fn pop(&mut self, memory: &DeviceMemory) -> Result<Option<Chain>, HandlerError> {
        match self.fetched.pop_front() {
            Some(chain) => Ok(Some(chain)),
            None => self.next_available(memory),
        }
    }

    /// Returns a request to the driver, with the number of bytes that were written to it.
    pub fn give_back(
        &mut self,
        memory: &DeviceMemory,
        chain: Chain,
        written: u32,
    ) -> Result<(), HandlerError> {
        self.unsignalled = true;
        self.queue
            .add_used(memory, chain.head, written)
            .map_err(|error| self.broken(format!("a used chain cannot be returned: {error}")))
    }

    /// Asks the driver for a notification of the next request; true if requests came in the meantime, for which there
    /// will be none.
    pub fn await_notification(&mut self, memory: &DeviceMemory) -> Result<bool, HandlerError> {
        self.queue
            .enable_notification(memory)
            .map_err(|error| self.broken(format!("notifications cannot be enabled: {error}")))
    }

    /// Interrupts the driver if chains were returned since the last time and it wants to know.
    pub fn signal(&mut self, memory: &DeviceMemory) -> Result<(), HandlerError> {
        if !std::mem::take(&mut self.unsignalled) {
            return Ok(());
        }
        let wanted = self
            .queue
            .needs_notification(memory)
            .map_err(|error| self.broken(format!("the wish for interrupts cannot be read: {error}")))?;
        if wanted {
            self.interrupt.signal_queue().map_err(host("interrupting the guest"))?;
        }
        Ok(())
    }

    /// The error of a driver that broke this queue's rules.
    pub fn broken(&self, reason: impl Into<String>) -> HandlerError {
        HandlerError::Queue { queue: self.index, reason: reason.into() }
    }

    fn next_available(&mut self, memory: &DeviceMemory) -> Result<Option<Chain>, HandlerError> {
        let size = self.queue.size();
        let parsed = match self.queue.iter(memory) {
            Ok(mut chains) => chains.next().map(|chain| Chain::parse(chain, size)),
            Err(error) => return Err(self.broken(format!("the available ring is invalid: {error}"))),
        };
        parsed.transpose().map_err(|reason| self.broken(reason))
    }
}

/// The error of a host operation.
pub fn host(what: &'static str) -> impl Fn(std::io::Error) -> HandlerError {
    move |source| HandlerError::Host { what, source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::super::testing::{Arena, Driver, INDIRECT, NEXT, Piece, WRITE, drain};
    use super::*;

    const SIZE: u16 = 8;

    fn start(features: u64) -> (Driver, DeviceQueue) {
        let driver = Driver::new(&[SIZE]);
        let (_, [queue]) = open(driver.activation(features)).unwrap();
        (driver, queue)
    }

    fn rejected(break_it: impl FnOnce(&mut Driver)) -> String {
        let (mut driver, mut queue) = start(RING_FEATURES);
        break_it(&mut driver);
        queue.serve(&driver.memory, |_| 0).unwrap_err().to_string()
    }

    #[test]
    fn requests_are_served_in_order_with_one_interrupt() {
        for features in [0, RING_FEATURES] {
            let (mut driver, mut queue) = start(features);
            let mut lengths = Vec::new();
            for round in 0..5 {
                for len in 1..=3 {
                    driver.queues[0].add(&[Piece::Read(0x100, len), Piece::Write(0x200, 7)]);
                }
                queue
                    .serve(&driver.memory, |chain| {
                        lengths.push((chain.readable.len(), chain.writable.len()));
                        5
                    })
                    .unwrap();
                let used = drain(&mut driver.queues[0]);
                assert_eq!(used.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [5, 5, 5]);
                assert_eq!(driver.interrupts(), 1, "round {round}");
                queue.serve(&driver.memory, |_| 0).unwrap();
                assert_eq!(driver.interrupts(), 0, "round {round}");
            }
            assert_eq!(lengths, [(1, 7), (2, 7), (3, 7)].repeat(5));
        }
    }

    #[test]
    fn an_indirect_table_is_followed() {
        let (mut driver, mut queue) = start(RING_FEATURES);
        let table = Arena::new().take(64);
        for (at, (len, flags)) in [(3, NEXT), (4, WRITE)].into_iter().enumerate() {
            let descriptor = virtio_queue::desc::split::Descriptor::new(0x100, len, flags, 1);
            driver.memory.write_obj(descriptor, GuestAddress(table + 16 * at as u64)).unwrap();
        }
        driver.queues[0].set_descriptor(5, table, 32, INDIRECT, 0);
        driver.queues[0].offer(5, 1);
        let chain = queue.pop(&driver.memory).unwrap().unwrap();
        assert_eq!((chain.readable.len(), chain.writable.len()), (3, 4));
        queue.give_back(&driver.memory, chain, 4).unwrap();
        assert_eq!(drain(&mut driver.queues[0]), [(5, 4)]);
    }

    #[test]
    fn a_driver_that_breaks_the_ring_is_stopped() {
        let jump = rejected(|driver| driver.queues[0].offer(0, SIZE + 1));
        assert!(jump.contains("available ring is invalid"), "{jump}");
        let loops = rejected(|driver| {
            driver.queues[0].set_descriptor(0, 0x100, 1, NEXT, 1);
            driver.queues[0].set_descriptor(1, 0x100, 1, NEXT, 0);
            driver.queues[0].offer(0, 1);
        });
        assert!(loops.contains("loops"), "{loops}");
        for (head, next) in [(SIZE, 0), (0, SIZE), (u16::MAX, 0), (0, u16::MAX)] {
            let outside = rejected(|driver| {
                driver.queues[0].set_descriptor(0, 0x100, 1, NEXT, next);
                driver.queues[0].offer(head, 1);
            });
            assert!(outside.contains("broken"), "{outside}");
        }
        let order = rejected(|driver| {
            driver.queues[0].add(&[Piece::Write(0x100, 1), Piece::Read(0x100, 1)]);
        });
        assert!(order.contains("follows a writable"), "{order}");
        let huge = rejected(|driver| {
            driver.queues[0].add(&[Piece::Read(0x100, u32::MAX), Piece::Read(0x100, u32::MAX)]);
        });
        assert!(huge.contains("broken"), "{huge}");
    }

    #[test]
    fn an_indirect_table_is_bounded_and_cannot_nest() {
        let nested = rejected(|driver| {
            let descriptor = virtio_queue::desc::split::Descriptor::new(0x100, 16, INDIRECT, 0);
            driver.memory.write_obj(descriptor, GuestAddress(0x10_0000)).unwrap();
            driver.queues[0].set_descriptor(0, 0x10_0000, 16, INDIRECT, 0);
            driver.queues[0].offer(0, 1);
        });
        assert!(nested.contains("broken"), "{nested}");
        let long = rejected(|driver| {
            for at in 0..20_u16 {
                let descriptor = virtio_queue::desc::split::Descriptor::new(0x100, 1, NEXT, at + 1);
                driver.memory.write_obj(descriptor, GuestAddress(0x10_0000 + 16 * u64::from(at))).unwrap();
            }
            driver.queues[0].set_descriptor(0, 0x10_0000, 20 * 16, INDIRECT, 0);
            driver.queues[0].offer(0, 1);
        });
        assert!(long.contains("more descriptors"), "{long}");
    }

    #[test]
    fn bytes_bound_a_call_too() {
        let (mut driver, mut queue) = start(0);
        for _ in 0..4 {
            driver.queues[0].add(&[Piece::Read(0x100, MAX_BYTES_PER_CALL as u32 / 2)]);
        }
        queue.serve(&driver.memory, |_| 0).unwrap();
        assert_eq!(drain(&mut driver.queues[0]).len(), 2);
        assert!(driver.queues[0].notify.read().is_ok(), "the queue calls itself for the rest");
        queue.serve(&driver.memory, |_| 0).unwrap();
        assert_eq!(drain(&mut driver.queues[0]).len(), 2);
    }

    #[test]
    fn looking_ahead_keeps_the_order_and_is_bounded() {
        let (mut driver, mut queue) = start(0);
        for len in 1..=5 {
            driver.queues[0].add(&[Piece::Write(0x100, len)]);
        }
        let memory = driver.memory.clone();
        assert_eq!(queue.fetch(&memory, |chains| chains.len() >= 3).unwrap().len(), 3);
        let lengths: Vec<usize> =
            std::iter::from_fn(|| queue.pop(&memory).unwrap()).map(|chain| chain.writable.len()).collect();
        assert_eq!(lengths, [1, 2, 3, 4, 5]);
        for _ in 0..3 {
            for _ in 0..SIZE {
                driver.queues[0].add(&[Piece::Write(0x100, 1)]);
            }
            queue.fetch(&memory, |_| false).unwrap();
        }
        assert_eq!(queue.fetch(&memory, |_| false).unwrap().len(), usize::from(SIZE));
    }

    proptest! {
        #[test]
        fn random_descriptors_never_panic(
            descriptors in proptest::collection::vec((any::<u64>(), any::<u32>(), 0..8_u16, 0..10_u16), 8),
            heads in proptest::collection::vec((0..10_u16, 0..3_u16), 1..8)
        ) {
            let (mut driver, mut queue) = start(RING_FEATURES);
            for (index, (address, len, flags, next)) in descriptors.into_iter().enumerate() {
                driver.queues[0].set_descriptor(index as u16, address % 0x8000, len, flags, next);
            }
            for (head, step) in heads {
                driver.queues[0].offer(head, step);
            }
            let _either_way = queue.serve(&driver.memory, |chain| chain.len() as u32);
        }
    }
}
