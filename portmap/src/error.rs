//! What goes wrong, and the numbers that CNI has for it.

use std::io;
use std::path::PathBuf;

use pod::ports::PortMapping;
use serde_json::{Value, json};

use crate::owner::Owner;
use crate::state::TABLE;

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input.
    #[error("cannot read the configuration from standard input")]
    Input(#[source] io::Error),
    /// A parameter that is missing or wrong.
    #[error("{0} is missing or no such thing")]
    Parameter(&'static str),
    /// A verb of somebody else.
    #[error("CNI_COMMAND is \"{0}\", which is none of ADD, DEL, CHECK, GC, STATUS and VERSION")]
    Verb(String),
    /// A configuration that does not parse.
    #[error("the configuration does not parse")]
    Configuration(#[source] serde_json::Error),
    /// Its version.
    #[error(transparent)]
    Version(#[from] net::cni::UnknownVersion),
    /// What the CNI project's plugin does by iptables.
    #[error(
        "\"{0}\" of the configuration is for iptables; leave it out, or install the CNI project's plugin portmap"
    )]
    ForIptables(&'static str),
    /// It came first in its list.
    #[error(
        "there is no result of a plugin before this one: portmap comes after one that gives the pod an address"
    )]
    First,
    /// What the plugin before has told.
    #[error("the result of the plugin before is wrong: {0}")]
    Previous(String),
    /// A port that leads nowhere.
    #[error("the host's {0} leads nowhere: the pod has no address of this version of IP")]
    Nowhere(PortMapping),
    /// `nft` is not there.
    #[error(
        "ports are led to pods by nft, which is not in {0}: install it (Debian: nftables), or the CNI project's plugin portmap \
        (containernetworking-plugins) with iptables"
    )]
    NoNft(String),
    /// It could not be executed.
    #[error("cannot execute {}", .0.display())]
    Execute(PathBuf, #[source] io::Error),
    /// It failed.
    #[error("{} {arguments} failed: {said}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// With these.
        arguments: String,
        /// What it printed.
        said: String,
    },
    /// A setting of the kernel's.
    #[error("cannot write {}", .0.display())]
    Setting(PathBuf, #[source] io::Error),
    /// What pods have in the table.
    #[error("cannot read the table \"{TABLE}\" of nftables")]
    Read(#[source] net::Error),
    /// Flows that go on as before.
    #[error("cannot forget what was sent to the ports before")]
    Flows(#[source] net::Error),
    /// Two attachments want one port.
    #[error(
        "the host's {port} is taken by {owner} (network/container/interface); if that has ended, it has to be removed \
        before (rkt rm, for a pod of rkt's)"
    )]
    Taken {
        /// Which.
        port: PortMapping,
        /// Who has it.
        owner: Owner,
    },
    /// CHECK has found something else than ADD has left.
    #[error("the table \"{TABLE}\" is not as it was made: {0}")]
    Changed(String),
    /// The lock of those who change the table.
    #[error("cannot lock {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
}

/// CNI's numbers (CNI spec, "Error"), and from 100 on our own.
impl Error {
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::ForIptables(_) => 2,
            Self::Parameter(_) | Self::Verb(_) => 4,
            Self::Input(_) => 5,
            Self::Configuration(_) | Self::Previous(_) => 6,
            Self::First | Self::Nowhere(_) => 7,
            Self::NoNft(_) => 50,
            Self::Execute(..)
            | Self::Failed { .. }
            | Self::Setting(..)
            | Self::Read(_)
            | Self::Flows(_)
            | Self::Lock(..) => 100,
            Self::Changed(_) => 101,
            Self::Taken { .. } => 102,
        }
    }

    /// As plugins tell it.
    pub fn to_json(&self) -> Value {
        let source = std::error::Error::source(self).map(ToString::to_string).unwrap_or_default();
        let version = net::cni::SpecVersion::NEWEST.as_str();
        json!({"cniVersion": version, "code": self.code(), "msg": self.to_string(), "details": source})
    }
}
