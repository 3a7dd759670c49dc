//! Who may sign images: the keystore of the host, and whether a signature is by one of its keys.
//!
//! A signature is a detached one by OpenPGP, over the archive as it is in its file (appc spec, "Image Archives"). Keys are trusted for
//! all images or for those whose names begin with a prefix; which, is said by the directory that a key is in ([`keystore`]).

mod key;
pub mod keystore;
mod signature;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use key::Key;
pub use signature::Signatures;

/// Why an image or a key is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
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
    /// A file is larger than any of its kind.
    #[error("{} is larger than {limit} bytes, and so no {what}", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// The most that it may have.
        limit: u64,
    },
    /// A file holds no keys.
    #[error("{} is no good OpenPGP public key, armored or binary", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file holds no signatures.
    #[error("{} is no good detached OpenPGP signature, armored or binary", path.display())]
    Signature {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the keystore has another name than its key.
    #[error(
        "{} holds the key {found}; a file in this directory is called by the fingerprint of its key, and an empty one masks it",
        path.display()
    )]
    Misplaced {
        /// Which.
        path: PathBuf,
        /// The key's fingerprint.
        found: String,
    },
    /// A file of the keystore is called by nothing that a key has.
    #[error("{} is not called by a key's fingerprint; only keys may be in this directory", .0.display())]
    Stray(PathBuf),
    /// No key may sign such images.
    #[error("no key is trusted for images called {0}: rkt trust --prefix={0} FILE trusts one")]
    NoKeys(String),
    /// None of the signatures is good.
    #[error("{} does not vouch for the image {name}: {reasons}", path.display())]
    Untrusted {
        /// The file with the signatures.
        path: PathBuf,
        /// What the image calls itself.
        name: String,
        /// What is wrong with each.
        reasons: String,
    },
    /// The image is not what was verified.
    #[error("{} has changed while it was read", .0.display())]
    Changed(PathBuf),
}

impl Error {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.into(), source }
    }
}

/// The content of a small file.
fn read_bounded(path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.into(), what, limit });
    }
    Ok(bytes)
}
