//! The guest's attempts to write its images, which are mapped into its memory read-only: they come to nothing, and are told.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};
use stage1::attend::Alarm;
use stage1::error::report;

use crate::error::Error;

/// How many there were: a counter that the machine adds to. It says nothing else, whoever has taken the machine over.
pub struct ImageWrites(EventFd);

impl ImageWrites {
    /// None yet.
    pub fn new() -> Result<Self, Error> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let counter = EventFd::from_flags(flags).map_err(|errno| failed(errno.into()))?;
        Ok(Self(counter))
    }

    /// For who counts.
    pub fn counter(&self) -> Result<OwnedFd, Error> {
        self.0.as_fd().try_clone_to_owned().map_err(failed)
    }

    /// Tells of the first at once.
    pub fn alarm(&self) -> Result<Alarm, Error> {
        Ok(Alarm { descriptor: self.counter()?, error: Box::new(Error::ImageWritten) })
    }

    /// Tells of all of them, if there were any, now that the pod has ended.
    pub fn tell(&self) {
        if let Ok(count) = self.0.read() {
            report(&Error::ImageWrites { count });
        }
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::System { action: "make a counter", source }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_alarm_rings_until_the_end() {
        let writes = ImageWrites::new().unwrap();
        let alarm = writes.alarm().unwrap();
        let rings = || {
            let mut set = [PollFd::new(alarm.descriptor.as_fd(), PollFlags::POLLIN)];
            poll(&mut set, PollTimeout::ZERO).unwrap() > 0
        };
        assert!(!rings());
        for _ in 0..2 {
            nix::unistd::write(writes.counter().unwrap(), &1_u64.to_ne_bytes()).unwrap();
        }
        assert!(rings());
        assert_eq!(writes.0.read().unwrap(), 2);
        assert!(!rings());
    }
}
