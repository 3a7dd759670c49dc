//! The crate's one error type.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why the service cannot be had, or does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the service's.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file of the service's that is not what it should be.
    #[error("{} is damaged; remove it", .0.display())]
    Damaged(PathBuf),
    /// There is one already.
    #[error("another metadata service of this host runs (it has locked {})", .0.display())]
    Running(PathBuf),
    /// The port is somebody else's.
    #[error("cannot listen on {0}; --listen-port takes another port")]
    Listen(SocketAddr, #[source] io::Error),
    /// The service cannot go on.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// There is no randomness.
    #[error("cannot get random bytes from the kernel")]
    Random(#[source] getrandom::Error),
    /// Nobody listens at the socket.
    #[error(
        "cannot reach the metadata service at {}: start it (rkt metadata-service), or leave --mds-register out",
        .0.display()
    )]
    NotReached(PathBuf, #[source] io::Error),
    /// It does not do it.
    #[error("the metadata service refuses to {action}: {status} {text}")]
    Refused {
        /// What it was asked for.
        action: &'static str,
        /// The status of HTTP.
        status: u16,
        /// What it says of it.
        text: String,
    },
    /// Something else listens there.
    #[error("cannot understand what listens at {}", .0.display())]
    Nonsense(PathBuf),
}

impl Error {
    /// For `map_err`: the file at `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
