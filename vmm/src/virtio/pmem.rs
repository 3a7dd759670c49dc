//! virtio-pmem (virtio 1.2, section 5.19): read-only memory backed by files, for file systems with DAX.
//!
//! The guest reads the files' pages in the host's page cache: all machines of a host share one copy, and the guest
//! keeps no second. Read-only is enforced three times, because the device itself has no such bit and its write
//! path has been the way out of other sandboxes: the mapping is `PROT_READ`, KVM's slot is `KVM_MEM_READONLY` (a write is an exit
//! that the [bus](crate::bus) drops and counts), and devices cannot write there ([`DeviceMemory`]).
//!
//! A machine has one such device, whatever the number of files: each would take a slot of KVM's, an interrupt, and the guest's time
//! to find it. A file is a partition, of which the guest learns from its command line; nothing in the memory describes it.

use std::fs::File;

use nix::sys::mman::ProtFlags;
use vm_memory::GuestAddress;
use vmm_sys_util::epoll::EventSet;

use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, Chain, DeviceQueue};
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::layout;
use crate::memory::{DeviceMemory, Mapping, MemoryError, PAGE_SIZE, Sharing};

const QUEUE_SIZES: &[u16] = &[16];
/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`.
const FLUSH: u32 = 0;
/// What the driver reads as the result of a request.
const OK: u32 = 0;
const FAILED: u32 = 1;

/// The memory of the device: files one after the other, each padded with zeros ([`layout::pmem_size`]).
#[derive(Debug)]
pub struct Files {
    /// All of it.
    pub mapping: Mapping,
    /// The size of each file with its padding, in whole MiB.
    parts: Vec<u64>,
}

impl Files {
    /// Maps the whole of each of `files`; nothing, if there are none.
    ///
    /// A file must not shrink while it is mapped: reading a page that is gone ends the process.
    pub fn map(files: &[File]) -> Result<Option<Self>, MemoryError> {
        let sizes = files.iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let total = sizes.iter().try_fold(0_u64, |sum, (_, part)| sum.checked_add(*part));
        let total = total.ok_or(MemoryError::Size { what: "pmem", bytes: u64::MAX })?;
        if total == 0 {
            return Ok(None);
        }
        let mut mapping = Mapping::anonymous(total, ProtFlags::PROT_READ)?;
        let mut offset = 0;
        for (file, (bytes, part)) in files.iter().zip(&sizes) {
            mapping.overlay(offset, file, 0, bytes.next_multiple_of(PAGE_SIZE), Sharing::Shared)?;
            offset += part;
        }
        Ok(Some(Self { mapping, parts: sizes.into_iter().map(|(_, part)| part).collect() }))
    }

    /// The kernel parameter by which the guest finds each file as `/dev/pmem0p1` and so on (Linux's cmdline-partition.rst).
    pub fn kernel_parameter(&self) -> String {
        let sizes: Vec<String> = self.parts.iter().map(|bytes| format!("{}M", bytes >> 20)).collect();
        format!(" blkdevparts=pmem0:{}", sizes.join(","))
    }
}

/// A file's size, and that of its part of the memory.
fn size(file: &File) -> Result<(u64, u64), MemoryError> {
    let failed = |source: std::io::Error| MemoryError::Map {
        what: "a pmem file",
        bytes: 0,
        source: nix::Error::from_raw(source.raw_os_error().unwrap_or_default()),
    };
    let bytes = file.metadata().map_err(failed)?.len();
    let part = layout::pmem_size(bytes).filter(|part| *part > 0);
    Ok((bytes, part.ok_or(MemoryError::Size { what: "a pmem file", bytes })?))
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
    use std::sync::Arc;

    use vm_memory::Bytes;
    use vmm_sys_util::tempfile::TempFile;

    use super::super::testing::{Arena, Driver, Piece, Watched, drain};
    use super::*;
    use crate::memory::{HUGE_PAGE_SIZE, Region};

    fn file_of(contents: &[u8]) -> File {
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(contents).unwrap();
        file
    }

    #[test]
    fn files_follow_each_other_in_whole_huge_pages() {
        let two = file_of(&vec![2; HUGE_PAGE_SIZE as usize + 1]);
        let files = Files::map(&[file_of(b"one"), two, file_of(b"three")]).unwrap().unwrap();
        assert_eq!(files.kernel_parameter(), " blkdevparts=pmem0:2M,4M,2M");
        assert_eq!(files.mapping.bytes(), 4 * HUGE_PAGE_SIZE);
        let region = Region { start: GuestAddress(1 << 32), mapping: Arc::new(files.mapping) };
        let ram = Mapping::anonymous(HUGE_PAGE_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).unwrap();
        let ram = Region { start: GuestAddress(0), mapping: Arc::new(ram) };
        let memory = DeviceMemory::new(vec![ram], vec![region]).unwrap();
        for (offset, expected) in [
            (0, b"one\0\0"),
            (HUGE_PAGE_SIZE, &[2; 5]),
            (2 * HUGE_PAGE_SIZE, &[2, 0, 0, 0, 0]),
            (3 * HUGE_PAGE_SIZE, b"three"),
        ] {
            let mut seen = [9; 5];
            memory.read_slice(&mut seen, GuestAddress((1 << 32) + offset)).unwrap();
            assert_eq!(&seen, expected, "at {offset:#x}");
        }
    }

    #[test]
    fn there_is_no_memory_without_a_file_and_no_empty_file() {
        assert!(Files::map(&[]).unwrap().is_none());
        assert!(Files::map(&[file_of(b"x"), file_of(b"")]).is_err());
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
