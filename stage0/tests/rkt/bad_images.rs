//! Images that are damaged, hostile, or for somebody else: an error that names the file and the entry, exit status 254,
//! and nothing left.

use std::io::Read;

use tar::EntryType::{Directory, Link, Regular, Symlink};

use crate::archive::{Archive, MANIFEST, bzip2, gzip, xz, zstd};
use crate::host::{Host, is_root};

/// Expects an image to be refused with these words and its path, by `fetch` and by `run`.
#[track_caller]
fn refused(name: &str, bytes: &[u8], words: &[&str]) {
    let host = Host::new();
    host.rkt(&["fetch", &host.image("good.aci", &Archive::good().end())]).success();
    let before = host.listing();
    let path = host.image(name, bytes);
    let words: Vec<&str> = words.iter().copied().chain([path.as_str()]).collect();
    host.rkt(&["fetch", &path]).refused(&words).refused(&["fetch: ", "└─"]);
    assert_eq!(host.listing(), before, "{name}: something is left");
    if is_root() {
        host.rkt(&["run", &path]).refused(&words).refused(&["run: ", "└─"]);
        assert_eq!(host.listing(), before, "{name}: something is left");
    }
}

#[test]
fn no_archives() {
    refused("empty", b"", &["empty"]);
    refused("text", "not an image\n".repeat(100).as_bytes(), &["tar archive"]);
    refused("zeros", &[0; 10240], &["empty"]);
    refused("other-tar", &Archive::new().file("etc/passwd", b"x").end(), &["etc/passwd"]);
}

#[test]
fn truncated() {
    let bytes = Archive::good().file("rootfs/large", &[7; 5000]).end();
    refused("in-a-header", &bytes[..bytes.len() - 1024 - 5632 + 100], &["truncated", "rootfs/bin/app"]);
    refused("in-a-file", &bytes[..bytes.len() - 3000], &["/large", "3144 of 5000"]);
    refused("without-end", &bytes[..bytes.len() - 1024], &["truncated", "rootfs/large"]);
}

#[test]
fn compressed_and_damaged() {
    let data: Vec<u8> = (0u32..100_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let bytes = Archive::good().file("rootfs/large", &data).end();
    for (name, compress) in [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("bz2", bzip2), ("xz", xz), ("zst", zstd)]
    {
        let whole = compress(&bytes);
        refused(&format!("truncated.{name}"), &whole[..whole.len() / 2], &[]);
        let mut corrupt = whole;
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 64].fill(0x5a);
        refused(&format!("corrupt.{name}"), &corrupt, &[]);
    }
}

#[test]
fn damaged_header() {
    let mut bytes = Archive::good().file("rootfs/second", b"x").end();
    let header = bytes.len() - 1024 - 1024;
    bytes[header] ^= 1;
    refused("checksum", &bytes, &["checksum", "rootfs/bin/app"]);
}

#[test]
fn bomb() {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let size = 300 << 20;
    let start = Archive::good().entry("rootfs/zeros", Regular, "", size).end();
    std::io::Write::write_all(&mut encoder, &start[..start.len() - 1024]).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size + 1024), &mut encoder).unwrap();
    refused("bomb", &encoder.finish().unwrap(), &["zeros", "unfolds"]);
}

#[test]
fn manifests() {
    let aci = |manifest: &str| Archive::aci(manifest).file("rootfs/bin/app", b"").end();
    refused("no-manifest", &Archive::new().file("rootfs/a", b"a").end(), &["no manifest"]);
    refused("not-json", &aci("hello"), &["manifest", "line 1"]);
    refused("not-an-object", &aci("[]"), &["manifest"]);
    refused("other-kind", &aci(&MANIFEST.replace("ImageManifest", "PodManifest")), &["PodManifest"]);
    refused("other-os", &aci(&MANIFEST.replace("linux", "freebsd")), &["os", "freebsd"]);
    refused("other-arch", &aci(&MANIFEST.replace("amd64", "aarch64")), &["arch", "aarch64"]);
    refused("no-labels", &aci(&MANIFEST.replace("\"labels\"", "\"lables\"")), &["missing os label"]);
    refused("bad-name", &aci(&MANIFEST.replace("example.com", "Example.com")), &["AC Identifier"]);
    let with = |field: &str| MANIFEST.replacen('{', &format!("{{{field},"), 1);
    refused("dependencies", &aci(&with(r#""dependencies":[{"imageName":"a b"}]"#)), &["AC Identifier"]);
    refused("whitelist", &aci(&with(r#""pathWhitelist":["a"]"#)), &["pathWhitelist", "not absolute"]);
}

#[test]
fn layouts() {
    let aci = || Archive::aci(MANIFEST);
    refused("other-names", &aci().file("extra", b"").end(), &["\"extra\""]);
    refused("twice", &aci().file("rootfs/a", b"").file("rootfs/./a", b"").end(), &["rootfs/./a", "twice"]);
    refused("two-manifests", &aci().file("manifest", MANIFEST.as_bytes()).end(), &["manifest", "twice"]);
    refused("no-rootfs", &Archive::new().file("manifest", MANIFEST.as_bytes()).end(), &["no rootfs"]);
    let file = Archive::new().file("manifest", MANIFEST.as_bytes()).file("rootfs", b"");
    refused("rootfs-is-a-file", &file.end(), &["rootfs", "not a directory"]);
    let directory = Archive::new().entry("manifest", Directory, "", 0);
    refused("manifest-is-a-directory", &directory.end(), &["manifest", "not a file"]);
}

#[test]
fn names_and_links_out_of_the_root() {
    let aci = || Archive::aci(MANIFEST);
    refused("dot-dot", &aci().file("rootfs/../../escaped", b"").end(), &["rootfs/../../escaped"]);
    refused("absolute", &aci().file("/rootfs/absolute", b"").end(), &["/rootfs/absolute"]);
    let link = |target| aci().file("rootfs/a", b"").entry("rootfs/name", Link, target, 0).end();
    for (name, target) in [
        ("hard-link-dot-dot", "rootfs/../../etc/shadow"),
        ("hard-link-absolute", "/etc/shadow"),
        ("hard-link-to-manifest", "manifest"),
        ("hard-link-to-nothing", "rootfs/nothing"),
        ("hard-link-to-root", "rootfs"),
    ] {
        refused(name, &link(target), &["rootfs/name"]);
    }
    let through = aci().entry("rootfs/out", Symlink, "/etc", 0).file("rootfs/out/escaped", b"");
    refused("through-a-link", &through.end(), &["rootfs/out/escaped", "symbolic link"]);
}

#[test]
fn trees_that_cannot_be() {
    let aci = || Archive::aci(MANIFEST);
    let below = aci().file("rootfs/file", b"x").file("rootfs/file/below", b"x");
    refused("below-a-file", &below.end(), &["rootfs/file/below", "not a directory"]);
    refused("eight-exbibytes", &aci().entry("rootfs/huge", Regular, "", 1 << 63).end(), &["rootfs/huge"]);
    refused(
        "one-gibibyte",
        &aci().entry("rootfs/huge", Regular, "", 1 << 30).end(),
        &["/huge", "1024 of 1073741824"],
    );
    refused(
        "sparse",
        &aci().entry("rootfs/holes", tar::EntryType::GNUSparse, "", 0).end(),
        &["rootfs/holes"],
    );
    let unknown = tar::EntryType::new(b'Z');
    refused("unknown-type", &aci().entry("rootfs/x", unknown, "", 0).end(), &["rootfs/x", "'Z'"]);
    let control = aci().file("rootfs/\u{1b}[2J/../x", b"");
    refused("control-characters", &control.end(), &["[2J"]);
}

#[test]
fn nothing_that_can_be_run() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let without_app = MANIFEST.split(",\n    \"app\"").next().unwrap().to_owned() + "}";
    let path = host.image("no-app", &Archive::aci(&without_app).file("rootfs/bin/app", b"").end());
    let left = |host: &Host| host.images().len() + host.pods("run").len() + host.pods("prepare").len();
    host.rkt(&["run", &path]).refused(&["no-app", "--exec"]);
    assert_eq!(left(&host), 0);
    host.rkt(&["run", &path, "--exec=/bin/absent"]).refused(&["no-app", "/bin/absent"]);
    assert_eq!(left(&host), 0);
    assert_eq!(host.rkt(&["run", &path, "--exec=/bin/app"]).code, 7);
    host.rkt(&["run", &path, "--exec=/bin/absent"]).refused(&["/bin/absent"]);
    host.rkt(&["run", &path, "--exec=nowhere"]).refused(&["nowhere", "PATH"]);
    assert_eq!((host.images().len(), host.pods("run").len()), (1, 1));
}
