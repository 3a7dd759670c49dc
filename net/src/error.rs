//! The crate's one error type.

use std::io;

use pod::guest_network::{InterfaceName, MacAddress};

/// Why a network could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description names an interface that is not there.
    #[error("there is no network interface with the MAC address {0}")]
    NoInterface(MacAddress),
    /// A plugin has not made the interface that it was to make, or one that no guest can have.
    #[error(
        "the CNI plugins have left no Ethernet interface {0} in the pod's network namespace: a VM cannot use this network; \
        use --stage1=nspawn"
    )]
    NoEthernet(InterfaceName),
    /// The tap is not there.
    #[error("there is no tap {0} in the pod's network namespace")]
    NoTap(String),
    /// The kernel cannot pass packets on from one interface to another.
    #[error(
        "this kernel cannot redirect packets between a network and a VM: load the modules sch_ingress, cls_u32 and \
        act_mirred (modprobe -a sch_ingress cls_u32 act_mirred), or use --stage1=nspawn"
    )]
    NoRedirect(#[source] Box<Error>),
    /// A thread or a namespace for a trial could not be had.
    #[error("cannot make a network namespace to try things in")]
    Trial(#[source] io::Error),
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
