//! virtio-console (virtio 1.2, section 5.3): output only, to the machine's [`ConsoleLog`].
//!
//! Nobody types at a pod's kernel: the receive queue is accepted and left alone.

use std::os::fd::AsRawFd;

use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemory;
use vm_memory::{Bytes, Permissions};
use vmm_sys_util::epoll::EventSet;

use crate::console::ConsoleLog;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;
use crate::virtio::device::{ActivateError, Activation, ActiveQueue, DeviceKind, Interrupt, VirtioDevice};

const QUEUE_SIZES: [u16; 2] = [16, 64];
const TRANSMIT: usize = 1;
/// How many buffers are taken per call, and how many bytes of each: the rest of a longer one is dropped.
const BUFFERS_PER_CALL: usize = 64;
const BYTES_PER_BUFFER: usize = 4096;

/// The device.
#[derive(Debug)]
pub struct Console {
    log: ConsoleLog,
}

impl Console {
    /// A console that writes to `log`.
    pub fn new(log: ConsoleLog) -> Self {
        Self { log }
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Console
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let Activation { memory, interrupt, queues, .. } = activation;
        let transmit = queues.into_iter().nth(TRANSMIT).ok_or(ActivateError::Driver("the transmit queue"))?;
        Ok(Box::new(Transmitter { log: self.log.clone(), memory, interrupt, transmit }))
    }
}

struct Transmitter {
    log: ConsoleLog,
    memory: DeviceMemory,
    interrupt: Interrupt,
    transmit: ActiveQueue,
}

impl EventHandler for Transmitter {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        registry
            .add(self.transmit.notify.as_raw_fd(), EventSet::IN, 0)
            .map_err(|source| HandlerError::Host { what: "cannot watch the console's queue", source })
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        // Read before the queue is looked at: a notification from here on wakes the loop again.
        let _nothing_to_drain = self.transmit.notify.read();
        let mut used = 0;
        while used < BUFFERS_PER_CALL && self.transmit_one().map_err(broken)? {
            used += 1;
        }
        let host = |what| move |source| HandlerError::Host { what, source };
        if used == BUFFERS_PER_CALL {
            // There may be more; let the other devices have their turn first.
            self.transmit.notify.write(1).map_err(host("cannot come back to the console's queue"))?;
        }
        if used > 0 && self.transmit.queue.needs_notification(&self.memory).map_err(broken)? {
            self.interrupt.signal_queue().map_err(host("cannot interrupt the guest"))?;
        }
        Ok(())
    }
}

impl Transmitter {
    /// Takes one buffer; false if there is none.
    fn transmit_one(&mut self) -> Result<bool, virtio_queue::Error> {
        let Some(chain) = self.transmit.queue.iter(&self.memory)?.next() else { return Ok(false) };
        let head = chain.head_index();
        let mut text = [0; BYTES_PER_BUFFER];
        let mut filled = 0;
        for descriptor in chain.readable() {
            let Some(free) = text.get_mut(filled..) else { break };
            let wanted = free.len().min(descriptor.len() as usize);
            let Some(target) = free.get_mut(..wanted) else { break };
            // A buffer outside of memory has no text.
            if self.memory.check_range(descriptor.addr(), wanted, Permissions::Read)
                && self.memory.read_slice(target, descriptor.addr()).is_ok()
            {
                filled += wanted;
            }
        }
        self.log.write(text.get(..filled).unwrap_or_default());
        self.transmit.queue.add_used(&self.memory, head, 0)?;
        Ok(true)
    }
}

fn broken(error: virtio_queue::Error) -> HandlerError {
    HandlerError::Queue { queue: TRANSMIT, reason: error.to_string() }
}
