//! The metadata service of the appc specification: who calls on it, and the service itself.
//!
//! rkt registers pods at a Unix socket, as root; pods ask by HTTP, and are known by the token in their URLs. What is
//! registered is a file a pod below [`Places::state`], so that a service that is started again knows what it knew; it is
//! gone when the machine is, as the pods are. Pods are hostile: what they may say, how long they may take for it and how many
//! connections they have is bounded in [`service`].
//!
//! [`registration`] and [`answers`] compute what is answered, [`service`] carries it; [`client`] is rkt's side.

pub mod answers;
pub mod client;
mod error;
mod identity;
pub mod registration;
mod registry;
mod reply;
pub mod service;

use std::path::PathBuf;

pub use error::Error;
pub use identity::Identity;
pub use registry::Registry;
pub use reply::Reply;

/// Where the service is found, and where it keeps what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    directory: PathBuf,
}

impl Default for Places {
    /// Those of the host, whose socket is upstream's.
    fn default() -> Self {
        Self::new("/run/rkt")
    }
}

impl Places {
    /// All of them in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The socket at which pods are registered.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("metadata-svc.sock")
    }

    /// The directory of the service's files.
    pub fn state(&self) -> PathBuf {
        self.directory.join("metadata")
    }
}
