//! virtio-pmem (virtio 1.2, section 5.19): read-only memory backed by a file, for file systems with DAX.
//!
//! The guest reads the file's pages in the host's page cache: all machines of a host share one copy, and the guest
//! keeps no second. Read-only is enforced three times, because the device itself has no such bit and its write
//! path has been the way out of other sandboxes: the mapping is `PROT_READ`, KVM's slot is `KVM_MEM_READONLY` (a write is an exit
//! that the [bus](crate::bus) drops and counts), and devices cannot write there ([`DeviceMemory`]).

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::sys::mman::ProtFlags;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::layout;
use crate::memory::{DeviceMemory, Mapping, MemoryError, PAGE_SIZE};
use crate::virtio::device::{ActivateError, Activation, ActiveQueue, DeviceKind, Interrupt, VirtioDevice};

const QUEUE_SIZES: [u16; 1] = [16];
/// `VIRTIO_PMEM_REQ_TYPE_FLUSH`.
const FLUSH: u32 = 0;
/// What the driver reads as the result of a request.
const OK: u32 = 0;
const FAILED: u32 = 1;
const REQUESTS_PER_CALL: usize = 16;

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
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let Activation { memory, interrupt, queues, .. } = activation;
        let requests = queues.into_iter().next().ok_or(ActivateError::Driver("the request queue"))?;
        Ok(Box::new(Flusher { memory, interrupt, requests }))
    }
}

/// Answers flush requests. Nothing is ever written, so there is nothing to flush.
struct Flusher {
    memory: DeviceMemory,
    interrupt: Interrupt,
    requests: ActiveQueue,
}

impl EventHandler for Flusher {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        registry
            .add(self.requests.notify.as_raw_fd(), EventSet::IN, 0)
            .map_err(|source| HandlerError::Host { what: "cannot watch a pmem queue", source })
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        // Read before the queue is looked at: a notification from here on wakes the loop again.
        let _nothing_to_drain = self.requests.notify.read();
        let host = |what| move |source| HandlerError::Host { what, source };
        let mut answered = 0;
        while answered < REQUESTS_PER_CALL
            && answer_one(&mut self.requests.queue, &self.memory).map_err(broken)?
        {
            answered += 1;
        }
        if answered == REQUESTS_PER_CALL {
            self.requests.notify.write(1).map_err(host("cannot come back to a pmem queue"))?;
        }
        if answered > 0 && self.requests.queue.needs_notification(&self.memory).map_err(broken)? {
            self.interrupt.signal_queue().map_err(host("cannot interrupt the guest"))?;
        }
        Ok(())
    }
}

/// Answers one request (section 5.19.6); false if there is none.
fn answer_one(queue: &mut Queue, memory: &DeviceMemory) -> Result<bool, virtio_queue::Error> {
    let Some(chain) = queue.iter(memory)?.next() else { return Ok(false) };
    let head = chain.head_index();
    let request = chain.clone().readable().next().filter(|descriptor| descriptor.len() >= 4);
    let kind = request.and_then(|descriptor| memory.read_obj::<u32>(descriptor.addr()).ok());
    let result = if kind.map(u32::from_le) == Some(FLUSH) { OK } else { FAILED };
    let response = chain.writable().next().filter(|descriptor| descriptor.len() >= 4);
    let written =
        response.is_some_and(|descriptor| memory.write_obj(result.to_le(), descriptor.addr()).is_ok());
    queue.add_used(memory, head, if written { 4 } else { 0 })?;
    Ok(true)
}

fn broken(error: virtio_queue::Error) -> HandlerError {
    HandlerError::Queue { queue: 0, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::GuestMemoryMmap;
    use vmm_sys_util::tempfile::TempFile;

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
    fn requests_are_answered() {
        let memory = DeviceMemory::from(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap());
        let driver = MockSplitQueue::new(&memory, 16);
        let descriptor =
            |address, length, flags, next| RawDescriptor::from(Descriptor::new(address, length, flags, next));
        let chains = [
            // A flush, an unknown request, and one without room for the answer.
            descriptor(0x8000, 4, 1, 1),
            descriptor(0x9000, 4, 2, 0),
            descriptor(0x8010, 4, 1, 3),
            descriptor(0x9010, 4, 2, 0),
            descriptor(0x8000, 4, 1, 5),
            descriptor(0x9020, 2, 2, 0),
        ];
        driver.add_desc_chains(&chains, 0).unwrap();
        memory.write_obj(FLUSH.to_le(), GuestAddress(0x8000)).unwrap();
        memory.write_obj(77_u32.to_le(), GuestAddress(0x8010)).unwrap();
        for answer in [0x9000, 0x9010, 0x9020] {
            memory.write_obj(u32::MAX, GuestAddress(answer)).unwrap();
        }
        let mut queue: Queue = driver.create_queue().unwrap();
        while answer_one(&mut queue, &memory).unwrap() {}
        let answer = |address| memory.read_obj::<u32>(GuestAddress(address)).unwrap();
        assert_eq!([answer(0x9000), answer(0x9010), answer(0x9020)], [OK, FAILED, u32::MAX]);
        assert_eq!(driver.used().idx().load(), 3);
    }
}
