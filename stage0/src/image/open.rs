//! Tells what an image is by its content, and renders it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use erofs::EntryPath;
use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

use super::bundle::Bundle;
use super::compression::{Compression, decompress};
use super::digest::{Digest, Hashed, sha256_hasher};
use super::error::Error;
use super::tarball::{self, Archive, Stream};
use super::{aci, oci, reference};
use crate::progress::{Progress, Watched};

/// How many entries may come before one that tells what the archive is.
const MAX_UNDECIDED: u32 = 1000;
const HEX_DIGITS: usize = 64;

/// An image that has been recognised.
pub enum Opened {
    /// An ACI, from its first byte.
    Aci(File),
    /// An ACI of whose bytes the digest is wanted.
    Witnessed(File),
    /// An OCI image and where its parts are.
    Oci(Box<oci::Image>, Bundle),
}

/// An image as the store keeps it, beside its EROFS file.
pub struct Rendered {
    /// The image's ID.
    pub id: ImageId,
    /// The manifest as text.
    pub manifest_json: Vec<u8>,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The SHA-256 of the archive's file, if it is wanted.
    pub archive: Option<Digest>,
}

impl Rendered {
    fn of_aci(aci: aci::Aci, archive: Option<Digest>) -> Self {
        let aci::Aci { id, manifest_json, manifest } = aci;
        Self { id, manifest_json, manifest, archive }
    }
}

/// The kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Aci,
    /// An OCI image layout, `docker save`, or both in one.
    Bundle,
}

impl Opened {
    /// Recognises the image at a path. A compressed archive whose parts are needed in another order than they come is
    /// unfolded into a file of `spool`, a directory.
    pub fn open(path: &Path, spool: &Path, progress: &Progress) -> Result<Self, Error> {
        // A pipe must not hold us up; for regular files it changes nothing.
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(Error::read("it"))?;
        let metadata = file.metadata().map_err(Error::read("it"))?;
        let fallback = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let fallback = reference::stem(&fallback);
        if metadata.is_dir() {
            let bundle = Bundle::Directory(path.to_path_buf());
            return Ok(Self::Oci(Box::new(oci::Image::find(&bundle, fallback)?), bundle));
        }
        if !metadata.is_file() {
            return Err(Error::NotAnImage("it is neither a file nor a directory".into()));
        }
        let family = recognise(&file)?;
        file.seek(SeekFrom::Start(0)).map_err(Error::read("it"))?;
        if family == Family::Aci {
            return Ok(Self::Aci(file));
        }
        let bundle = Bundle::index(uncompressed(file, spool, progress)?)?;
        Ok(Self::Oci(Box::new(oci::Image::find(&bundle, fallback)?), bundle))
    }

    /// The same, but that the digest of the archive's bytes comes with what it is rendered to. Only of ACIs: there is one file, and
    /// it is read once.
    pub fn witnessed(self) -> Result<Self, Error> {
        match self {
            Self::Aci(file) | Self::Witnessed(file) => Ok(Self::Witnessed(file)),
            Self::Oci(..) => Err(Error::Unsupported("it is an OCI image, and signatures of such are".into())),
        }
    }

    /// The image's ID, if it is known before the image is read as a whole.
    pub fn known_id(&self) -> Result<Option<ImageId>, Error> {
        match self {
            Self::Aci(_) | Self::Witnessed(_) => Ok(None),
            Self::Oci(image, _) => image.id().map(Some),
        }
    }

    /// Writes the image's tree into an empty file.
    pub fn render(self, output: File, progress: &Progress) -> Result<(Rendered, File), Error> {
        match self {
            Self::Aci(file) => {
                let (aci, output) = aci::render(watched(file, progress)?, output)?;
                Ok((Rendered::of_aci(aci, None), output))
            }
            Self::Witnessed(file) => {
                let mut file = Hashed::new(watched(file, progress)?, sha256_hasher());
                let (aci, output) = aci::render(&mut file, output)?;
                let (digest, _) = file.finish().map_err(Error::read("the end of the archive"))?;
                Ok((Rendered::of_aci(aci, Some(digest)), output))
            }
            Self::Oci(image, bundle) => {
                let (manifest, output) = image.render(&bundle, output, progress)?;
                let manifest_json = serde_json::to_vec(&manifest)
                    .map_err(|source| Error::Json { what: "manifest".into(), source })?;
                Ok((Rendered { id: image.id()?, manifest_json, manifest, archive: None }, output))
            }
        }
    }
}

/// What an archive is, by the first of its entries that tells.
fn recognise(file: impl Read) -> Result<Family, Error> {
    let stream = decompress(BufReader::new(file)).map_err(Error::read("it"))?;
    let mut archive = Archive::new(Stream(stream));
    let mut first = None;
    for _ in 0..MAX_UNDECIDED {
        let entry = match archive.next_entry() {
            Ok(entry) => entry,
            Err(
                tarball::Error::Damaged { after: None, .. } | tarball::Error::Truncated { after: None, .. },
            ) => {
                return Err(Error::NotAnImage("it is neither a directory nor a tar archive".into()));
            }
            Err(error) => return Err(error.into()),
        };
        let Some(entry) = entry else { break };
        if let Some(family) = family_of(&entry.name) {
            return Ok(family);
        }
        first.get_or_insert_with(|| entry.display_name());
    }
    let found = first.map_or_else(|| "it is empty".into(), |name| format!("it begins with \"{name}\""));
    Err(Error::NotAnImage(format!(
        "{found}, and has neither manifest and rootfs (an ACI), nor oci-layout (an OCI image layout), \
         nor manifest.json (docker save)"
    )))
}

fn family_of(name: &[u8]) -> Option<Family> {
    // A name that is no path is for the importer to refuse; it can still say what the archive is.
    let path = EntryPath::parse(name).or_else(|_| EntryPath::in_root(name)).ok()?;
    let first = std::str::from_utf8(path.components().next()?).ok()?;
    let is_digest = |text: &str| text.len() == HEX_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    match first {
        "manifest" | "rootfs" => Some(Family::Aci),
        "oci-layout" | "index.json" | "blobs" | "manifest.json" | "repositories" => Some(Family::Bundle),
        // The layers and the configuration of an older `docker save`.
        _ if is_digest(first.split('.').next().unwrap_or(first)) => Some(Family::Bundle),
        _ => None,
    }
}

/// A file that is about to be read as a whole.
fn watched(file: File, progress: &Progress) -> Result<Watched<'_, File>, Error> {
    progress.begin(file.metadata().map_err(Error::read("it"))?.len());
    Ok(progress.watch(file))
}

/// The archive as a file in which one can go to and fro.
fn uncompressed(mut file: File, spool: &Path, progress: &Progress) -> Result<File, Error> {
    let mut head = [0; 8];
    let length = file.read(&mut head).map_err(Error::read("it"))?;
    file.seek(SeekFrom::Start(0)).map_err(Error::read("it"))?;
    if Compression::detect(head.get(..length).unwrap_or_default()) == Compression::None {
        return Ok(file);
    }
    let mut unfolded = tempfile::tempfile_in(spool)
        .map_err(Error::read(format!("{} (cannot make a file there)", spool.display())))?;
    let file = BufReader::with_capacity(1 << 17, watched(file, progress)?);
    let mut stream = decompress(file).map_err(Error::read("it"))?;
    io::copy(&mut stream, &mut unfolded).map_err(Error::read("the compressed archive"))?;
    Ok(unfolded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            builder.append_data(&mut header, name, &[][..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn by_content() {
        let digest = "0".repeat(64);
        let cases: [(&[&str], Family); 8] = [
            (&["manifest"], Family::Aci),
            (&["./", "./rootfs/etc/", "manifest"], Family::Aci),
            (&["extra", "manifest"], Family::Aci),
            (&["blobs/sha256/"], Family::Bundle),
            (&["oci-layout"], Family::Bundle),
            (&["repositories"], Family::Bundle),
            (&[&format!("{digest}/layer.tar")], Family::Bundle),
            (&[&format!("{digest}.json")], Family::Bundle),
        ];
        for (names, family) in cases {
            assert_eq!(recognise(&archive(names)[..]).unwrap(), family, "{names:?}");
        }
    }

    #[test]
    fn not_images() {
        for (bytes, expected) in [
            (Vec::new(), "empty"),
            (b"#!/bin/sh\n".to_vec(), "tar archive"),
            (vec![b'x'; 4096], "tar archive"),
            (archive(&["etc/passwd"]), "\"etc/passwd\""),
            (archive(&[]), "empty"),
        ] {
            let error = recognise(&bytes[..]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
