//! The block device (virtio 1.2, section 5.2): a raw image file, or a block device of the host.
//!
//! Data goes straight between the file and guest memory. The image's format is never guessed from its contents,
//! which the guest writes: it is raw.

mod disk;
mod request;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod throttle_tests;

use std::fs::File;
use std::io;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use vmm_sys_util::epoll::EventSet;

use self::disk::{Disk, MAX_RANGE_SECTORS, SECTOR_BYTES};
use self::request::{MAX_RANGES, Request};
use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, DeviceQueue};
use super::throttle::Throttle;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

const QUEUE_SIZE: u16 = 128;
const QUEUE_SIZES: &[u16] = &[QUEUE_SIZE];
const REQUESTS: u32 = 0;
/// The most data segments of a request: a chain also holds the header and the status.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// The most bytes of a segment. Together with [`MAX_SEGMENTS`] it bounds the work of one request, by a number that
/// the driver is told.
const MAX_SEGMENT_BYTES: u32 = 128 << 10;
/// The most bytes that a request may transfer.
const MAX_TRANSFER_BYTES: usize = MAX_SEGMENTS as usize * MAX_SEGMENT_BYTES as usize;
/// Discards are aligned to the blocks of common file systems, of which a part cannot be given back.
const DISCARD_ALIGNMENT_SECTORS: u32 = 4096 / SECTOR_BYTES as u32;
const CONFIG_BYTES: usize = 60;

/// What a block device is made of.
#[derive(Debug)]
pub struct BlockConfig {
    /// The raw image; its size, rounded down to whole sectors of 512 bytes, is the disk's.
    pub file: File,
    /// Whether the device refuses writes; `file` may then be open for reading only.
    pub read_only: bool,
    /// What requests are limited to: every one is an operation, and its data are its bytes.
    pub throttle: Throttle,
}

/// A block device.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    config: [u8; CONFIG_BYTES],
    throttle: Throttle,
}

impl Block {
    /// A disk over a file. Fails if the file's size cannot be told.
    pub fn new(config: BlockConfig) -> io::Result<Self> {
        let BlockConfig { file, read_only, throttle } = config;
        let disk = Disk::new(file, read_only)?;
        let config = config_space(disk.sectors());
        Ok(Self { disk, config, throttle })
    }
}

impl VirtioDevice for Block {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let access = if self.disk.is_read_only() {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        queue::RING_FEATURES
            | access
            | 1 << VIRTIO_BLK_F_SIZE_MAX
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let features = activation.features;
        let (memory, [requests]) = queue::open(activation)?;
        let mut disk = self.disk.try_clone().map_err(ActivateError::Host)?;
        // A driver that cannot flush has to find everything written (section 5.2.6.2).
        disk.write_through(features & 1 << VIRTIO_BLK_F_FLUSH == 0);
        Ok(Box::new(Worker { memory, requests, disk, throttle: self.throttle.clone() }))
    }
}

/// `struct virtio_blk_config` (section 5.2.4); the fields that are left zero belong to features not offered.
fn config_space(sectors: u64) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (field, byte) in config.iter_mut().skip(offset).zip(bytes) {
            *field = *byte;
        }
    };
    put(0, &sectors.to_le_bytes());
    put(8, &MAX_SEGMENT_BYTES.to_le_bytes());
    put(12, &MAX_SEGMENTS.to_le_bytes());
    put(20, &(SECTOR_BYTES as u32).to_le_bytes());
    put(36, &MAX_RANGE_SECTORS.to_le_bytes());
    put(40, &(MAX_RANGES as u32).to_le_bytes());
    put(44, &DISCARD_ALIGNMENT_SECTORS.to_le_bytes());
    put(48, &MAX_RANGE_SECTORS.to_le_bytes());
    put(52, &(MAX_RANGES as u32).to_le_bytes());
    put(56, &[1]);
    config
}

struct Worker {
    memory: DeviceMemory,
    requests: DeviceQueue,
    disk: Disk,
    throttle: Throttle,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.requests.watch(registry, REQUESTS)
    }

    fn handle(&mut self, _: u32, _: EventSet, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.serve(registry)
    }

    fn wake(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.serve(registry)
    }
}

impl Worker {
    fn serve(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        let Self { memory, requests, disk, throttle } = self;
        let admits = || throttle.admits(registry);
        requests.serve_while(memory, admits, |chain| {
            let request = Request::parse(memory, chain);
            throttle.charge(request.as_ref().map_or(0, Request::bytes));
            request.map_or(0, |request| request.run(memory, disk))
        })
    }
}
