//! The ACI format (appc spec, "Image Layout" and "Image Archives"): a tar archive with exactly a file `manifest` and a
//! directory `rootfs`, in any order, each entry once.

use std::collections::HashSet;
use std::io::{BufReader, Read};

use erofs::{EntryPath, PathError, Sink, Writer};
use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

use super::compression::decompress;
use super::digest::{Hashed, image_hasher, image_id};
use super::error::Error;
use super::tarball::{Archive, Entry, Input, Kind, Stream};
use super::{ARCHITECTURE, MAX_JSON_BYTES, tree_writer};

const MANIFEST: &[u8] = b"manifest";
const ROOTFS: &[u8] = b"rootfs";
/// The most bytes of all paths together: they are held in memory, and each may have 4095 of them.
const MAX_NAMES_BYTES: usize = 512 << 20;

/// What an ACI was.
pub struct Aci {
    /// From the SHA-512 of the uncompressed archive.
    pub id: ImageId,
    /// As it stood in the archive.
    pub manifest_json: Vec<u8>,
    /// The same, parsed and checked.
    pub manifest: ImageManifest,
}

/// Writes the tree of an ACI into `sink`, in one pass over the archive.
pub fn render<S: Sink>(compressed: impl Read, sink: S) -> Result<(Aci, S), Error> {
    let stream =
        decompress(BufReader::with_capacity(1 << 17, compressed)).map_err(Error::read("the archive"))?;
    render_archive(stream, sink)
}

/// The same of an ACI that is not compressed.
pub fn render_archive<S: Sink>(stream: impl Read, sink: S) -> Result<(Aci, S), Error> {
    let mut archive = Archive::new(Stream(Hashed::new(stream, image_hasher())));
    let mut tree = Tree {
        writer: Writer::new(sink),
        seen: HashSet::new(),
        links: HashSet::new(),
        names_left: MAX_NAMES_BYTES,
        manifest: None,
        has_rootfs: false,
    };
    while let Some(entry) = archive.next_entry()? {
        tree.take(&mut archive, &entry)?;
    }
    if !archive.has_end_marker() {
        return Err(archive.truncated().into());
    }
    let Stream(hashed) = archive.into_input();
    let (digest, _) = hashed.finish().map_err(Error::read("the end of the archive"))?;
    let id = image_id(&digest).ok_or_else(|| Error::Invalid("its digest is no SHA-512".into()))?;
    let (manifest_json, manifest) = tree.manifest.ok_or_else(|| Error::Missing("manifest".into()))?;
    if !tree.has_rootfs {
        return Err(Error::Missing("rootfs".into()));
    }
    let (sink, _) = tree.writer.finish()?;
    Ok((Aci { id, manifest_json, manifest }, sink))
}

struct Tree<S> {
    writer: Writer<S>,
    /// Every path so far: an ACI has none twice.
    seen: HashSet<EntryPath>,
    /// Those of symbolic links: a tree that was packed has nothing below one.
    links: HashSet<EntryPath>,
    /// Bytes that further paths may have.
    names_left: usize,
    manifest: Option<(Vec<u8>, ImageManifest)>,
    has_rootfs: bool,
}

impl<S: Sink> Tree<S> {
    fn take<R: Input>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<(), Error> {
        let layout = |what: &str| Error::Layout { entry: entry.display_name(), what: what.into() };
        let path = tree_writer::path_of(entry)?;
        if path.is_root() {
            return Ok(()); // the archive's own "./"
        }
        self.names_left = self
            .names_left
            .checked_sub(path.as_bytes().len())
            .ok_or_else(|| layout(&format!("the paths before it have {MAX_NAMES_BYTES} bytes already")))?;
        if !self.seen.insert(path.clone()) {
            return Err(layout("it stands twice in the archive"));
        }
        if let Some(link) = self.link_above(&path) {
            return Err(layout(&format!(
                "it is below the symbolic link {link}, and would be written elsewhere"
            )));
        }
        if let Kind::Symlink(_) = entry.kind {
            self.links.insert(path.clone());
        }
        let mut components = path.components();
        match (components.next(), components.next()) {
            (Some(MANIFEST), None) => {
                self.manifest = Some(manifest(archive, entry)?);
                Ok(())
            }
            (Some(ROOTFS), None) if entry.kind != Kind::Directory => Err(layout("it is not a directory")),
            (Some(ROOTFS), _) => {
                self.has_rootfs = true;
                let path =
                    below_rootfs(&path).map_err(|source| tree_writer::refused(entry, source.into()))?;
                tree_writer::add(&mut self.writer, archive, entry, &path, link_target)
            }
            _ => Err(layout("an ACI has nothing but manifest and rootfs at its top")),
        }
    }

    fn link_above(&self, path: &EntryPath) -> Option<&EntryPath> {
        if self.links.is_empty() {
            return None;
        }
        let slashes = path.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parents = slashes.filter_map(|(at, _)| EntryPath::parse(path.as_bytes().get(..at)?).ok());
        parents.find_map(|parent| self.links.get(&parent))
    }
}

fn manifest<R: Input>(archive: &mut Archive<R>, entry: &Entry) -> Result<(Vec<u8>, ImageManifest), Error> {
    let layout = |what: String| Error::Layout { entry: entry.display_name(), what };
    let Kind::File(size) = entry.kind else { return Err(layout("it is not a file".into())) };
    if size > MAX_JSON_BYTES {
        return Err(layout(format!("it is larger than {MAX_JSON_BYTES} bytes")));
    }
    let mut json = Vec::new();
    archive.read_to_end(&mut json).map_err(Error::read("manifest"))?;
    if json.len() as u64 != size {
        return Err(archive.truncated().into());
    }
    let manifest = ImageManifest::parse(&json).map_err(Error::Manifest)?;
    manifest.check_platform(ARCHITECTURE).map_err(Error::Manifest)?;
    Ok((json, manifest))
}

/// The path in the image of a path in the archive, which begins with `rootfs`.
fn below_rootfs(path: &EntryPath) -> Result<EntryPath, PathError> {
    match path.as_bytes().get(ROOTFS.len() + 1..) {
        Some(inside) => EntryPath::parse(inside),
        None => Ok(EntryPath::ROOT),
    }
}

/// The target of a hard link is a path in the archive; outside `rootfs` it would leave the image's root.
fn link_target(target: &[u8]) -> Result<EntryPath, PathError> {
    let path = EntryPath::parse(target)?;
    match path.components().next() {
        Some(ROOTFS) => below_rootfs(&path),
        _ => Err(PathError::ParentComponent(super::quote(target))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use erofs::Reader;

    const MANIFEST_JSON: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a",
        "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}"#;

    fn aci(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(data.len() as u64);
            if name.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            builder.append_data(&mut header, name, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn failure(entries: &[(&str, &str)]) -> String {
        match render(&aci(entries)[..], Vec::new()) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_tree_is_what_is_below_rootfs() {
        let archive = aci(&[("rootfs/", ""), ("rootfs/etc/motd", "hi"), ("manifest", MANIFEST_JSON)]);
        let (aci, image) = render(&archive[..], Vec::new()).unwrap();
        assert_eq!(aci.id, image_id(&super::super::digest::sha512(&archive)).unwrap());
        assert_eq!(aci.manifest.name.as_str(), "example.com/a");
        let reader = Reader::open(image).unwrap();
        let file = reader.lookup(&EntryPath::parse(b"etc/motd").unwrap()).unwrap().unwrap();
        assert_eq!(file.size(), 2);
        assert!(reader.lookup(&EntryPath::parse(b"rootfs").unwrap()).unwrap().is_none());
    }

    #[test]
    fn the_layout_is_exact() {
        let manifest = ("manifest", MANIFEST_JSON);
        assert!(failure(&[("rootfs/", "")]).contains("manifest"));
        assert!(failure(&[manifest]).contains("rootfs"));
        assert!(failure(&[manifest, ("rootfs", "")]).contains("not a directory"));
        assert!(failure(&[manifest, ("rootfs/", ""), ("extra", "")]).contains("\"extra\""));
        assert!(failure(&[manifest, ("rootfs/a", ""), ("./rootfs/a", "")]).contains("twice"));
        assert!(failure(&[("manifest/", "")]).contains("not a file"));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "rootfs/out", "/etc").unwrap();
        let mut file = tar::Header::new_gnu();
        file.set_size(0);
        builder.append_data(&mut file, "rootfs/out/escaped", &[][..]).unwrap();
        let error = render(&builder.into_inner().unwrap()[..], Vec::new()).map(drop).unwrap_err().to_string();
        assert!(error.contains("rootfs/out/escaped") && error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn hard_links_stay_inside() {
        assert_eq!(link_target(b"rootfs/bin/a").unwrap().as_bytes(), b"bin/a");
        for bad in [&b"manifest"[..], b"/etc/passwd", b"rootfs/../manifest", b"bin/a", b""] {
            assert!(link_target(bad).is_err());
        }
    }
}
