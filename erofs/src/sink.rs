//! Where an image is written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// A destination that is empty to begin with and reads as zeros wherever nothing was written.
pub trait Sink {
    /// Writes at an offset, extending the destination where needed.
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes a range that was written read as zeros again and gives its space back where that is possible.
    fn punch_hole(&mut self, offset: u64, length: u64) -> io::Result<()>;
}

impl Sink for File {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn punch_hole(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (from, count) = (offset.try_into(), length.try_into());
        let (Ok(from), Ok(count)) = (from, count) else { return Err(io::ErrorKind::FileTooLarge.into()) };
        match fallocate(&*self, flags, from, count) {
            // Not every file system has holes; the bytes of the image must not depend on that.
            Err(Errno::EOPNOTSUPP) => write_zeros(self, offset, length),
            result => Ok(result?),
        }
    }
}

/// For images that are small enough for memory.
impl Sink for Vec<u8> {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if self.len() < end {
            self.resize(end, 0);
        }
        self.get_mut(start..end).ok_or(io::ErrorKind::FileTooLarge)?.copy_from_slice(data);
        Ok(())
    }

    fn punch_hole(&mut self, offset: u64, length: u64) -> io::Result<()> {
        write_zeros(self, offset, length)
    }
}

fn write_zeros(sink: &mut dyn Sink, offset: u64, length: u64) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    let end = offset.saturating_add(length);
    for start in (offset..end).step_by(zeros.len()) {
        let count = zeros.len().min((end - start) as usize);
        sink.write_at(zeros.get(..count).unwrap_or(&zeros), start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_hole_reads_as_zeros_and_takes_no_space() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 1 << 20], 0).unwrap();
        let before = file.metadata().unwrap().blocks();
        file.punch_hole(4096, 512 << 10).unwrap();
        let mut bytes = vec![0; 1 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == 0).count(), 512 << 10);
        assert_eq!(bytes[4095..4097], [7, 0]);
        assert!(file.metadata().unwrap().blocks() <= before);
    }

    #[test]
    fn zeros_over_a_range_that_is_no_multiple_of_the_buffer() {
        let mut memory = vec![1; 200_000];
        memory.punch_hole(10, 150_001).unwrap();
        assert_eq!(memory.iter().filter(|byte| **byte == 0).count(), 150_001);
        assert_eq!((memory[9], memory[150_011]), (1, 1));
        memory.write_at(b"x", 200_005).unwrap();
        assert_eq!(memory.len(), 200_006);
    }
}
