//! A reader that nobody waits for: what it has not taken yet is kept for it up to a limit, and beyond that it is let go.

use std::cell::{Cell, RefCell};

use nix::poll::{PollFd, PollFlags};

use crate::ends::Sink;

/// How much is kept for a reader, beyond what the kernel keeps.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// How things stand with a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets what comes.
    Listening,
    /// Nothing more will come; it takes the rest.
    Ending,
    /// It has been too slow, and gets no more.
    Overrun,
    /// It has gone, or has all.
    Gone,
}

/// A reader. Shared by who writes to it and who polls it.
#[derive(Debug)]
pub struct Listener {
    sink: Sink,
    pending: RefCell<Vec<u8>>,
    standing: Cell<Standing>,
}

impl Listener {
    /// Somebody who reads from the other end of `sink`.
    pub fn new(sink: Sink) -> Self {
        Self { sink, pending: RefCell::default(), standing: Cell::new(Standing::Listening) }
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        self.standing.get()
    }

    /// Gives it these bytes, now or later; never waits.
    pub fn offer(&self, bytes: &[u8]) {
        if self.standing() != Standing::Listening {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        let written = match pending.is_empty() {
            true => self.sink.write(bytes),
            false => Ok(0),
        };
        match written {
            Ok(count) => pending.extend_from_slice(bytes.get(count..).unwrap_or_default()),
            Err(_) => self.standing.set(Standing::Gone),
        }
        if pending.len() > MAX_PENDING_BYTES {
            self.standing.set(Standing::Overrun);
            *pending = Vec::new();
        }
    }

    /// Nothing more will come.
    pub fn end(&self) {
        if self.standing() == Standing::Listening {
            self.standing.set(Standing::Ending);
        }
        self.settle();
    }

    /// It has gone, whoever it is that says so.
    pub fn leave(&self) {
        self.standing.set(Standing::Gone);
        *self.pending.borrow_mut() = Vec::new();
    }

    /// What to wait for: nothing while nothing is kept for it.
    pub fn interest(&self) -> Option<PollFd<'_>> {
        let pending = !self.pending.borrow().is_empty();
        pending.then(|| PollFd::new(self.sink.fd(), PollFlags::POLLOUT))
    }

    /// Gives it what it takes of what is kept, after [`Listener::interest`] was answered.
    pub fn advance(&self) {
        let mut pending = self.pending.borrow_mut();
        match self.sink.write(&pending) {
            Ok(count) => drop(pending.drain(..count)),
            Err(_) => {
                drop(pending);
                return self.leave();
            }
        }
        drop(pending);
        self.settle();
    }

    fn settle(&self) {
        if self.standing() == Standing::Ending && self.pending.borrow().is_empty() {
            self.standing.set(Standing::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use crate::SinkEnd;

    fn listener() -> (std::fs::File, Listener) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (read.into(), Listener::new(Sink::new(write, SinkEnd::Close).unwrap()))
    }

    #[test]
    fn all_arrives_if_it_is_taken() {
        let (mut far, listener) = listener();
        let sent: Vec<u8> = (0..500_000u32).map(|n| (n % 251) as u8).collect();
        sent.chunks(10_000).for_each(|chunk| listener.offer(chunk));
        assert!(listener.interest().is_some(), "a pipe holds less");
        listener.end();
        assert_eq!(listener.standing(), Standing::Ending);
        let mut received = vec![0; sent.len()];
        let mut filled = 0;
        while filled < sent.len() {
            filled += far.read(&mut received[filled..]).unwrap();
            if listener.interest().is_some() {
                listener.advance();
            }
        }
        assert!(received == sent);
        assert_eq!(listener.standing(), Standing::Gone);
    }

    #[test]
    fn who_does_not_read_is_let_go() {
        let (_far, listener) = listener();
        let mut offered = 0;
        while listener.standing() == Standing::Listening {
            listener.offer(&[0; 10_000]);
            offered += 10_000;
            assert!(offered < 2 * MAX_PENDING_BYTES);
        }
        assert_eq!((listener.standing(), listener.interest().is_some()), (Standing::Overrun, false));
        listener.end();
        assert_eq!(listener.standing(), Standing::Overrun);
    }

    #[test]
    fn who_has_gone_is_gone() {
        let (far, listener) = listener();
        drop(far);
        listener.offer(b"x");
        assert_eq!(listener.standing(), Standing::Gone);
    }
}
