//! The host's side of a disk: a file, and what may be done to it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::super::buffers::{Buffers, Sink, Source};
use crate::memory::DeviceMemory;

/// The unit of addresses and sizes in virtio-blk, whatever the block size is.
pub const SECTOR_BYTES: u64 = 512;
/// The most sectors of one range to discard or zero: 2 GiB, so that a request does not keep the host busy for long.
pub const MAX_RANGE_SECTORS: u32 = (2 << 30) / SECTOR_BYTES as u32;
/// The length of the answer to GET_ID.
pub const ID_BYTES: usize = 20;

/// What to do with a range of sectors that becomes zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// Give its space back to the host.
    Deallocate,
    /// Keep its space if the host's file system can.
    Keep,
}

/// A file as a disk. All offsets and lengths are checked against its capacity.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
    write_through: bool,
    id: [u8; ID_BYTES],
}

impl Disk {
    /// The disk that `file` holds: as many whole sectors as it has now.
    pub fn new(mut file: File, read_only: bool) -> io::Result<Self> {
        // The end of a block device is where seeking says; its metadata tell no size.
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR_BYTES;
        let mut id = [0; ID_BYTES];
        for (byte, digit) in id.iter_mut().zip(format!("{:x}", file.metadata()?.ino()).bytes()) {
            *byte = digit;
        }
        Ok(Self { file, sectors, read_only, write_through: false, id })
    }

    /// A second handle of the same disk.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, ..*self })
    }

    /// The capacity.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether each write shall be on stable storage when it returns.
    pub fn write_through(&mut self, yes: bool) {
        self.write_through = yes;
    }

    /// What tells this disk from others: by the inode, so that it is the same at the next start.
    pub fn id(&self) -> &[u8; ID_BYTES] {
        &self.id
    }

    /// Reads from `sector` on into all of `target`.
    pub fn read(&self, memory: &DeviceMemory, sector: u64, target: &Buffers) -> io::Result<()> {
        let offset = self.offset_of(sector, target.len() as u64)?;
        transfer(target, offset, |part, at| Sink::new(memory, part)?.read_at(self.file.as_fd(), at))
    }

    /// Writes all of `source` from `sector` on.
    pub fn write(&self, memory: &DeviceMemory, sector: u64, source: &Buffers) -> io::Result<()> {
        self.refuse_if_read_only()?;
        let offset = self.offset_of(sector, source.len() as u64)?;
        transfer(source, offset, |part, at| Source::new(memory, part)?.write_at(self.file.as_fd(), at))?;
        if self.write_through { self.flush() } else { Ok(()) }
    }

    /// Puts what was written on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    /// Makes `count` sectors from `sector` on read as zeros.
    pub fn zero(&self, sector: u64, count: u32, zeroing: Zeroing) -> io::Result<()> {
        self.refuse_if_read_only()?;
        if count > MAX_RANGE_SECTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = u64::from(count) * SECTOR_BYTES;
        let offset = self.offset_of(sector, bytes)?;
        if count == 0 {
            return Ok(());
        }
        let range = |mode| {
            fallocate(&self.file, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset as i64, bytes as i64)
        };
        let punch = || range(FallocateFlags::FALLOC_FL_PUNCH_HOLE);
        let done = match zeroing {
            Zeroing::Deallocate => punch(),
            Zeroing::Keep => match range(FallocateFlags::FALLOC_FL_ZERO_RANGE) {
                Err(Errno::EOPNOTSUPP) => punch(),
                done => done,
            },
        };
        done.map_err(io::Error::from)?;
        if self.write_through { self.flush() } else { Ok(()) }
    }

    fn refuse_if_read_only(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// The file offset of a sector from which on `bytes`, a whole number of sectors, lie within the disk.
    fn offset_of(&self, sector: u64, bytes: u64) -> io::Result<u64> {
        sector
            .checked_add(bytes / SECTOR_BYTES)
            .filter(|end| bytes.is_multiple_of(SECTOR_BYTES) && *end <= self.sectors)
            .and_then(|_| sector.checked_mul(SECTOR_BYTES))
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// Repeats `once` until all of `buffers` is transferred. A file may give less than asked for, and gives nothing where
/// somebody has truncated it since.
fn transfer(
    buffers: &Buffers,
    offset: u64,
    once: impl Fn(&Buffers, u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut rest = buffers.clone();
    let mut at = offset;
    while !rest.is_empty() {
        let count = once(&rest, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest.split_front(count)?;
        at += count as u64;
    }
    Ok(())
}
