//! The crate's one error type.

use std::io;

/// Why the guest cannot become a pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host could not be connected to.
    #[error("cannot connect to port {port} of the host")]
    Connect {
        /// The vsock port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The host could not connect here.
    #[error("cannot listen on port {port} for the host")]
    Listen {
        /// The vsock port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The control connection failed.
    #[error("the control connection to the host failed")]
    Control(#[source] io::Error),
    /// A message cannot be put in its form for the wire.
    #[error("cannot tell the host")]
    Message(#[from] pod::Error),
    /// The host began with another message.
    #[error("the host's first message is neither Start nor Export")]
    NoOrder,
    /// More apps than stream connections can name.
    #[error("the plan has more than {} apps", u16::MAX)]
    TooManyApps,
    /// What is to be exported could not be mounted.
    #[error(transparent)]
    Stage2(#[from] stage2::Error),
    /// What is to be exported could not be packed.
    #[error(transparent)]
    Pack(#[from] pack::Error),
    /// The end of the archive could not be written.
    #[error("cannot give the archive to the host")]
    Output(#[source] io::Error),
    /// The network could not be set up.
    #[error("cannot set the network up")]
    Network(#[from] net::Error),
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
