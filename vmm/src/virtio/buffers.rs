//! The guest buffers of a request, and host I/O straight from and to them.
//!
//! A driver describes buffers by guest-physical addresses, which are its word and nothing more. [`Buffers`] carries
//! them unchecked; each access resolves them against [`DeviceMemory`] with the right permission. That resolution,
//! in [`Source`] and [`Sink`] and the two copying functions, is the one place where a device's access is checked.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use crate::memory::DeviceMemory;

/// The most pieces that one vectored system call takes (`IOV_MAX`).
const MAX_IOVECS: usize = 1024;

/// Why guest buffers could not be accessed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Part of the range is no memory, or memory that a device may not access in this way.
    #[error("{len} bytes at guest address {address:#x} cannot be accessed")]
    Address {
        /// The guest-physical address.
        address: u64,
        /// The length of the range in bytes.
        len: usize,
    },
    /// The access goes past the end of the buffers.
    #[error("the buffers hold {have} bytes where {need} are needed")]
    TooShort {
        /// The bytes that are there.
        have: usize,
        /// The bytes that were asked for.
        need: usize,
    },
    /// The buffers are in more pieces than a system call takes.
    #[error("the buffers are in more than {MAX_IOVECS} pieces")]
    Pieces,
}

impl From<AccessError> for io::Error {
    fn from(error: AccessError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: GuestAddress,
    len: usize,
}

/// A scatter list of guest memory: where the bytes of one direction of a request are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    segments: Vec<Segment>,
    len: usize,
}

impl Buffers {
    /// Appends `len` bytes at `address`.
    pub fn push(&mut self, address: GuestAddress, len: u32) {
        if len > 0 {
            let len = len as usize;
            self.segments.push(Segment { address, len });
            self.len = self.len.saturating_add(len);
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of pieces.
    pub fn pieces(&self) -> usize {
        self.segments.len()
    }

    /// The `len` bytes from `offset` on, or an error if they are not there.
    pub fn range(&self, offset: usize, len: usize) -> Result<Self, AccessError> {
        let too_short = || AccessError::TooShort { have: self.len, need: offset.saturating_add(len) };
        let end = offset.checked_add(len).filter(|end| *end <= self.len).ok_or_else(too_short)?;
        let mut part = Self::default();
        let mut at = 0;
        for segment in &self.segments {
            let next = at + segment.len;
            let (from, to) = (offset.max(at), end.min(next));
            if from < to {
                let skip = (from - at) as u64;
                let wrapped = || AccessError::Address { address: segment.address.0, len: segment.len };
                let address = segment.address.0.checked_add(skip).map(GuestAddress).ok_or_else(wrapped)?;
                part.segments.push(Segment { address, len: to - from });
            }
            at = next;
        }
        part.len = len;
        Ok(part)
    }

    /// Cuts the first `len` bytes off and returns them, or an error if there are fewer.
    pub fn split_front(&mut self, len: usize) -> Result<Self, AccessError> {
        let front = self.range(0, len)?;
        *self = self.range(len, self.len.saturating_sub(len))?;
        Ok(front)
    }

    /// Copies `N` bytes at `offset` out of guest memory.
    pub fn read<const N: usize>(&self, memory: &DeviceMemory, offset: usize) -> Result<[u8; N], AccessError> {
        let mut bytes = [0; N];
        self.copy_out(memory, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from guest memory at `offset`.
    pub fn copy_out(
        &self,
        memory: &DeviceMemory,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), AccessError> {
        let mut rest = bytes;
        for segment in self.range(offset, rest.len())?.segments {
            let (now, later) = rest.split_at_mut(segment.len.min(rest.len()));
            memory.read_slice(now, segment.address).map_err(|_| segment.inaccessible())?;
            rest = later;
        }
        Ok(())
    }

    /// Copies `bytes` into guest memory at `offset`.
    pub fn write(&self, memory: &DeviceMemory, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        let mut rest = bytes;
        for segment in self.range(offset, rest.len())?.segments {
            let (now, later) = rest.split_at(segment.len.min(rest.len()));
            memory.write_slice(now, segment.address).map_err(|_| segment.inaccessible())?;
            rest = later;
        }
        Ok(())
    }

    /// Gives the whole pages among these bytes back to the host: they read as zeros until they are written again. What is no
    /// memory that the device may write is left as it is.
    pub fn discard(&self, memory: &DeviceMemory) {
        for segment in &self.segments {
            // It is the driver's loss: that memory was not its to give.
            let _not_memory = memory.discard(segment.address, segment.len);
        }
    }
}

impl Segment {
    fn inaccessible(&self) -> AccessError {
        AccessError::Address { address: self.address.0, len: self.len }
    }
}

/// Host addresses of guest memory, checked for one kind of access, and good for as long as the memory is borrowed.
#[derive(Debug, Default)]
struct Pieces<'m> {
    iovecs: Vec<libc::iovec>,
    len: usize,
    memory: PhantomData<&'m DeviceMemory>,
}

impl<'m> Pieces<'m> {
    fn add(
        &mut self,
        memory: &'m DeviceMemory,
        buffers: &Buffers,
        access: Permissions,
    ) -> Result<(), AccessError> {
        for segment in &buffers.segments {
            let slices = memory
                .get_slices(segment.address, segment.len, access)
                .map_err(|_| segment.inaccessible())?;
            for slice in slices {
                let slice = slice.map_err(|_| segment.inaccessible())?;
                if self.iovecs.len() >= MAX_IOVECS {
                    return Err(AccessError::Pieces);
                }
                let start = slice.ptr_guard_mut().as_ptr().cast();
                self.iovecs.push(libc::iovec { iov_base: start, iov_len: slice.len() });
                self.len += slice.len();
            }
        }
        Ok(())
    }

    /// The arguments of a vectored system call; the count is at most [`MAX_IOVECS`].
    fn arguments(&self) -> (*const libc::iovec, libc::c_int) {
        (self.iovecs.as_ptr(), self.iovecs.len() as libc::c_int)
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: all zeros is a valid msghdr: no address, no control data, no pieces.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.iovecs.as_mut_ptr();
        message.msg_iovlen = self.iovecs.len() as _;
        message
    }
}

/// Guest memory that the device may read, as the source of host output.
#[derive(Debug, Default)]
pub struct Source<'m>(Pieces<'m>);

impl<'m> Source<'m> {
    /// The bytes of `buffers`.
    pub fn new(memory: &'m DeviceMemory, buffers: &Buffers) -> Result<Self, AccessError> {
        let mut source = Self::default();
        source.0.add(memory, buffers, Permissions::Read)?;
        Ok(source)
    }

    /// writev(2).
    pub fn write_to(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let (iovecs, count) = self.0.arguments();
        // SAFETY: the pieces are readable memory for as long as `self` borrows it.
        retry(|| unsafe { libc::writev(fd.as_raw_fd(), iovecs, count) })
    }

    /// pwritev(2).
    pub fn write_at(&self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let (iovecs, count) = self.0.arguments();
        let offset = file_offset(offset)?;
        // SAFETY: the pieces are readable memory for as long as `self` borrows it.
        retry(|| unsafe { libc::pwritev(fd.as_raw_fd(), iovecs, count, offset) })
    }

    /// sendmsg(2) that neither waits nor raises SIGPIPE.
    pub fn send(mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let message = self.0.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message names the pieces, readable memory for as long as `self` borrows it, and nothing else.
        retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
    }
}

/// Guest memory that the device may write, as the target of host input.
#[derive(Debug, Default)]
pub struct Sink<'m>(Pieces<'m>);

impl<'m> Sink<'m> {
    /// The bytes of `buffers`.
    pub fn new(memory: &'m DeviceMemory, buffers: &Buffers) -> Result<Self, AccessError> {
        let mut sink = Self::default();
        sink.add(memory, buffers)?;
        Ok(sink)
    }

    /// Appends the bytes of `buffers`.
    pub fn add(&mut self, memory: &'m DeviceMemory, buffers: &Buffers) -> Result<(), AccessError> {
        self.0.add(memory, buffers, Permissions::Write)
    }

    /// Appends memory of the host's own, which takes what does not fit the guest's.
    pub fn add_overflow(&mut self, bytes: &'m mut [u8]) -> Result<(), AccessError> {
        if self.0.iovecs.len() >= MAX_IOVECS {
            return Err(AccessError::Pieces);
        }
        self.0.iovecs.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        self.0.len += bytes.len();
        Ok(())
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// recvmsg(2) that does not wait.
    pub fn receive(mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut message = self.0.message();
        // SAFETY: the message names the pieces, writable memory for as long as `self` borrows it, and nothing else.
        retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) })
    }

    /// readv(2).
    pub fn read_from(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let (iovecs, count) = self.0.arguments();
        // SAFETY: the pieces are writable memory for as long as `self` borrows it.
        retry(|| unsafe { libc::readv(fd.as_raw_fd(), iovecs, count) })
    }

    /// preadv(2).
    pub fn read_at(&self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let (iovecs, count) = self.0.arguments();
        let offset = file_offset(offset)?;
        // SAFETY: the pieces are writable memory for as long as `self` borrows it.
        retry(|| unsafe { libc::preadv(fd.as_raw_fd(), iovecs, count, offset) })
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Repeats a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use vm_memory::GuestMemoryMmap;

    use super::*;

    fn memory() -> DeviceMemory {
        let regions =
            [(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000), (GuestAddress(0x8000), 0x1000)];
        DeviceMemory::from(GuestMemoryMmap::from_ranges(&regions).unwrap())
    }

    fn buffers(segments: &[(u64, u32)]) -> Buffers {
        let mut buffers = Buffers::default();
        for (address, len) in segments {
            buffers.push(GuestAddress(*address), *len);
        }
        buffers
    }

    #[test]
    fn ranges_cut_across_segments() {
        let all = buffers(&[(0x100, 10), (0x200, 0), (0x300, 10)]);
        assert_eq!(all.len(), 20);
        assert_eq!(all.range(8, 4).unwrap(), buffers(&[(0x108, 2), (0x300, 2)]));
        assert_eq!(all.range(20, 0).unwrap(), Buffers::default());
        assert!(all.range(20, 1).is_err());
        assert!(all.range(usize::MAX, 2).is_err());
        let mut rest = all.clone();
        assert_eq!(rest.split_front(10).unwrap(), buffers(&[(0x100, 10)]));
        assert_eq!(rest, buffers(&[(0x300, 10)]));
        assert!(rest.split_front(11).is_err());
        assert_eq!(rest.len(), 10);
    }

    #[test]
    fn copies_reach_across_regions_and_stop_at_holes() {
        let memory = memory();
        let across = buffers(&[(0xffe, 4), (0x8000, 2)]);
        across.write(&memory, 1, b"abcde").unwrap();
        assert_eq!(&across.read::<5>(&memory, 1).unwrap(), b"abcde");
        assert!(across.read::<6>(&memory, 1).is_err());
        for hole in [(0x1fff, 2), (0x8fff, 2), (u64::MAX, 1), (u64::MAX - 1, 4), (0, u32::MAX)] {
            let hole = buffers(&[hole]);
            assert!(Source::new(&memory, &hole).is_err());
            assert!(Sink::new(&memory, &hole).is_err());
        }
    }

    #[test]
    fn host_io_goes_straight_through() {
        let memory = memory();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"hello world").unwrap();
        let target = buffers(&[(0xffd, 5), (0x8000, 3)]);
        let mut overflow = [0; 8];
        let mut sink = Sink::new(&memory, &target).unwrap();
        sink.add_overflow(&mut overflow).unwrap();
        assert_eq!(sink.read_from(far.as_fd()).unwrap(), 11);
        assert_eq!(&overflow[..3], b"rld");
        let source = Source::new(&memory, &target).unwrap();
        assert_eq!(source.write_to(far.as_fd()).unwrap(), 8);
        assert_eq!(source.send(far.as_fd()).unwrap(), 8);
        let mut text = [0; 16];
        near.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello wohello wo");
    }

    #[test]
    fn a_closed_socket_is_an_error_and_no_signal() {
        let memory = memory();
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        let source = Source::new(&memory, &buffers(&[(0, 1)])).unwrap();
        assert_eq!(source.send(far.as_fd()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn too_many_pieces_are_refused() {
        let memory = memory();
        let pieces: Vec<(u64, u32)> = (0..1025).map(|at| (at, 1)).collect();
        assert!(Source::new(&memory, &buffers(&pieces[..1024])).is_ok());
        assert!(matches!(Source::new(&memory, &buffers(&pieces)), Err(AccessError::Pieces)));
    }

    proptest! {
        #[test]
        fn any_range_is_a_part_or_an_error(
            segments in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..8),
            offset in any::<usize>(), len in any::<usize>(), small in any::<bool>()
        ) {
            let all = buffers(&segments);
            let (offset, len) = if small { (offset % (all.len() + 1), len % (all.len() + 2)) } else { (offset, len) };
            if let Ok(part) = all.range(offset, len) {
                prop_assert_eq!(part.len(), len);
                prop_assert_eq!(part.segments.iter().map(|segment| segment.len).sum::<usize>(), len);
            }
        }
    }
}
