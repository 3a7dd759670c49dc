//! The crate's one error.

use std::io;

use thiserror::Error;

use crate::limits::{MAX_LINKS_FOLLOWED, MAX_XATTR_BYTES};
use crate::path::{MAX_NAME_BYTES, MAX_PATH_BYTES, PathError};

/// What went wrong while an image was written, read or extracted. Entries are named as paths from the image's root.
#[derive(Debug, Error)]
pub enum Error {
    /// A name that is no path inside an image.
    #[error(transparent)]
    Path(#[from] PathError),

    /// A parent of the entry is a file.
    #[error("{entry}: {parent} is not a directory, so nothing can be inside it")]
    NotADirectory {
        /// The entry.
        entry: String,
        /// The parent that is no directory.
        parent: String,
    },
    /// The image's root was to become something else, or to go.
    #[error("{entry}: the image's root is a directory and stays one")]
    Root {
        /// The entry.
        entry: String,
    },
    /// A hard link to nothing.
    #[error(
        "{entry}: its hard-link target {target} is not in the image; it must come earlier in the archive"
    )]
    LinkTarget {
        /// The link.
        entry: String,
        /// What it was to be another name of.
        target: String,
    },
    /// A hard link to a directory.
    #[error("{entry}: its hard-link target {target} is a directory")]
    LinkToDirectory {
        /// The link.
        entry: String,
        /// The directory.
        target: String,
    },
    /// Symbolic links that point at each other, or very many of them.
    #[error("{entry}: its path goes through more than {MAX_LINKS_FOLLOWED} symbolic links")]
    TooManyLinks {
        /// The entry.
        entry: String,
    },
    /// A path that grew too long by following symbolic links.
    #[error(
        "{entry}: with symbolic links followed, its path is longer than {MAX_PATH_BYTES} bytes \
         or has a name longer than {MAX_NAME_BYTES}"
    )]
    ResolvedTooLong {
        /// The entry.
        entry: String,
    },
    /// A symbolic link's target that Linux could not hold.
    #[error(
        "{entry}: the symbolic link's target is empty, has a NUL byte or is longer than {MAX_PATH_BYTES} bytes"
    )]
    SymlinkTarget {
        /// The link.
        entry: String,
    },
    /// A device number that Linux could not hold.
    #[error("{entry}: device number {major}:{minor} is out of range (at most 4095:1048575)")]
    DeviceNumber {
        /// The device.
        entry: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An owner or group that Linux does not have.
    #[error("{entry}: owner {uid}:{gid} is out of range (at most 4294967294)")]
    Owner {
        /// The entry.
        entry: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A modification time that is none.
    #[error("{entry}: {mtime_ns} nanoseconds are not within a second")]
    Nanoseconds {
        /// The entry.
        entry: String,
        /// Its nanoseconds.
        mtime_ns: u32,
    },
    /// An extended attribute outside the name spaces that EROFS stores.
    #[error(
        "{entry}: extended attribute {name:?} cannot be stored; EROFS has user.*, trusted.*, security.* and POSIX ACLs, \
         with names of 255 bytes after the prefix"
    )]
    XattrName {
        /// The entry.
        entry: String,
        /// The attribute.
        name: String,
    },
    /// Too much in extended attributes of one entry.
    #[error("{entry}: its extended attributes take more than {MAX_XATTR_BYTES} bytes")]
    XattrsTooLarge {
        /// The entry.
        entry: String,
    },
    /// The image is larger than its [`Limits`](crate::Limits).
    #[error("{entry}: the image has more than {limit} {what}")]
    Limit {
        /// The entry that was one too many.
        entry: String,
        /// What there is too much of.
        what: &'static str,
        /// How much of it there may be.
        limit: u64,
    },
    /// The data of an entry ended early.
    #[error("{entry}: the archive ends after {got} of {expected} bytes of data")]
    Truncated {
        /// The file.
        entry: String,
        /// Bytes that there were.
        got: u64,
        /// Bytes that there should be.
        expected: u64,
    },
    /// The data of an entry could not be read from its archive.
    #[error("{entry}: cannot read its data from the archive")]
    Archive {
        /// The file.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the image at byte {offset}")]
    Write {
        /// Where in the image.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image could not be read.
    #[error("cannot read the image at byte {offset}")]
    Read {
        /// Where in the image.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image breaks a rule of the format.
    #[error("the image is damaged: inode {nid}: {what}; fetch it again")]
    Corrupt {
        /// The inode's number.
        nid: u64,
        /// The rule.
        what: &'static str,
    },
    /// The superblock is none of ours.
    #[error("not an image this version reads: {0}")]
    Superblock(&'static str),
    /// Something of the wrong type, such as a directory whose link target was asked for.
    #[error("inode {nid} is not a {expected}")]
    WrongKind {
        /// The inode's number.
        nid: u64,
        /// What it was taken for.
        expected: &'static str,
    },
    /// A tree could not be written to a directory of the host.
    #[error("cannot {action} {entry} in the target directory")]
    Extract {
        /// The entry.
        entry: String,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}
