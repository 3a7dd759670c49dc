//! Images that are damaged, hostile, or for somebody else: an error that names the file and the entry, and nothing left.

use std::fs;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::harness::{BUSYBOX, Host, Process, image, sizes};

const MANIFEST: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/bad",
    "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
    "app":{"exec":["/bin/true"],"user":"0","group":"0"}}"#;

/// An archive, entry by entry, with names and sizes that no tool would write.
struct Archive(Vec<u8>);

impl Archive {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// The beginning of an ACI.
    fn aci(manifest: &str) -> Self {
        Self::new().file("manifest", manifest.as_bytes()).directory("rootfs")
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        let mut archive = self.header(name, EntryType::Regular, "", content.len() as u64);
        archive.0.extend(content);
        archive.0.resize(archive.0.len().next_multiple_of(512), 0);
        archive
    }

    fn directory(self, name: &str) -> Self {
        self.header(name, EntryType::Directory, "", 0)
    }

    fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.header(name, kind, target, 0)
    }

    fn header(mut self, name: &str, kind: EntryType, target: &str, size: u64) -> Self {
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

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Runs the image of these bytes, and expects an error with these words and the file's name, and nothing left.
fn refused(what: &str, bytes: &[u8], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{what}.aci"));
    fs::write(&path, bytes).unwrap();
    refused_at(&path, words);
}

fn refused_at(path: &Path, words: &[&str]) {
    let host = Host::new();
    let before = sizes(host.path());
    let finished = Process::start(&mut host.run(&[path.to_str().unwrap()])).finish();
    assert_eq!(finished.code, 254, "{}: {}", path.display(), finished.stderr);
    let name = path.file_name().unwrap().to_str().unwrap();
    for word in words.iter().chain([&name]) {
        assert!(
            finished.stderr.contains(word),
            "{}: \"{word}\" is not in: {}",
            path.display(),
            finished.stderr
        );
    }
    assert_eq!(sizes(host.path()), before, "{}: something is left", path.display());
}

#[test]
fn not_an_archive() {
    refused("empty", b"", &[]);
    refused("text", b"This is not an image.\n".repeat(100).as_slice(), &[]);
}

#[test]
fn damaged_archives() {
    let whole = fs::read(image(BUSYBOX)).unwrap();
    refused("truncated", &whole[..whole.len() / 2], &[]);
    let zipped = fs::read(image("busybox.aci.gz")).unwrap();
    refused("truncated-gzip", &zipped[..zipped.len() / 2], &[]);
    let mut corrupt = fs::read(image("busybox.aci.xz")).unwrap();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 16].fill(0xa5);
    refused("corrupt-xz", &corrupt, &[]);
}

#[test]
fn manifests() {
    refused("no-manifest", &Archive::new().directory("rootfs").file("rootfs/a", b"a").end(), &["manifest"]);
    refused("not-json", &Archive::aci("hello").end(), &["manifest"]);
    refused("other-os", &Archive::aci(&MANIFEST.replace("linux", "freebsd")).end(), &["freebsd"]);
    refused("other-arch", &Archive::aci(&MANIFEST.replace("amd64", "aarch64")).end(), &["aarch64"]);
    let without_app = MANIFEST.split(",\n    \"app\"").next().unwrap().to_owned() + "}";
    refused("no-app", &Archive::aci(&without_app).end(), &["--exec"]);
}

#[test]
fn names_out_of_the_root() {
    let aci = || Archive::aci(MANIFEST);
    refused("dot-dot", &aci().file("rootfs/../../escaped", b"x").end(), &["escaped"]);
    refused("absolute", &aci().file("/rootfs/absolute", b"x").end(), &["absolute"]);
    let through = aci().link(EntryType::Symlink, "rootfs/out", "/etc").file("rootfs/out/escaped", b"x");
    refused("through-a-link", &through.end(), &["out"]);
    let hard = aci().link(EntryType::Link, "rootfs/shadow", "../../etc/shadow");
    refused("hard-link", &hard.end(), &["shadow"]);
    let missing = aci().link(EntryType::Link, "rootfs/name", "rootfs/not-there");
    refused("dangling-hard-link", &missing.end(), &["not-there"]);
}

#[test]
fn trees_that_cannot_be() {
    let aci = || Archive::aci(MANIFEST);
    let below_a_file = aci().file("rootfs/file", b"x").file("rootfs/file/below", b"x");
    refused("below-a-file", &below_a_file.end(), &["file"]);
    let huge = aci().header("rootfs/huge", EntryType::Regular, "", 1 << 63);
    refused("eight-exbibytes", &huge.end(), &["huge"]);
}

#[test]
fn damaged_layouts() {
    let folder = tempfile::tempdir().unwrap();
    let layout = |name: &str| -> PathBuf {
        let path = folder.path().join(name);
        let copied = std::process::Command::new("cp").arg("-r").arg(image("busybox-oci")).arg(&path).status();
        assert!(copied.unwrap().success());
        path
    };
    let blobs = |layout: &Path| -> Vec<PathBuf> {
        let mut blobs: Vec<PathBuf> =
            fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
        blobs.sort_by_key(|path| path.metadata().unwrap().len());
        blobs
    };
    let missing = layout("layer-missing");
    fs::remove_file(blobs(&missing).pop().unwrap()).unwrap();
    refused_at(&missing, &[]);

    let changed = layout("layer-changed");
    let blob = blobs(&changed).pop().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    refused_at(&changed, &[]);

    let no_index = layout("no-index");
    fs::remove_file(no_index.join("index.json")).unwrap();
    refused_at(&no_index, &[]);
}
