//! The crate's one error type.

use std::path::PathBuf;

use nix::errno::Errno;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of its own kind.
    #[error("cannot {action}")]
    Step {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: Errno,
    },
    /// The empty root could not be mounted.
    #[error("cannot mount an empty root on {path}")]
    Root {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Errno,
    },
    /// The user does not exist where this process runs.
    #[error("cannot become user {user}: root of a user namespace must have it mapped")]
    User {
        /// The number.
        user: u32,
        /// The system's answer.
        #[source]
        source: Errno,
    },
}

impl Error {
    pub(crate) fn step(action: &'static str) -> impl Fn(Errno) -> Self {
        move |source| Self::Step { action, source }
    }
}
