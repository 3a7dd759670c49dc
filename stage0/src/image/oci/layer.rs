//! Layers (OCI image spec, "Image Layer Filesystem Changeset"): archives of what is new, and markers of what is gone.

use std::io::{BufRead, BufReader};

use erofs::{EntryPath, PathError, Sink, Writer};

use super::Layer;
use super::layout::check_blob;
use crate::image::bundle::Bundle;
use crate::image::compression::{Compression, decompress};
use crate::image::digest::Hashed;
use crate::image::error::Error;
use crate::image::tarball::{Archive, Entry, Input, Stream};
use crate::image::tree_writer;
use crate::progress::Progress;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of this prefix are notes of the storage driver that wrote the layer (AUFS).
const META_PREFIX: &[u8] = b".wh..wh.";

/// Lays a layer over what the writer has, checking on the way that it is the one that is meant.
pub fn apply<S: Sink>(
    writer: &mut Writer<S>,
    bundle: &Bundle,
    layer: &Layer,
    progress: &Progress,
) -> Result<(), Error> {
    checked(writer, bundle, layer, progress)
        .map_err(|source| Error::Layer { name: layer.name.clone(), source: Box::new(source) })
}

fn checked<S: Sink>(
    writer: &mut Writer<S>,
    bundle: &Bundle,
    layer: &Layer,
    progress: &Progress,
) -> Result<(), Error> {
    let name = &layer.name;
    let (file, _) = bundle.open(name)?;
    let blob_hasher = layer.blob.as_ref().map_or_else(|| layer.diff_id.hasher(), |blob| blob.digest.hasher());
    let mut compressed = Hashed::new(progress.watch(file), blob_hasher);
    let mut buffered = BufReader::with_capacity(1 << 17, &mut compressed);
    let compression = Compression::detect(buffered.fill_buf().map_err(Error::read(name))?);
    if !matches!(compression, Compression::None | Compression::Gzip | Compression::Zstd) {
        return Err(Error::Unsupported(format!("a layer that is compressed by {compression:?} is")));
    }
    let stream = decompress(buffered).map_err(Error::read(name))?;
    let mut archive = Archive::new(Stream(Hashed::new(stream, layer.diff_id.hasher())));
    while let Some(entry) = archive.next_entry()? {
        add(writer, &mut archive, &entry)?;
    }
    // Some writers leave the end marker out; the digest says whether anything is missing.
    let Stream(uncompressed) = archive.into_input();
    let (diff_id, _) = uncompressed.finish().map_err(Error::read(name))?;
    if let Some(blob) = &layer.blob {
        let (digest, size) = compressed.finish().map_err(Error::read(name))?;
        check_blob(name, blob, &digest, size)?;
    }
    if diff_id != layer.diff_id {
        let what = format!("{name} (uncompressed)");
        return Err(Error::Digest { what, expected: layer.diff_id.clone(), actual: diff_id });
    }
    Ok(())
}

fn add<S: Sink, R: Input>(
    writer: &mut Writer<S>,
    archive: &mut Archive<R>,
    entry: &Entry,
) -> Result<(), Error> {
    let path = tree_writer::path_of(entry)?;
    let result = match Change::of(&path).map_err(|source| tree_writer::refused(entry, source.into()))? {
        // A link's target is a path in the image, with or without its slash.
        Change::Add => return tree_writer::add(writer, archive, entry, &path, EntryPath::in_root),
        Change::Remove(path) => writer.remove(&path),
        Change::Clear(path) => writer.clear(&path),
        Change::Nothing => Ok(()),
    };
    result.map_err(|source| tree_writer::refused(entry, source))
}

/// What an entry means.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove(EntryPath),
    Clear(EntryPath),
    Nothing,
}

impl Change {
    fn of(path: &EntryPath) -> Result<Self, PathError> {
        let Some((parent, name)) = path.split_last() else { return Ok(Self::Add) };
        if name == OPAQUE {
            let parent = if parent.is_empty() { EntryPath::ROOT } else { EntryPath::parse(parent)? };
            return Ok(Self::Clear(parent));
        }
        if name.starts_with(META_PREFIX) {
            return Ok(Self::Nothing);
        }
        match name.strip_prefix(WHITEOUT_PREFIX) {
            // The directory itself and its parent cannot be removed from within.
            Some(b"" | b"." | b"..") => Err(PathError::ParentComponent(crate::image::quote(path.as_bytes()))),
            Some(name) => Ok(Self::Remove(EntryPath::in_root(&[parent, name].join(&b'/'))?)),
            None => Ok(Self::Add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::in_root(text.as_bytes()).unwrap()
    }

    #[test]
    fn markers() {
        let cases = [
            ("etc/passwd", Change::Add),
            ("etc/.wh.passwd", Change::Remove(path("etc/passwd"))),
            (".wh.etc", Change::Remove(path("etc"))),
            ("var/.wh..wh..opq", Change::Clear(path("var"))),
            (".wh..wh..opq", Change::Clear(EntryPath::ROOT)),
            (".wh..wh.plnk", Change::Nothing),
            ("a/.whatever", Change::Add),
        ];
        for (name, change) in cases {
            assert_eq!(Change::of(&path(name)).unwrap(), change, "{name}");
        }
        assert_eq!(Change::of(&EntryPath::ROOT).unwrap(), Change::Add);
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(Change::of(&path(bad)).is_err(), "{bad}");
        }
    }
}
