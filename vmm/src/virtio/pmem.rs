//! virtio-pmem (virtio 1.2, section 5.19): read-only memory backed by a file, for file systems with DAX.
//!
//! The guest reads the file's pages in the host's page cache: all machines of a host share one copy, and the guest
//! keeps no second. Read-only is enforced three times, because the device itself has no such bit and its write
//! path has been the way out of other sandboxes: the mapping is `PROT_READ`, KVM's slot is `KVM_MEM_READONLY` (a write is an exit
//! that the [bus](crate::bus) drops and counts), and devices cannot write there ([`DeviceMemory`]).

use std::fs::File;

use nix::sys::mman::ProtFlags;
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::EventSet;

use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, Chain, DeviceQueue};
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::layout;
use crate::memory::{DeviceMemory, Mapping, MemoryError, PAGE_SIZE};

const QUEUE_SIZES: &[u16] = &[16];
/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`.
const FLUSH: u32 = 0;
/// What the driver reads as the result of a request.
const OK: u32 = 0;
const FAILED: u32 = 1;

/// Maps the whole of `file` for a pmem device, and pads it with zeros to the unit in which Linux adds memory.
///
/// The file must not shrink while it is mapped: reading a page that is gone ends the process.
pub fn map(file: &File) -> Result<Mapping, MemoryError> {
    let failed = |source: std::io::Error| MemoryError::Map {
        what: "a pmem file",
        bytes: 0,
        source: nix::Error::from_raw(source.raw_os_error().unwrap_or_default()),
    };
    let file_bytes = file.metadata().map_err(failed)?.len();
    let does_not_fit = || MemoryError::Size { what: "a pmem file", bytes: file_bytes };
    let size = layout::pmem_size(file_bytes).filter(|size| *size > 0).ok_or_else(does_not_fit)?;
    let mut mapping = Mapping::anonymous(size, ProtFlags::PROT_READ)?;
    mapping.overlay(0, file, 0, file_bytes.next_multiple_of(PAGE_SIZE))?;
    Ok(mapping)
}

/// The device: where the memory is, and a queue for flushes.
#[derive(Debug)]
pub struct Pmem {
    config: [u8; 16],
}

impl Pmem {
    /// A device for memory that the guest finds at `start`.
    pub fn new(start: GuestAddress, bytes: u64) -> Self {
        let mut config = [0; 16];
        let (start_field, size_field) = config.split_at_mut(8);
        start_field.copy_from_slice(&start.0.to_le_bytes());
        size_field.copy_from_slice(&bytes.to_le_bytes());
        Self { config }
    }
}

impl VirtioDevice for Pmem {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Pmem
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        queue::RING_FEATURES
    }

    fn config(&self) -> &[u8] {
        &self.config
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
        self.requests.watch(registry, 0)
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        let Self { memory, requests } = self;
        requests.serve(memory, |chain| answer(memory, chain))
    }
}

/// Answers a request (section 5.19.6), and returns how many bytes that took. Nothing is ever written to the memory, so
/// there is nothing to flush.
fn answer(memory: &DeviceMemory, chain: &Chain) -> u32 {
    let kind = chain.readable.read(memory, 0).map(u32::from_le_bytes);
    let result: u32 = if matches!(kind, Ok(FLUSH)) { OK } else { FAILED };
    match chain.writable.write(memory, 0, &result.to_le_bytes()) {
        Ok(()) => size_of::<u32>() as u32,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vmm_sys_util::tempfile::TempFile;

    use super::super::testing::{Arena, Driver, Piece, Watched, drain};
    use super::*;
    use crate::memory::HUGE_PAGE_SIZE;

    #[test]
    fn a_file_is_padded_to_whole_huge_pages() {
        let mut file = TempFile::new().unwrap().into_file();
        assert!(map(&file).is_err(), "an empty file has nothing to map");
        file.write_all(&[1; 5000]).unwrap();
        assert_eq!(map(&file).unwrap().bytes(), HUGE_PAGE_SIZE);
    }

    #[test]
    fn the_driver_reads_where_the_memory_is() {
        let device = Pmem::new(GuestAddress(0x1_0000_0000), HUGE_PAGE_SIZE);
        assert_eq!(device.config()[..8], 0x1_0000_0000_u64.to_le_bytes());
        assert_eq!(device.config()[8..], HUGE_PAGE_SIZE.to_le_bytes());
    }

    #[test]
    fn flushes_succeed_and_anything_else_does_not() {
        let mut driver = Driver::new(QUEUE_SIZES);
        let mut worker = Pmem::new(GuestAddress(0), 0).activate(driver.activation(0)).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        let address = Arena::new().take(100);
        driver.write(address, &FLUSH.to_le_bytes());
        driver.write(address + 4, &77_u32.to_le_bytes());
        driver.write(address + 8, &[9; 16]);
        let requests = &mut driver.queues[0];
        requests.add(&[Piece::Read(address, 4), Piece::Write(address + 8, 4)]);
        requests.add(&[Piece::Read(address + 4, 4), Piece::Write(address + 12, 4)]);
        requests.add(&[Piece::Read(address, 4), Piece::Write(address + 16, 2)]);
        requests.add(&[Piece::Read(u64::MAX, 4), Piece::Write(address + 20, 4)]);
        watched.settle(&mut *worker).unwrap();
        let lengths: Vec<u32> = drain(&mut driver.queues[0]).into_iter().map(|(_, len)| len).collect();
        assert_eq!(lengths, [4, 4, 0, 4]);
        assert_eq!(driver.read(address + 8, 8), [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(driver.read(address + 16, 8), [9, 9, 9, 9, 1, 0, 0, 0]);
    }
}
