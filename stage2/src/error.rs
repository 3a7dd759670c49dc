//! The crate's one error type.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// Why the pod or an app could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a path.
    #[error("cannot {action} {}", .path.display())]
    Path {
        /// What was tried: "mount tmpfs on".
        action: String,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// An operation that has no path to name.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// What the plan or the image asks for is not possible.
    #[error("{0}")]
    Impossible(String),
    /// Something that failed because of something else that has words of its own.
    #[error("{what}")]
    Because {
        /// What failed.
        what: String,
        /// The cause.
        #[source]
        source: Box<Error>,
    },
    /// A cgroup does not take its device policy.
    #[error("cannot keep the app from the machine's devices by cgroup {cgroup}")]
    Devices {
        /// Its name.
        cgroup: String,
        /// The cause.
        #[source]
        source: devices::Error,
    },
    /// The control channel's other side.
    #[error("cannot understand the pod's parent")]
    Control(#[source] pod::Error),
}

impl Error {
    pub(crate) fn path(action: impl Into<String>, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Path { action: action.into(), path: path.as_ref().to_owned(), source }
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System { action: action.into(), source }
    }
}

/// The texts of an error and its causes, outermost first.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// The number of an I/O error.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
