//! EROFS images: a streaming, reproducible writer and a checking reader.
//!
//! An image is one file: block 0 with the superblock, the data of all files, then all metadata. It is uncompressed and
//! every file's data is in whole blocks, so that a guest maps it straight from memory (DAX) and all guests of a host
//! share one copy; kernels since 5.4 mount it, from a block device, or from 6.12 on as a plain file.
//!
//! [`Writer`] makes it from the entries of archives, [`Reader`] looks things up in it without mounting, and [`extract`]
//! makes a plain tree of it where the kernel has no EROFS. Archives and images are taken to be hostile.

mod appender;
mod arena;
mod directory;
mod error;
mod extract;
mod format;
mod layout;
mod limits;
mod merge;
mod metadata;
mod path;
mod reader;
mod resolve;
mod sink;
mod source;
mod sys;
mod tree;
mod walk;
mod writer;
mod xattr;

pub use error::Error;
pub use extract::extract;
pub use limits::*;
pub use metadata::{Kind, Metadata, Special, Xattrs};
pub use path::{EntryPath, MAX_NAME_BYTES, MAX_PATH_BYTES, PathError};
pub use reader::{DirectoryEntry, FileReader, Inode, ReadDir, Reader};
pub use sink::Sink;
pub use source::ReadAt;
pub use walk::Walk;
pub use writer::{Summary, Writer};
pub use xattr::is_storable as is_storable_xattr;
