//! Archives, entry by entry, with names and sizes that no tool would write.

use std::io::Write;

use tar::{EntryType, Header};

/// A manifest of an image that can be run.
pub const MANIFEST: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/test",
    "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
    "app":{"exec":["/bin/app"],"user":"0","group":"0"}}"#;

/// A tar archive without its end.
#[derive(Clone)]
pub struct Archive(Vec<u8>);

impl Archive {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// An ACI with nothing in its root.
    pub fn aci(manifest: &str) -> Self {
        Self::new().file("manifest", manifest.as_bytes()).entry("rootfs", EntryType::Directory, "", 0)
    }

    /// An ACI that can be run.
    pub fn good() -> Self {
        Self::aci(MANIFEST).file("rootfs/bin/app", b"#!/bin/sh\n")
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let mut archive = self.entry(name, EntryType::Regular, "", content.len() as u64);
        archive.0.extend(content);
        archive.0.resize(archive.0.len().next_multiple_of(512), 0);
        archive
    }

    /// An entry's header alone.
    pub fn entry(mut self, name: &str, kind: EntryType, target: &str, size: u64) -> Self {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(data: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
