//! The one I/O thread: an epoll loop that runs the handlers of the active devices.

use std::io;
use std::os::fd::RawFd;

use vmm_sys_util::epoll::EventSet;

/// What a handler may do to its own descriptors. Tokens are the handler's own; the loop tells handlers apart.
pub trait Registry {
    /// Watches `fd` for `events`, reported with `token`.
    fn add(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()>;
    /// Changes what `fd` is watched for.
    fn modify(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()>;
    /// Stops watching `fd`; call it before the descriptor is closed.
    fn remove(&mut self, fd: RawFd) -> io::Result<()>;
}

/// Why a handler cannot go on: the device is taken off the loop and marked as needing a reset; the machine runs on.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The driver broke the queue's rules.
    #[error("the driver broke the rules of queue {queue}: {reason}")]
    Queue {
        /// The queue's index.
        queue: usize,
        /// What was wrong.
        reason: String,
    },
    /// A host descriptor failed.
    #[error("{what}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The running half of a device. It must bound its work per call: handle a limited number of buffers, then return
/// (a notify descriptor that is not drained fires again).
pub trait EventHandler: Send {
    /// Called once on the I/O thread, to watch the first descriptors.
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError>;
    /// Called when a descriptor that was added with `token` is ready.
    fn handle(&mut self, token: u32, events: EventSet, registry: &mut dyn Registry) -> Result<(), HandlerError>;
}
