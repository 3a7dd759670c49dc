//! The entropy device (virtio 1.2, section 5.4): fills the driver's buffers with the host's random numbers.

use vmm_sys_util::epoll::EventSet;

use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, Chain, DeviceQueue};
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

/// The most bytes given for one request, so that a guest cannot make the host compute at length. The driver learns
/// from the used length how much it got and may ask again.
const MAX_REQUEST_BYTES: usize = 64 << 10;
const QUEUE_SIZES: &[u16] = &[64];
const REQUESTS: u32 = 0;

/// An entropy device.
#[derive(Debug, Default)]
pub struct Rng;

impl VirtioDevice for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        queue::RING_FEATURES
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let (memory, [requests]) = queue::open(activation)?;
        Ok(Box::new(Worker { memory, requests }))
    }
}

struct Worker {
    memory: DeviceMemory,
    requests: DeviceQueue,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.requests.watch(registry, REQUESTS)
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        let Self { memory, requests } = self;
        requests.serve(memory, |chain| fill(memory, chain))
    }
}

/// Fills a request and returns how many bytes it got. One whose buffers are no memory gets what comes before them.
fn fill(memory: &DeviceMemory, chain: &Chain) -> u32 {
    let wanted = chain.writable.len().min(MAX_REQUEST_BYTES);
    let mut block = [0; 4096];
    let mut filled = 0;
    while filled < wanted {
        let count = random(&mut block);
        let Some(bytes) = block.get(..count.min(wanted - filled)).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if chain.writable.write(memory, filled, bytes).is_err() {
            break;
        }
        filled += bytes.len();
    }
    filled as u32
}

/// Fills as much of `block` as getrandom(2) gives without waiting, and returns how much that is.
fn random(block: &mut [u8]) -> usize {
    // SAFETY: the pointer and the length are those of a writable slice.
    let count = unsafe { libc::getrandom(block.as_mut_ptr().cast(), block.len(), libc::GRND_NONBLOCK) };
    usize::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::queue::MAX_CHAINS_PER_CALL;
    use super::super::testing::{Arena, Driver, Piece, Watched, drain};
    use super::*;

    fn start(features: u64) -> (Driver, Box<dyn EventHandler>, Watched) {
        let driver = Driver::new(QUEUE_SIZES);
        let mut worker = Rng.activate(driver.activation(features)).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        (driver, worker, watched)
    }

    #[test]
    fn requests_are_filled_up_to_the_limit() {
        let (mut driver, mut worker, mut watched) = start(0);
        let address = Arena::new().take(1 << 20);
        let queue = &mut driver.queues[0];
        queue.add(&[Piece::Write(address, 100), Piece::Write(address + 200, 9000)]);
        queue.add(&[Piece::Write(address + 0x10000, 1 << 17)]);
        queue.add(&[Piece::Read(address, 100)]);
        watched.settle(&mut *worker).unwrap();
        let lengths: Vec<u32> = drain(queue).into_iter().map(|(_, len)| len).collect();
        assert_eq!(lengths, [9100, 64 << 10, 0]);
        assert!(driver.read(address, 100).iter().any(|byte| *byte != 0));
        assert!(driver.read(address + 9100, 100).iter().any(|byte| *byte != 0));
        assert!(driver.read(address + 100, 100).iter().all(|byte| *byte == 0));
        assert!(driver.read(address + 0x20000, 100).iter().all(|byte| *byte == 0));
        assert_eq!(driver.interrupts(), 1);
    }

    #[test]
    fn a_request_out_of_memory_gets_nothing() {
        let (mut driver, mut worker, mut watched) = start(0);
        driver.queues[0].add(&[Piece::Write(u64::MAX - 5, 100)]);
        driver.queues[0].add(&[Piece::Write(1 << 40, u32::MAX)]);
        watched.settle(&mut *worker).unwrap();
        assert_eq!(drain(&mut driver.queues[0]), [(0, 0), (1, 0)]);
    }

    #[test]
    fn a_call_takes_a_limited_number_of_requests_and_comes_back_for_the_rest() {
        let driver = Driver::new(&[256]);
        let mut worker = Rng.activate(driver.activation(0)).unwrap();
        let mut driver = driver;
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        let address = Arena::new().take(16);
        for _ in 0..200 {
            driver.queues[0].add(&[Piece::Write(address, 16)]);
        }
        watched.turn(&mut *worker).unwrap();
        assert_eq!(drain(&mut driver.queues[0]).len(), MAX_CHAINS_PER_CALL);
        watched.settle(&mut *worker).unwrap();
        assert_eq!(drain(&mut driver.queues[0]).len(), 200 - MAX_CHAINS_PER_CALL);
    }

    #[test]
    fn the_number_of_queues_is_checked() {
        let driver = Driver::new(&[64, 64]);
        assert!(Rng.activate(driver.activation(0)).is_err());
    }
}
