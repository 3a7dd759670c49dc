//! Notices when the host's time of day jumps: somebody has set it, or the host was suspended. A guest's clock runs on from what it
//! was at its start and knows of neither.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::Error;

/// A time that never comes: the timer is there for what cancels it.
const NEVER: TimeSpec = TimeSpec::new(1 << 33, 0);

/// Readable when the time of day has jumped. It wakes nobody otherwise.
#[derive(Debug)]
pub struct ClockWatch(TimerFd);

impl ClockWatch {
    /// Watches from now on.
    pub fn new() -> Result<Self, Error> {
        let failed = |source| Error::System { action: "watch the time of day", source };
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags).map_err(failed)?;
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(Expiration::OneShot(NEVER), flags).map_err(failed)?;
        Ok(Self(timer))
    }

    /// The time of day if it has jumped since this was last asked, since the Epoch.
    pub fn jumped(&self) -> Option<Duration> {
        // There is something to read once a jump has cancelled the timer (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET), and not
        // before. To read it arms the timer again.
        self.0.wait().ok()?;
        SystemTime::now().duration_since(UNIX_EPOCH).ok()
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_while_time_goes_by() {
        let watch = ClockWatch::new().unwrap();
        assert_eq!(watch.jumped(), None);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(watch.jumped(), None);
    }
}
