//! The crate's one error type, and how a stage1 tells of errors.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::pod::seccomp::KERNEL_TAKES_FILTERS;
use ::pod::session::Action;
use ::pod::types::AcName;
use uuid::Uuid;

/// Where there was no memory left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantOfMemory {
    /// The app had used up its own, of so many bytes if that is known.
    OfApp(Option<u64>),
    /// The app was within its limit; all that the pod has was used up.
    OfPod,
}

impl fmt::Display for WantOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfApp(Some(bytes)) => write!(f, "; its limit is {bytes} bytes (--memory)"),
            Self::OfApp(None) => Ok(()),
            Self::OfPod => f.write_str(", within its limit, since the pod as a whole had no memory left"),
        }
    }
}

/// Why a pod cannot be run, or how it ended against expectation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// stage0 has not handed over the pod's lock.
    #[error("no lock of the pod was handed over: {why}; a stage1 is started by rkt, not by hand")]
    Lock {
        /// What is wrong with it.
        why: String,
    },
    /// stage0 has not handed over the apps' sockets as it says.
    #[error("the apps' listening sockets were not handed over: {why}")]
    Sockets {
        /// What is wrong with them.
        why: String,
    },
    /// A file of the pod's directory.
    #[error("cannot {action} {path}")]
    File {
        /// "read", "write", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A limit that somebody asked for, and that this host cannot enforce.
    #[error(
        "app \"{app}\" has a {controller} limit, but the cgroup controller \"{controller}\" is not available here: \
        enable it (kernel command line, Delegate= of the systemd unit), run rkt from a cgroup of its own \
        (systemd-run --scope -p Delegate=yes), or leave the limit out"
    )]
    Unenforceable {
        /// The app.
        app: String,
        /// The controller.
        controller: &'static str,
    },
    /// `--cgroup-parent` names a cgroup that is not there.
    #[error("there is no cgroup {}, which --cgroup-parent names: make it, or leave the option out", .path.display())]
    NoCgroupParent {
        /// Where it should be.
        path: PathBuf,
    },
    /// systemd has not made a scope for the pod. The pod runs all the same.
    #[error(
        "warning: the pod has no scope of systemd's, and shares the cgroup that rkt was started in: systemd was asked by \
        {}; --cgroup-parent says another place", .bus.display()
    )]
    NoScope {
        /// The socket of the bus.
        bus: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// rkt was alone in a unit of systemd's that is not left to it. The pod runs all the same.
    #[error(
        "warning: the pod has a scope of its own beside {unit}, whose limits do not hold for it: to keep it in there, set \
        Delegate=yes in the unit (systemd-run: -p Delegate=yes)"
    )]
    NotDelegated {
        /// Its name.
        unit: String,
    },
    /// The host has nothing that keeps apps from its devices.
    #[error(
        "the apps cannot be kept from this host's devices: there is neither the cgroup controller \"devices\" (v1) nor \
        cgroup v2: mount one of them (mount -t cgroup2 none /sys/fs/cgroup), or let the apps use every device with \
        --insecure-options=paths"
    )]
    NoDevicePolicy,
    /// A cgroup v1 does not take a rule of the device policy.
    #[error(
        "cannot write \"{rule}\" to {path} to keep the app from this host's devices: the caller's own cgroup may allow \
        less; run rkt from another, or let the apps use every device with --insecure-options=paths"
    )]
    DeviceRule {
        /// The rule.
        rule: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A cgroup v2 does not take the device policy.
    #[error(
        "cannot keep the app from this host's devices by cgroup {cgroup}: see below, or let the apps use every device \
        with --insecure-options=paths"
    )]
    DeviceFilter {
        /// The cgroup.
        cgroup: PathBuf,
        /// The cause.
        #[source]
        source: devices::Error,
    },
    /// The arguments of the `gc` entrypoint.
    #[error("usage: gc [--debug] UUID, in the pod's directory")]
    Usage,
    /// The pod's parent is not to be found, or another process has its number by now.
    #[error("pod \"{uuid}\" cannot be {done}: {why}")]
    NoParent {
        /// The pod.
        uuid: Uuid,
        /// "stopped", "measured".
        done: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A manifest, an argument or a message is not what it should be.
    #[error("{what}")]
    Pod {
        /// What cannot be done.
        what: String,
        /// The cause.
        #[source]
        source: ::pod::Error,
    },
    /// A system call that has no file to name.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: nix::Error,
    },
    /// `--interactive` without a terminal.
    #[error("--interactive needs a terminal on standard input; leave it out to use pipes and files")]
    NoTerminal,
    /// The supervisor could not set the pod or an app up.
    #[error("{}", .app.as_ref().map_or("cannot set the pod up".to_owned(), |app| format!("cannot start app \"{app}\"")))]
    Failed {
        /// The app, unless it was the pod as a whole.
        app: Option<AcName>,
        /// The chain of causes.
        #[source]
        source: Causes,
    },
    /// The kernel has killed processes of an app.
    #[error(
        "app \"{app}\" ran out of memory: the kernel has killed {kills} of its processes{}",
        .want
    )]
    OutOfMemory {
        /// Which.
        app: AcName,
        /// How many.
        kills: u64,
        /// Why.
        want: WantOfMemory,
    },
    /// There is nobody behind the pod's socket.
    #[error("cannot reach the pod: it does not run, or its stage1 is not this one")]
    NotReached(#[source] nix::Error),
    /// A session could not be started.
    #[error("cannot enter app \"{app}\"")]
    NotEntered {
        /// Which.
        app: AcName,
        /// The chain of causes.
        #[source]
        source: Causes,
    },
    /// An app could not be changed.
    #[error("cannot {action} app \"{app}\"")]
    NotChanged {
        /// Which.
        app: AcName,
        /// How.
        action: Action,
        /// The chain of causes.
        #[source]
        source: Causes,
    },
    /// The pod has the apps that it began with.
    #[error("the pod's apps are those that it was started with: only pods of rkt app sandbox change")]
    Immutable,
    /// A client could not attach, or was let go of.
    #[error("cannot attach to app \"{app}\"")]
    NotAttached {
        /// Which.
        app: AcName,
        /// The chain of causes.
        #[source]
        source: Causes,
    },
    /// An app, or the guest, could not be measured.
    #[error("cannot measure {what}")]
    NotMeasured {
        /// Which.
        what: String,
        /// The chain of causes.
        #[source]
        source: Causes,
    },
    /// A port of the host cannot be had.
    #[error("cannot listen on {address}{}", match .source.kind() {
        std::io::ErrorKind::AddrInUse => ": the port is in use; take another",
        _ => "",
    })]
    NotListening {
        /// Where.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A connection could not be forwarded; others can.
    #[error("closed a connection from {from}: it cannot be forwarded to port {port} of the pod")]
    NotForwarded {
        /// Whose.
        from: std::net::SocketAddr,
        /// Where it was to lead.
        port: std::num::NonZeroU16,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Records of an app's log are lost. Said once; the app goes on.
    #[error("the log of app \"{app}\" is incomplete {place}: what cannot be written is lost")]
    Log {
        /// The app.
        app: AcName,
        /// Where the records are missing.
        place: &'static str,
        /// The cause of the first loss.
        #[source]
        source: std::io::Error,
    },
    /// The pod has ended before its session.
    #[error("the pod has ended, and what it ran with it")]
    PodGone,
    /// The pod's network cannot be had.
    #[error("cannot set up the pod's network")]
    Network(#[from] ::net::cni::Error),
    /// The pod's network cannot be undone.
    #[error("cannot undo the pod's network; rkt gc tries it again")]
    NetworkLeft(#[source] ::net::cni::Error),
    /// No network of the pod leads to the metadata service.
    #[error(
        "the pod does not reach the metadata service: none of its networks has a gateway that is this host; add one that \
         has (--net=...,default-restricted), or leave --mds-register out"
    )]
    NoMetadata,
    /// The pod is still registered with the metadata service.
    #[error("cannot unregister the pod from the metadata service; rkt gc tries it again")]
    Unregistered(#[source] ::metadata::Error),
    /// A volume's source.
    #[error("cannot use {} of the host as volume \"{volume}\"", .path.display())]
    Volume {
        /// Its name.
        volume: String,
        /// Where it should come from.
        path: PathBuf,
        /// The cause.
        #[source]
        source: nix::Error,
    },
    /// A user that the pod has not.
    #[error(
        "volume \"{volume}\" is to belong to user {uid} and group {gid}, but --private-users has numbers below {count} only"
    )]
    NoSuchUser {
        /// The volume.
        volume: String,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// How many there are.
        count: u32,
    },
    /// A volume whose file system cannot be shifted.
    #[error(
        "cannot shift the owners in {} of volume \"{volume}\": its file system, or one mounted within, cannot be idmapped by \
        this kernel; leave idmap out, or try recursive=false", .path.display()
    )]
    Idmap {
        /// The volume.
        volume: String,
        /// Its source.
        path: PathBuf,
        /// The cause.
        #[source]
        source: nix::Error,
    },
    /// The kernel takes no filter of system calls.
    #[error(
        "this host's kernel takes no filter of system calls (there is no {KERNEL_TAKES_FILTERS}): boot one with \
         CONFIG_SECCOMP_FILTER, or run apps that may make every call with --insecure-options=seccomp"
    )]
    NoFilters,
    /// An app without a file system.
    #[error("app \"{app}\" has no image in the pod's directory: neither {} nor {}", .image.display(), .tree.display())]
    NoImage {
        /// The app.
        app: String,
        /// The EROFS file that could be there.
        image: PathBuf,
        /// The directory that could be there.
        tree: PathBuf,
    },
    /// The supervisor has gone without telling how the pod ended.
    #[error("the pod's supervisor has gone without a word: the pod was killed from outside, or crashed")]
    SupervisorGone,
}

impl Error {
    /// Whether it is what the user wanted: the pod's end.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Network(error) if error.is_interruption())
    }

    /// For `map_err`: the file at `path`.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}

/// A chain of causes that came over the control channel.
#[derive(Debug)]
pub struct Causes {
    text: String,
    rest: Option<Box<Causes>>,
}

impl Causes {
    /// From texts, outermost first; `None` if there is none. Whoever sent them may be hostile.
    pub fn new(texts: Vec<String>) -> Option<Self> {
        let texts = texts.iter().rev().map(|text| harmless(text));
        texts.fold(None, |rest, text| Some(Self { text, rest: rest.map(Box::new) }))
    }
}

/// A text without what could do harm on a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

impl std::fmt::Display for Causes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Causes {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.rest.as_deref().map(|rest| rest as _)
    }
}

/// Prints an error and its causes as upstream rkt does, a step to the right for each: `stage1: …`, `  └─…`.
pub fn report(error: &dyn std::error::Error) {
    let text = tree(error) + "\n";
    // The terminal may be in raw mode, in which a line feed is just that.
    match std::io::stderr().is_terminal() {
        true => eprint!("{}", text.replace('\n', "\r\n")),
        false => eprint!("{text}"),
    }
}

/// The exit code of a stage1 that ran into `error`, which is printed.
pub fn exit_code(error: &dyn std::error::Error) -> ExitCode {
    report(error);
    ExitCode::from(::pod::abi::EXIT_ERROR)
}

fn tree(error: &dyn std::error::Error) -> String {
    let mut text = format!("stage1: {error}");
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    for (depth, cause) in causes.enumerate() {
        text.push_str(&format!("\n{:indent$}└─{cause}", "", indent = 2 * (depth + 1)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_a_tree() {
        let causes = Causes::new(vec!["cannot mount tmpfs on /dev".into(), "EPERM\x1b".into()]).unwrap();
        let error = Error::Failed { app: Some("web".parse().unwrap()), source: causes };
        assert_eq!(
            tree(&error),
            "stage1: cannot start app \"web\"\n  └─cannot mount tmpfs on /dev\n    └─EPERM\u{fffd}"
        );
    }
}
