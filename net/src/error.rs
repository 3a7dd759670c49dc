//! The crate's one error type.

use std::io;

use crate::guest_network::MacAddress;

/// Why a network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text of the description is not what it should be.
    #[error("\"{value}\" is not {expected}")]
    Syntax {
        /// The offending text.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The description names an interface that is not there.
    #[error("there is no network interface with the MAC address {0}")]
    NoInterface(MacAddress),
    /// Talking to the kernel failed.
    #[error("netlink: cannot {what}")]
    Socket {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer makes no sense.
    #[error("netlink: the kernel's answer does not parse: {0}")]
    Answer(String),
    /// The kernel refused a request.
    #[error("cannot {what}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}
