//! Puts an archive's entries into an EROFS image.

use erofs::{EntryPath, PathError, Sink, Writer};

use super::error::Error;
use super::tarball::{Archive, Entry, Input, Kind};

/// Adds one entry at `path`; `link` says what the target of a hard link means in this kind of archive. The target of a
/// symbolic link is text, kept as it is: it is only ever followed inside the image.
pub fn add<S: Sink, R: Input>(
    writer: &mut Writer<S>,
    archive: &mut Archive<R>,
    entry: &Entry,
    path: &EntryPath,
    link: impl FnOnce(&[u8]) -> Result<EntryPath, PathError>,
) -> Result<(), Error> {
    let metadata = &entry.metadata;
    let result = match &entry.kind {
        Kind::File(size) => writer.file(path, metadata, archive, *size),
        Kind::Directory => writer.directory(path, metadata),
        Kind::Symlink(target) => writer.symlink(path, metadata, target),
        Kind::HardLink(target) => {
            link(target).map_err(Into::into).and_then(|target| writer.hard_link(path, &target))
        }
        Kind::Special(special) => writer.special(path, metadata, *special),
    };
    result.map_err(|source| refused(entry, source))
}

/// The path that an entry's name stands for.
pub fn path_of(entry: &Entry) -> Result<EntryPath, Error> {
    EntryPath::parse(&entry.name).map_err(|source| refused(entry, source.into()))
}

/// What is wrong, below the name of the entry.
pub fn refused(entry: &Entry, source: erofs::Error) -> Error {
    Error::Entry { entry: entry.display_name(), source }
}
