//! Images that a test makes: busybox with a manifest and files of the test's own.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::image;

/// A file of an image.
pub struct Entry<'a> {
    /// Its path, without a slash at the beginning.
    pub path: &'a str,
    /// What it is.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u32,
    /// Its owner and group.
    pub owner: (u64, u64),
    /// What is in it; of a device, `MAJOR:MINOR`.
    pub content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// A program or script of root's.
    pub fn program(path: &'a str, content: &'a [u8]) -> Self {
        Self { path, kind: EntryType::Regular, mode: 0o755, owner: (0, 0), content }
    }
}

/// An ACI in a directory of its own.
pub struct Aci {
    directory: TempDir,
}

impl Aci {
    /// With this app section, and these files beside busybox's.
    pub fn new(app: Value, entries: &[Entry<'_>]) -> Self {
        Self::annotated(app, json!([]), entries)
    }

    /// The same with annotations of the image.
    pub fn annotated(app: Value, annotations: Value, entries: &[Entry<'_>]) -> Self {
        Self::make(&json!({ "app": app, "annotations": annotations }), None, entries)
    }

    /// The same with a file of so many zeros, which take no space in the archive.
    pub fn with_hole(app: Value, hole: (&str, u64), entries: &[Entry<'_>]) -> Self {
        Self::make(&json!({ "app": app }), Some(hole), entries)
    }

    /// These files and no others, for above an image of this name.
    pub fn above(name: &str, app: Value, entries: &[Entry<'_>]) -> Self {
        Self::make(&json!({ "app": app, "dependencies": [{ "imageName": name }] }), None, entries)
    }

    fn make(fields: &Value, hole: Option<(&str, u64)>, entries: &[Entry<'_>]) -> Self {
        let aci = Self { directory: tempfile::tempdir().unwrap() };
        let mut manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/ace",
            "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
        });
        for (name, value) in fields.as_object().unwrap() {
            manifest[name] = value.clone();
        }
        let mut archive = Builder::new(File::create(aci.file()).unwrap());
        archive.follow_symlinks(false);
        let manifest = serde_json::to_vec(&manifest).unwrap();
        add(&mut archive, "manifest", &Entry::program("", &manifest));
        if fields.get("dependencies").is_none() {
            archive.append_dir_all("rootfs", image("rootfs")).unwrap();
        }
        if let Some((path, bytes)) = hole {
            add_hole(&mut archive, &format!("rootfs/{path}"), bytes);
        }
        for entry in entries {
            add(&mut archive, &format!("rootfs/{}", entry.path), entry);
        }
        archive.finish().unwrap();
        aci
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("test.aci")
    }

    /// For a command line.
    pub fn path(&self) -> String {
        self.file().to_str().unwrap().to_owned()
    }
}

fn add_hole(archive: &mut Builder<File>, path: &str, bytes: u64) {
    let mut header = Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_mode(0o644);
    header.set_size(bytes);
    header.set_cksum();
    archive.append(&header, std::io::empty()).unwrap();
    archive.get_mut().seek(SeekFrom::Current(bytes.cast_signed())).unwrap();
}

fn add(archive: &mut Builder<File>, path: &str, entry: &Entry<'_>) {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0);
    header.set_gid(entry.owner.1);
    header.set_mtime(0);
    if matches!(entry.kind, EntryType::Char | EntryType::Block) {
        let text = std::str::from_utf8(entry.content).unwrap();
        let (major, minor) = text.split_once(':').unwrap();
        header.set_device_major(major.parse().unwrap()).unwrap();
        header.set_device_minor(minor.parse().unwrap()).unwrap();
        header.set_size(0);
        archive.append_data(&mut header, Path::new(path), std::io::empty()).unwrap();
        return;
    }
    header.set_size(entry.content.len() as u64);
    archive.append_data(&mut header, Path::new(path), entry.content).unwrap();
}
