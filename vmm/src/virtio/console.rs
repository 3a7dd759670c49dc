//! virtio-console (virtio 1.2, section 5.3): output only, to the machine's [`ConsoleLog`].
//!
//! Nobody types at a pod's kernel: the receive queue is accepted and left alone.

use vmm_sys_util::epoll::EventSet;

use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, Chain, DeviceQueue};
use crate::console::ConsoleLog;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

const QUEUE_SIZES: &[u16] = &[16, 64];
/// The most bytes taken from one buffer; drivers send a line, or a page of them.
const MAX_TEXT_BYTES: usize = 4096;

/// A console.
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
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        queue::RING_FEATURES
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let (memory, [_receive, transmit]) = queue::open(activation)?;
        Ok(Box::new(Worker { memory, transmit, log: self.log.clone() }))
    }
}

struct Worker {
    memory: DeviceMemory,
    transmit: DeviceQueue,
    log: ConsoleLog,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.transmit.watch(registry, 0)
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        let Self { memory, transmit, log } = self;
        transmit.serve(memory, |chain| print(memory, chain, log))
    }
}

/// Writes a buffer's text to the log; one that is no memory has none. The device writes nothing to the guest.
fn print(memory: &DeviceMemory, chain: &Chain, log: &ConsoleLog) -> u32 {
    let mut text = [0; MAX_TEXT_BYTES];
    let text = text.get_mut(..chain.readable.len().min(MAX_TEXT_BYTES)).unwrap_or_default();
    if chain.readable.copy_out(memory, 0, text).is_ok() {
        log.write(text);
    }
    0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Arena, Driver, Piece, Watched, drain};
    use super::*;

    #[test]
    fn output_arrives_and_wild_buffers_do_not() {
        let log = ConsoleLog::new(None);
        let mut driver = Driver::new(QUEUE_SIZES);
        let mut worker = Console::new(log.clone()).activate(driver.activation(0)).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        let address = Arena::new().take(1 << 20);
        driver.write(address, b"hello, ");
        driver.write(address + 100, b"world");
        driver.write(address + 0x1000, &[b'x'; 3 * MAX_TEXT_BYTES]);
        let transmit = &mut driver.queues[1];
        transmit.add(&[Piece::Read(address, 7), Piece::Read(address + 100, 5)]);
        transmit.add(&[Piece::Read(u64::MAX - 3, 100)]);
        watched.settle(&mut *worker).unwrap();
        assert_eq!(log.last_lines(), "hello, world");
        let transmit = &mut driver.queues[1];
        transmit.add(&[Piece::Read(address + 0x1000, 3 * MAX_TEXT_BYTES as u32)]);
        watched.settle(&mut *worker).unwrap();
        assert_eq!(log.last_lines().len(), 12 + MAX_TEXT_BYTES);
        assert_eq!(drain(&mut driver.queues[1]).len(), 3);
    }
}
