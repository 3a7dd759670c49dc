//! What is packed and imported again is the same, and is packed to the same bytes.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};

use erofs::{EntryPath, Kind, Metadata, Reader, Special, Writer};
use nix::sys::stat::Mode;
use pack::{AciWriter, Node, pack_tree};

use super::aci;

const MANIFEST: &[u8] = br#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a",
    "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}"#;

/// An image with all that there is.
fn image() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let path = |name: &str| EntryPath::in_root(name.as_bytes()).unwrap();
    let root = Metadata::root_owned(0o755);
    let mut odd = Metadata {
        permissions: 0o4751,
        uid: 5,
        gid: u32::MAX - 1,
        mtime_s: -2,
        mtime_ns: 250_000_000,
        xattrs: Default::default(),
    };
    odd.xattrs.insert(b"user.note".to_vec(), b"\0a=b\n".to_vec());
    let long = format!("/{}/{}", "d".repeat(90), "f".repeat(200));
    writer.directory(&EntryPath::ROOT, &Metadata { mtime_s: 7, ..root.clone() }).unwrap();
    writer.file(&path(&long), &odd, &mut &b"data"[..], 4).unwrap();
    writer.hard_link(&path("/another"), &path(&long)).unwrap();
    writer
        .file(&path("/umlaut-\u{e4}"), &Metadata { mtime_ns: 1, ..root.clone() }, &mut &b""[..], 0)
        .unwrap();
    writer.symlink(&path("/link"), &Metadata::root_owned(0o777), "t".repeat(150).as_bytes()).unwrap();
    writer.special(&path("/null"), &root, Special::Character { major: 1, minor: 300 }).unwrap();
    writer.special(&path("/disk"), &root, Special::Block { major: 8, minor: 1 }).unwrap();
    writer.special(&path("/fifo"), &root, Special::Fifo).unwrap();
    writer.finish().unwrap().0
}

fn export(image: &[u8]) -> Vec<u8> {
    let mut writer = AciWriter::new(Vec::new(), MANIFEST).unwrap();
    writer.add_image(&Reader::open(image.to_vec()).unwrap()).unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let image = image();
    let archive = export(&image);
    let (aci, again) = aci::render(&archive[..], Vec::new()).unwrap();
    assert_eq!(aci.manifest_json, MANIFEST);
    let listing = |image: &Vec<u8>| {
        let reader = Reader::open(image.clone()).unwrap();
        let entries = reader.walk().map(|entry| {
            let (path, inode) = entry.unwrap();
            let target = (inode.kind() == Kind::Symlink).then(|| reader.read_link(&inode).unwrap());
            let size = (inode.kind() == Kind::Regular).then(|| inode.size());
            (path, inode.kind(), inode.links(), target, size, reader.metadata(&inode).unwrap())
        });
        entries.collect::<Vec<_>>()
    };
    for (again, before) in listing(&again).into_iter().zip(listing(&image)) {
        assert_eq!(again, before);
    }
    assert_eq!(listing(&again).len(), listing(&image).len());
    assert_eq!(export(&again), archive);
}

#[test]
fn a_file_that_shrinks_is_no_shorter_archive() {
    let mut writer = AciWriter::new(Vec::new(), MANIFEST).unwrap();
    let node = Node {
        kind: Kind::Regular,
        metadata: &Metadata::root_owned(0o644),
        target: b"",
        data: &mut &b"ab"[..],
        size: 3,
        identity: None,
    };
    assert_eq!(writer.add(b"f", node).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_tree_is_packed_as_its_image_is() {
    if !nix::unistd::geteuid().is_root() {
        return; // owners are set
    }
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    std::fs::create_dir_all(path("a/b")).unwrap();
    std::fs::write(path("a-1"), "sorted before a/b").unwrap();
    std::fs::write(path("a/b/f"), "data").unwrap();
    std::fs::hard_link(path("a/b/f"), path("z")).unwrap();
    symlink("/etc/shadow", path("link")).unwrap();
    std::fs::set_permissions(path("a"), std::fs::Permissions::from_mode(0o1700)).unwrap();
    nix::unistd::mkfifo(&path("fifo"), Mode::S_IRUSR).unwrap();
    std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let archive = pack_tree(tree.path(), None, MANIFEST, Vec::new()).unwrap();

    let (_, image) = aci::render(&archive[..], Vec::new()).unwrap();
    let reader = erofs::Reader::open(image).unwrap();
    let names: Vec<String> =
        reader.walk().map(|entry| String::from_utf8(entry.unwrap().0).unwrap()).collect();
    assert_eq!(names, ["", "a", "a/b", "a/b/f", "a-1", "fifo", "link", "z"]);
    let mut writer = AciWriter::new(Vec::new(), MANIFEST).unwrap();
    writer.add_image(&reader).unwrap();
    assert_eq!(writer.finish().unwrap(), archive);
}
