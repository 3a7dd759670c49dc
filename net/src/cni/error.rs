//! What goes wrong with CNI.

use std::io;
use std::path::{Path, PathBuf};

use super::version::{SpecVersion, UnknownVersion};
use crate::InterfaceName;

/// Why a network cannot be had, or not be let go.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// "read", "make", ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A configuration that is not one.
    #[error("the network configuration {} is not valid", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
    /// Two files of a directory for one network.
    #[error("the network \"{name}\" is configured twice, by {} and by {}", first.display(), second.display())]
    Twice {
        /// The network.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Networks that are asked for and not configured.
    #[error(
        "networks not found: {missing} (there are {known}; others are configured by files in {directories})"
    )]
    Unknown {
        /// What is not there.
        missing: String,
        /// What is there.
        known: String,
        /// Where configurations are looked for.
        directories: String,
    },
    /// A plugin that is not installed.
    #[error(
        "there is no CNI plugin \"{program}\" in {directories}; install it (Debian: containernetworking-plugins), or \
        name its directory in CNI_PATH"
    )]
    NoPlugin {
        /// The program.
        program: String,
        /// Where it was looked for.
        directories: String,
    },
    /// A plugin that cannot be executed.
    #[error("the CNI plugin {} is not executable", .0.display())]
    NotExecutable(PathBuf),
    /// A network that is not as wanted.
    #[error("network \"{network}\": the CNI plugin {} failed to {verb} {interface}", plugin.display())]
    Plugin {
        /// The network.
        network: String,
        /// The program.
        plugin: PathBuf,
        /// What it was to do: "add", "remove", ...
        verb: &'static str,
        /// The interface in the pod.
        interface: InterfaceName,
        /// What went wrong.
        #[source]
        source: Box<Failure>,
    },
    /// GC of a network.
    #[error("network \"{network}\": the CNI plugin {} failed to collect what pods have left", plugin.display())]
    Collect {
        /// The network.
        network: String,
        /// The program.
        plugin: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<Failure>,
    },
    /// A plugin that is asked about no attachment.
    #[error("network \"{network}\": the CNI plugin {} failed to {verb}", plugin.display())]
    Asked {
        /// The network.
        network: String,
        /// The program.
        plugin: PathBuf,
        /// What it was to do.
        verb: &'static str,
        /// What went wrong.
        #[source]
        source: Box<Failure>,
    },
    /// A plugin that does not speak the configuration's version.
    #[error(
        "network \"{network}\": the CNI plugin {} does not speak the configuration's version {version}, but {spoken}", plugin.display()
    )]
    OtherVersion {
        /// The network.
        network: String,
        /// The program.
        plugin: PathBuf,
        /// The configuration's.
        version: SpecVersion,
        /// The plugin's.
        spoken: String,
    },
    /// CHECK where the configuration's version has none.
    #[error("network \"{0}\" cannot be checked: its configuration's cniVersion is below 0.4.0")]
    NoCheck(String),
    /// Ports that no network forwards.
    #[error(
        "none of the pod's networks forwards ports: --port needs one with a plugin that has the capability \
        \"portMappings\", as portmap in the default network"
    )]
    NoPorts,
    /// Ranges of addresses for a network whose plugins take none.
    #[error(
        "network \"{0}\" takes no ipRanges: its configuration needs a plugin that has the capability \"ipRanges\", and whose \
        addresses are host-local's"
    )]
    NoIpRanges(String),
    /// A rate that nobody keeps the pod to.
    #[error(
        "network \"{0}\" keeps no pod to its resource/network-bandwidth: its configuration needs a plugin that has the capability \
        \"bandwidth\", as the plugin bandwidth; or use --stage1=kvm, whose network cards have limits of their own"
    )]
    NoBandwidth(String),
    /// A rate for the host's network.
    #[error(
        "resource/network-bandwidth takes a network of the pod's own, which --net=host is not: leave it out, or attach the pod to a network"
    )]
    HostsNetwork,
    /// A rate that several would keep the pod to, each by itself.
    #[error(
        "resource/network-bandwidth is for all of a pod's networks together, and plugins limit each by itself: attach the pod to one, not to \
        {0} networks, or use --stage1=kvm"
    )]
    SharedBandwidth(usize),
    /// The pod's network namespace.
    #[error("cannot {action} the network namespace {}", path.display())]
    Namespace {
        /// "make", "enter", ...
        action: &'static str,
        /// The file that it is bound to.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What the kernel was asked for.
    #[error("cannot prepare the pod's network namespace")]
    Netlink(#[source] Box<crate::Error>),
}

impl Error {
    /// Whether it is that nobody wanted it any more.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Plugin { source, .. } if matches!(**source, Failure::Interrupted))
    }

    /// For `map_err`: the file at `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// What is wrong with a network's configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Something is not there.
    #[error("\"{0}\" is missing")]
    Missing(&'static str),
    /// A name that is none.
    #[error("the name of the network is wrong: {0}")]
    Name(pod::Error),
    /// A version that is not spoken here.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

/// How a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started.
    #[error("it cannot be executed")]
    Start(#[source] io::Error),
    /// Its input or output failed.
    #[error("talking to it failed")]
    Io(#[source] io::Error),
    /// It took too long.
    #[error("it had not ended after {0} s, and was killed with all that it had started")]
    TimedOut(u64),
    /// It printed too much.
    #[error("it printed more than {0} bytes, and was killed")]
    TooMuchOutput(usize),
    /// The user does not want the pod any more.
    #[error("it was interrupted")]
    Interrupted,
    /// It said what was wrong (CNI spec, "Section 5: Result types", "Error").
    #[error("{message} (code {code})")]
    Reported {
        /// CNI's or the plugin's own number.
        code: i64,
        /// What it said, with details.
        message: String,
    },
    /// It failed and did not say why.
    #[error("it ended with {status} and told no reason{output}")]
    Silent {
        /// Exit status or signal.
        status: String,
        /// What it printed, if anything.
        output: String,
    },
    /// It succeeded and told no result.
    #[error("what it printed is not a CNI result: {reason}{output}")]
    Garbage {
        /// What is wrong.
        reason: String,
        /// What it printed.
        output: String,
    },
}
