//! The program's one error type.

use std::path::{Path, PathBuf};

use pod::seccomp::KERNEL_TAKES_FILTERS;

/// Why a pod cannot run in namespaces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What both stage1s do.
    #[error(transparent)]
    Stage1(#[from] stage1::Error),
    /// The pod's manifest asks for what cannot be.
    #[error("cannot compute the apps' limits")]
    Limits(#[source] pod::Error),
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
}

impl Error {
    pub fn path(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Path { action, path: path.to_owned(), source }
    }

    pub fn system(action: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
