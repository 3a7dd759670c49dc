//! The host's end of a connection: a socket, and what it has not taken yet.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, send};

use super::super::buffers::{AccessError, Buffers, Source};
use crate::memory::DeviceMemory;

/// Why data from the guest could not be taken over.
#[derive(Debug)]
pub enum SendError {
    /// The guest's buffer is no memory.
    Memory,
    /// The program takes no more data.
    Gone,
}

impl From<AccessError> for SendError {
    fn from(_: AccessError) -> Self {
        Self::Memory
    }
}

/// A socket to a program on the host. Data that it does not take is held, by the protocol's credit never more than
/// the connection's window.
#[derive(Debug)]
pub struct HostEnd {
    stream: UnixStream,
    held: VecDeque<u8>,
    finished: bool,
}

impl HostEnd {
    /// The device's end of a connection, which is made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, held: VecDeque::new(), finished: false })
    }

    /// Sends `data` from guest memory, or holds it; returns how many bytes the socket took.
    pub fn send(&mut self, memory: &DeviceMemory, data: &Buffers) -> Result<usize, SendError> {
        let taken = if self.held.is_empty() && !data.is_empty() {
            taken(Source::new(memory, data)?.send(self.as_fd()))?
        } else {
            0
        };
        let mut rest = vec![0; data.len().saturating_sub(taken)];
        data.copy_out(memory, taken, &mut rest)?;
        self.held.extend(rest);
        Ok(taken)
    }

    /// Sends what is held; returns how many bytes the socket took.
    pub fn flush(&mut self) -> Result<usize, SendError> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut total = 0;
        while !self.held.is_empty() {
            let (first, _) = self.held.as_slices();
            let count = taken(send(self.stream.as_raw_fd(), first, flags).map_err(io::Error::from))?;
            if count == 0 {
                return Ok(total);
            }
            self.held.drain(..count.min(self.held.len()));
            total += count;
        }
        // Most connections need the buffer once or never.
        self.held = VecDeque::new();
        Ok(total)
    }

    /// The number of bytes held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Throws away what is held, for nobody takes it any more; returns how much that was.
    pub fn discard(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }

    /// Tells the program that no more data comes. The socket's own buffer is still delivered.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            // The only failure is that the program has closed its end, in which case it knows.
            let _closed = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Makes the program's writes fail, for nobody reads them any more.
    pub fn refuse(&self) {
        let _closed = self.stream.shutdown(Shutdown::Read);
    }
}

impl AsFd for HostEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn taken(result: io::Result<usize>) -> Result<usize, SendError> {
    match result {
        Ok(count) => Ok(count),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        Err(_) => Err(SendError::Gone),
    }
}
