//! The crate's one error type.

use std::io;

use crate::quote;

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree's root cannot be opened.
    #[error("cannot read {root}")]
    Root {
        /// Where it is.
        root: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image that is to be packed cannot be read.
    #[error("cannot read the image")]
    Image(#[from] erofs::Error),
    /// An entry cannot be put into the archive.
    #[error("cannot archive {entry}")]
    Entry {
        /// Its path.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive's beginning or end cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Error {
    /// For `map_err` on archiving what is at a path from the root.
    pub(crate) fn entry(path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let entry = format!("/{}", quote(path));
        move |source| Self::Entry { entry, source }
    }
}
