//! Why an image cannot be imported. [`Error`] is always printed below the image's path.

use std::io;

use super::digest::Digest;
use super::tarball;

/// The family's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's file, or one inside a layout, cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// Which file or member.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that the image needs is not there.
    #[error("there is no {0} in it")]
    Missing(String),
    /// Neither an image nor an archive.
    #[error("it is not an image: {0}")]
    NotAnImage(String),
    /// The archive is damaged.
    #[error(transparent)]
    Tar(#[from] tarball::Error),
    /// An entry cannot be part of an image.
    #[error("entry \"{entry}\" cannot be imported")]
    Entry {
        /// Its name.
        entry: String,
        /// Why.
        #[source]
        source: erofs::Error,
    },
    /// An entry that an archive of this kind must not have.
    #[error("entry \"{entry}\": {what}")]
    Layout {
        /// Its name.
        entry: String,
        /// What is wrong.
        what: String,
    },
    /// The image in the store cannot be written or read back.
    #[error("cannot write the image")]
    Write(#[from] erofs::Error),
    /// A layer of an OCI image cannot be applied.
    #[error("layer {name} cannot be applied")]
    Layer {
        /// Its file in the layout or archive.
        name: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A JSON file inside the image does not parse.
    #[error("{what} is not valid")]
    Json {
        /// Which.
        what: String,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// The appc manifest does not parse, or is for another machine.
    #[error("the image manifest cannot be used")]
    Manifest(#[source] pod::Error),
    /// A file that should be small is not.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        what: String,
        /// How large it may be.
        limit: u64,
    },
    /// A blob is not what it is said to be.
    #[error("{what} is corrupt: its digest is {actual}, not {expected}; get the image again")]
    Digest {
        /// Which blob.
        what: String,
        /// By its descriptor.
        expected: Digest,
        /// By its bytes.
        actual: Digest,
    },
    /// A blob is not as long as it is said to be.
    #[error("{what} is corrupt: it has {actual} bytes, not {expected}; get the image again")]
    Size {
        /// Which blob.
        what: String,
        /// By its descriptor.
        expected: u64,
        /// By its bytes.
        actual: u64,
    },
    /// The image's parts contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// Something that this version does not do, and will not ignore either.
    #[error("{0} not supported yet")]
    Unsupported(String),
}

impl Error {
    /// For `map_err` on reading something.
    pub fn read(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source }
    }
}
