//! The program's one error type.

use std::path::{Path, PathBuf};

use pod::abi::CpuTemplate;
use stage1::error::Causes;

/// Why a pod cannot run in namespaces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What both stage1s do.
    #[error(transparent)]
    Stage1(#[from] stage1::Error),
    /// The pod's manifest asks for what cannot be.
    #[error("cannot compute the apps' limits")]
    Limits(#[source] pod::Error),
    /// The pod's own network.
    #[error("cannot set up loopback")]
    Loopback(#[source] net::Error),
    /// The mounts of a pod with a user namespace.
    #[error("cannot mount the apps' roots for the pod's users")]
    Outside(#[source] stage2::Error),
    /// An app that comes into a pod cannot be what its manifest says.
    #[error("cannot run this app in the pod")]
    App(#[source] pod::Error),
    /// The mounts of an app that comes into a pod.
    #[error("cannot mount the app's root")]
    Scaffold(#[source] Causes),
    /// The supervisor of a pod with a user namespace was not started.
    #[error("cannot start the pod in its user namespace: {0}")]
    Users(String),
    /// The descriptor of the lock on the users is not there.
    #[error("no lock of the pod's users was handed over; a stage1 is started by rkt, not by hand")]
    NoUsersLock,
    /// A user namespace rules no IPC namespace but its own.
    #[error(
        "--ipc=parent is not possible with --private-users: the pod's root is nobody to the host's objects"
    )]
    IpcOfUsers,
    /// There is no guest.
    #[error("--cpu-template={0} is not possible with --stage1=nspawn: its apps see the host's processor")]
    CpuTemplate(CpuTemplate),
    /// A file or directory.
    #[error("cannot {action} {}", .path.display())]
    Path {
        /// "read", "make", ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A system call that has no path to name.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: nix::Error,
    },
}

impl Error {
    pub fn path(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Path { action, path: path.to_owned(), source }
    }

    pub fn system(action: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
