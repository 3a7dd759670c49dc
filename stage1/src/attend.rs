//! Driving a pod from outside until it has exited.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use ::pod::control::{ExitStatus, StreamHello};
use ::pod::plan::Plan;

use crate::Error;
use crate::pod::Pod;
use crate::signals::Signals;
use crate::terminal::RawTerminal;
use crate::timeline::Timeline;

/// How the control channel comes about.
#[derive(Debug)]
pub enum Control {
    /// It is there, and the supervisor has its plan (namespaces).
    Connected(OwnedFd),
    /// The first connection to this socket will be it; further ones are not taken. After its `Ready` it gets the plan (VM).
    Expected(UnixListener),
}

/// How the apps' streams come about.
#[derive(Debug)]
pub enum Streams {
    /// These; whatever is missing is not carried.
    Connected(Vec<(StreamHello, OwnedFd)>),
    /// Connections to this socket, each of which begins with its `StreamHello`; one for each stream that the plan has (VM).
    Expected(UnixListener),
}

/// What connects a pod with its parent.
pub struct Connection<'a> {
    /// The control channel.
    pub control: Control,
    /// The apps' streams.
    pub streams: Streams,
    /// Becomes readable when the supervisor (a pidfd) or its machine (an eventfd) has ended, however that came.
    pub ended: OwnedFd,
    /// Ends the pod at once from outside, whatever it is doing.
    pub kill: &'a mut dyn FnMut(),
}

/// Attends to a pod until it has exited and all its output is delivered: carries streams between it and the caller's
/// (with several apps, each line of output with the app's name before it), passes on signals and the size of the
/// terminal, writes the apps' exit statuses. The first signal that ends pods asks for an orderly end; a second one, or
/// a pod that does not follow, ends it at once.
///
/// A pod whose set-up failed is [`Error::Failed`]; one that ended without having been asked to or telling how is
/// [`Error::SupervisorGone`].
pub fn attend(
    _pod: &Pod,
    _plan: &Plan,
    _connection: Connection<'_>,
    _signals: &Signals,
    _terminal: Option<&RawTerminal>,
    _timeline: &mut Timeline,
) -> Result<ExitStatus, Error> {
    Err(Error::SupervisorGone)
}
