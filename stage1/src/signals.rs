//! The signals that a pod's parent takes, as something to poll for.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pod::control::ExitStatus;

use crate::Error;

/// Signals that end a pod: in an orderly way the first time, at once the second.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// How a pod is said to have ended that was ended before its first app had started: there was nothing to end in an orderly way.
pub const ENDED_BEFORE_ITS_START: ExitStatus = ExitStatus::Signal(libc::SIGTERM as u8);

/// A signal's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// End the pod.
    End,
    /// The terminal has another size.
    Resized,
}

/// The parent's signals; blocked from its making on, also in threads and processes that are started afterwards.
#[derive(Debug)]
pub struct Signals {
    signals: SignalFd,
}

impl Signals {
    /// Blocks the signals and takes them instead. Call it before any thread is started.
    pub fn block() -> Result<Self, Error> {
        let mut set = SigSet::empty();
        ENDING.into_iter().chain([Signal::SIGWINCH]).for_each(|signal| set.add(signal));
        let signals = set
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
            .map_err(|source| Error::System { action: "take signals", source })?;
        Ok(Self { signals })
    }

    /// Whether the pod is to end, asked before its apps have started.
    pub fn interrupted(&self) -> bool {
        self.next() == Some(Meaning::End)
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Meaning> {
        let signal = self.signals.read_signal().ok().flatten()?;
        let winch = u32::try_from(libc::SIGWINCH).is_ok_and(|winch| signal.ssi_signo == winch);
        Some(if winch { Meaning::Resized } else { Meaning::End })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
