//! Where bytes are carried to: how it is written and ended without ever blocking the loop.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use nix::sys::stat::{Mode, SFlag, fstat};

/// What becomes of a sink at the end of what was carried to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkEnd {
    /// It is closed.
    Close,
    /// It is a socket that is read as well: its writing side is shut down.
    HalfClose,
    /// It is the master side of a terminal: the reader gets the end-of-file character.
    EndOfFileCharacter,
}

/// Where bytes are carried to.
#[derive(Debug)]
pub struct Sink {
    fd: OwnedFd,
    end: SinkEnd,
    socket: bool,
    /// The most that is written at once.
    limit: usize,
}

/// What a terminal in its usual mode takes for the end of its input: Ctrl-D.
const END_OF_FILE_CHARACTER: u8 = 4;
/// A pipe that is ready takes at least this much without blocking (POSIX, PIPE_BUF).
const PIPE_ATOMIC_BYTES: usize = 4096;

impl Sink {
    /// A sink that nobody else writes to; it is made non-blocking.
    pub fn new(fd: OwnedFd, end: SinkEnd) -> nix::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { socket: kind(fd.as_fd())? == SFlag::S_IFSOCK, fd, end, limit: usize::MAX })
    }

    /// A sink that others write to as well, such as the caller's standard output. Making it non-blocking would change
    /// it under them, so a pipe or a terminal is opened once more, for a description of our own; where that is not
    /// possible it is written in pieces that do not block. Regular files never do, and keep their offset.
    pub fn shared(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        let kind = kind(fd)?;
        let reopened = match kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            true => reopen(fd, OFlag::O_WRONLY),
            false => None,
        };
        let (fd, limit) = match reopened {
            Some(own) => (own, usize::MAX),
            None if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR => (duplicate(fd)?, PIPE_ATOMIC_BYTES),
            None => (duplicate(fd)?, usize::MAX),
        };
        Ok(Self { socket: kind == SFlag::S_IFSOCK, fd, end: SinkEnd::Close, limit })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn never_blocks(&self) -> bool {
        self.limit == usize::MAX
    }

    /// Writes what it takes without waiting; 0 if nothing.
    pub(crate) fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        let bytes = bytes.get(..self.limit).unwrap_or(bytes);
        let written = match self.socket {
            // A reader that has gone is an error here, not a signal.
            true => send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            false => nix::unistd::write(&self.fd, bytes),
        };
        written.or_else(nothing_yet)
    }

    /// Tells the reader that nothing follows; that it has gone already is no error.
    pub(crate) fn finish(self) {
        let _ = match self.end {
            SinkEnd::Close => Ok(()),
            SinkEnd::HalfClose => shutdown(self.fd.as_raw_fd(), Shutdown::Write),
            SinkEnd::EndOfFileCharacter => nix::unistd::write(&self.fd, &[END_OF_FILE_CHARACTER]).map(drop),
        };
    }
}

/// Turns the errors of a descriptor that is not ready into "nothing".
pub(crate) fn nothing_yet(errno: Errno) -> nix::Result<usize> {
    match errno {
        Errno::EAGAIN | Errno::EINTR => Ok(0),
        other => Err(other),
    }
}

fn kind(fd: BorrowedFd<'_>) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT)
}

fn reopen(fd: BorrowedFd<'_>, access: OFlag) -> Option<OwnedFd> {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str(), flags, Mode::empty()).ok()
}

fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
