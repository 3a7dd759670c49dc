//! Appends to a sink through one large buffer, leaving out blocks of zeros.

use std::io::{self, Read};

use crate::error::Error;
use crate::format::BLOCK;
use crate::sink::Sink;

/// Large enough that the disk sees long writes, small enough to stay in the processor's cache.
const BUFFER_BYTES: usize = 512 << 10;
const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

pub(crate) struct Appender<S> {
    sink: S,
    /// Where the buffer's first byte goes; a multiple of a block.
    start: u64,
    buffer: Vec<u8>,
}

/// Why [`Appender::copy`] stopped.
pub(crate) enum CopyError {
    /// The data could not be read.
    Read(io::Error),
    /// The image could not be written.
    Write(Error),
}

impl<S: Sink> Appender<S> {
    /// Begins at block 1: block 0 has the superblock, which [`Appender::finish`] writes.
    pub fn new(sink: S) -> Self {
        Self { sink, start: BLOCK, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Appends bytes.
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let room = self.room()?.min(data.len());
            let (now, later) = data.split_at(room);
            self.buffer.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    /// Appends zeros up to `position`, which is not behind the current one.
    pub fn pad_to(&mut self, position: u64) -> Result<(), Error> {
        while self.position() < position {
            let missing = usize::try_from(position - self.position()).unwrap_or(usize::MAX);
            let room = self.room()?.min(missing);
            self.buffer.resize(self.buffer.len() + room, 0);
        }
        Ok(())
    }

    /// Appends zeros up to the end of a block and returns the next block's number.
    pub fn align(&mut self) -> Result<u64, Error> {
        let end = self.position().next_multiple_of(BLOCK);
        self.pad_to(end)?;
        Ok(end / BLOCK)
    }

    /// Appends `size` bytes from `data`, or fewer if it ends before; returns how many.
    pub fn copy(&mut self, data: &mut dyn Read, size: u64) -> Result<u64, CopyError> {
        let mut copied = 0;
        while copied < size {
            let room = (self.room().map_err(CopyError::Write)? as u64).min(size - copied);
            let got =
                Read::take(&mut *data, room).read_to_end(&mut self.buffer).map_err(CopyError::Read)? as u64;
            copied += got;
            if got < room {
                break;
            }
        }
        Ok(copied)
    }

    /// Writes out what is left, makes the dead ranges zero, and writes the head of the image.
    pub fn finish(mut self, dead: &[(u64, u64)], superblock: &[u8], at: u64) -> Result<S, Error> {
        self.align()?;
        self.flush()?;
        for (offset, length) in dead {
            self.sink
                .punch_hole(*offset, *length)
                .map_err(|source| Error::Write { offset: *offset, source })?;
        }
        self.sink.write_at(superblock, at).map_err(|source| Error::Write { offset: at, source })?;
        Ok(self.sink)
    }

    /// Space in the buffer, at least one byte.
    fn room(&mut self) -> Result<usize, Error> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(BUFFER_BYTES - self.buffer.len())
    }

    /// Writes the buffer's runs of blocks that are not all zero. Called with whole blocks only.
    fn flush(&mut self) -> Result<(), Error> {
        let mut offset = self.start;
        for (zero, run) in runs(&self.buffer) {
            if !zero {
                self.sink.write_at(run, offset).map_err(|source| Error::Write { offset, source })?;
            }
            offset += run.len() as u64;
        }
        self.start = offset;
        self.buffer.clear();
        Ok(())
    }
}

/// The longest runs of blocks of which all or none are zero, with which of the two they are.
fn runs(bytes: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let is_zero = |block: &[u8]| ZEROS.get(..block.len()) == Some(block);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let mut blocks = rest.chunks(BLOCK as usize);
        let zero = is_zero(blocks.next()?);
        let same = 1 + blocks.take_while(|block| is_zero(block) == zero).count();
        let (run, behind) = rest.split_at(rest.len().min(same * BLOCK as usize));
        rest = behind;
        Some((zero, run))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that notes the ranges written.
    #[derive(Default)]
    struct Ranges(Vec<(u64, usize)>);

    impl Sink for Ranges {
        fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
            self.0.push((offset, data.len()));
            Ok(())
        }
        fn punch_hole(&mut self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn blocks_of_zeros_are_not_written() {
        let mut appender = Appender::new(Ranges::default());
        appender.write(&[1; 4096]).unwrap();
        appender.write(&[0; 8192]).unwrap();
        appender.write(&[1; 5000]).unwrap();
        assert_eq!(appender.align().unwrap(), 6);
        let ranges = appender.finish(&[], b"head", 1024).unwrap().0;
        assert_eq!(ranges, [(4096, 4096), (16384, 8192), (1024, 4)]);
    }

    #[test]
    fn data_larger_than_the_buffer_arrives_in_order() {
        let data: Vec<u8> = (0..3 * BUFFER_BYTES as u32 + 17).map(|n| (n / 7) as u8).collect();
        let mut appender = Appender::new(Vec::new());
        appender.write(&data[..100]).unwrap();
        assert!(matches!(appender.copy(&mut &data[100..], u64::MAX), Ok(n) if n == data.len() as u64 - 100));
        let image = appender.finish(&[], b"", 0).unwrap();
        assert!(image[4096..].starts_with(&data));
        assert_eq!(image.len() % 4096, 0);
    }

    #[test]
    fn dead_ranges_become_zeros() {
        let mut appender = Appender::new(Vec::new());
        appender.write(&[1; 3 * 4096]).unwrap();
        let image = appender.finish(&[(8192, 4096)], b"", 0).unwrap();
        assert_eq!((image[8191], image[8192], image[12287], image[12288]), (1, 0, 0, 1));
    }
}
