//! A block request as the driver lays it out: a header, data, and a byte for the status (section 5.2.6).

use std::io;

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::super::buffers::{AccessError, Buffers};
use super::super::queue::Chain;
use super::MAX_TRANSFER_BYTES;
use super::disk::{Disk, ID_BYTES, Zeroing};
use crate::memory::DeviceMemory;

/// The most ranges of a request to discard or to write zeros.
pub const MAX_RANGES: usize = 16;
const HEADER_BYTES: usize = 16;
const RANGE_BYTES: usize = 16;

/// Why a request fails.
enum Failure {
    /// The device does not do such requests.
    Unsupported,
    /// It does, but this one cannot be carried out.
    Failed,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Failed
    }
}

impl From<AccessError> for Failure {
    fn from(_: AccessError) -> Self {
        Self::Failed
    }
}

/// A request whose header has been read.
pub struct Request {
    kind: u32,
    sector: u64,
    from_driver: Buffers,
    to_driver: Buffers,
    status: Buffers,
}

impl Request {
    /// Reads the header. Fails if there is none, or no room for the status: such a request cannot even be refused.
    pub fn parse(memory: &DeviceMemory, chain: &Chain) -> Result<Self, AccessError> {
        let mut from_driver = chain.readable.clone();
        let header = from_driver.split_front(HEADER_BYTES)?;
        let kind = u32::from_le_bytes(header.read(memory, 0)?);
        let sector = u64::from_le_bytes(header.read(memory, 8)?);
        let mut status = chain.writable.clone();
        let to_driver = status.split_front(status.len().saturating_sub(1))?;
        status.range(0, 1)?;
        Ok(Self { kind, sector, from_driver, to_driver, status })
    }

    /// How many bytes of data it has, in either direction, up to what any request may move.
    pub fn bytes(&self) -> usize {
        self.from_driver.len().saturating_add(self.to_driver.len()).min(MAX_TRANSFER_BYTES)
    }

    /// Carries the request out, writes its status, and returns the number of bytes written to the driver's buffers.
    pub fn run(&self, memory: &DeviceMemory, disk: &Disk) -> u32 {
        let (status, written) = match self.execute(memory, disk) {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(Failure::Failed) => (VIRTIO_BLK_S_IOERR, 0),
            Err(Failure::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
        };
        match self.status.write(memory, 0, &[status as u8]) {
            Ok(()) => written as u32 + 1,
            Err(_) => 0,
        }
    }

    fn execute(&self, memory: &DeviceMemory, disk: &Disk) -> Result<usize, Failure> {
        match self.kind {
            VIRTIO_BLK_T_IN => {
                bounded(&self.to_driver)?;
                disk.read(memory, self.sector, &self.to_driver)?;
                Ok(self.to_driver.len())
            }
            VIRTIO_BLK_T_OUT => {
                bounded(&self.from_driver)?;
                disk.write(memory, self.sector, &self.from_driver)?;
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => {
                disk.flush()?;
                Ok(0)
            }
            VIRTIO_BLK_T_GET_ID => {
                self.to_driver.write(memory, 0, disk.id())?;
                Ok(ID_BYTES)
            }
            // Not offered for a disk that is read-only.
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.is_read_only() => {
                Err(Failure::Unsupported)
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => self.zero_ranges(memory, disk),
            _ => Err(Failure::Unsupported),
        }
    }

    fn zero_ranges(&self, memory: &DeviceMemory, disk: &Disk) -> Result<usize, Failure> {
        let bytes = self.from_driver.len();
        let count = bytes / RANGE_BYTES;
        if !bytes.is_multiple_of(RANGE_BYTES) || count == 0 || count > MAX_RANGES {
            return Err(Failure::Failed);
        }
        for index in 0..count {
            let at = index * RANGE_BYTES;
            let sector = u64::from_le_bytes(self.from_driver.read(memory, at)?);
            let sectors = u32::from_le_bytes(self.from_driver.read(memory, at + 8)?);
            let flags = u32::from_le_bytes(self.from_driver.read(memory, at + 12)?);
            disk.zero(sector, sectors, self.zeroing(flags)?)?;
        }
        Ok(0)
    }

    /// What the flags of a range ask for. A discard has none; unknown ones are not supported (section 5.2.6.2).
    fn zeroing(&self, flags: u32) -> Result<Zeroing, Failure> {
        match (self.kind, flags) {
            (VIRTIO_BLK_T_DISCARD, 0) => Ok(Zeroing::Deallocate),
            (VIRTIO_BLK_T_WRITE_ZEROES, 0) => Ok(Zeroing::Keep),
            (VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) => Ok(Zeroing::Deallocate),
            _ => Err(Failure::Unsupported),
        }
    }
}

fn bounded(buffers: &Buffers) -> Result<(), Failure> {
    if buffers.len() > MAX_TRANSFER_BYTES { Err(Failure::Failed) } else { Ok(()) }
}
