//! OCI image layouts and `docker save` archives.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use erofs::Reader;
use sha2::{Digest, Sha256};
use tar::EntryType::{Directory, Link, Symlink};

use crate::archive::{Archive, bzip2, gzip, zstd};
use crate::host::Host;

/// A layout, file by file.
#[derive(Clone, Default)]
struct Layout {
    files: Vec<(String, Vec<u8>)>,
    layers: Vec<String>,
    diff_ids: Vec<String>,
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".into(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

impl Layout {
    fn blob(&mut self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.files.push((format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec()));
        digest
    }

    fn layer(mut self, archive: &Archive, media_type: &str, compress: fn(&[u8]) -> Vec<u8>) -> Self {
        let bytes = archive.clone().end();
        let blob = compress(&bytes);
        let name = self.blob(&blob);
        let size = blob.len();
        self.layers.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.{media_type}","digest":"{name}","size":{size}}}"#
        ));
        self.diff_ids.push(format!("\"{}\"", digest(&bytes)));
        self
    }

    /// With a configuration in which `os` can be replaced.
    fn finish(mut self, os: &str) -> Self {
        let config = format!(
            r#"{{"os":"{os}","architecture":"amd64","config":{{"Entrypoint":["/bin/app"],"User":"1000"}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            self.diff_ids.join(",")
        );
        let (config_size, config) = (config.len(), self.blob(config.as_bytes()));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",
            "digest":"{config}","size":{config_size}}},"layers":[{}]}}"#,
            self.layers.join(",")
        );
        let (manifest_size, manifest) = (manifest.len(), self.blob(manifest.as_bytes()));
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "digest":"{manifest}","size":{manifest_size},
            "annotations":{{"org.opencontainers.image.ref.name":"example.com/app:v1"}}}}]}}"#
        );
        self.files.push(("index.json".into(), index.into_bytes()));
        self.files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        self
    }

    fn write(&self, directory: &Path) {
        for (name, bytes) in &self.files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn archive(&self) -> Vec<u8> {
        let archive = self.files.iter().fold(Archive::new(), |archive, (name, bytes)| {
            // Longer than a header's field: the name takes a header of its own.
            if name.len() > 100 { archive } else { archive.file(name, bytes) }
        });
        archive.end()
    }
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn lower() -> Archive {
    Archive::new()
        .file("bin/app", b"#!/bin/sh\n")
        .file("etc/passwd", b"user:x:1000:100::/:/bin/sh\n")
        .file("gone/a", b"")
        .file("hidden/old", b"")
        .entry("usr/bin", Directory, "", 0)
        .entry("sbin", Symlink, "usr/bin", 0)
}

fn upper() -> Archive {
    Archive::new()
        .file(".wh.gone", b"")
        .file("hidden/new", b"")
        .file("hidden/.wh..wh..opq", b"")
        .file("sbin/tool", b"")
        .entry("app", Link, "/bin/app", 0)
}

fn good() -> Layout {
    Layout::default().layer(&lower(), "tar+gzip", gzip).layer(&upper(), "tar+zstd", zstd).finish("linux")
}

/// The paths in the one image of the store.
fn paths(host: &Host) -> Vec<String> {
    let [id] = &host.images()[..] else { panic!("{:?}", host.images()) };
    let file = fs::File::open(host.data().join("cas/images").join(id).join("image.erofs")).unwrap();
    let reader = Reader::open(file).unwrap();
    let mut paths: Vec<String> =
        reader.walk().map(|entry| String::from_utf8(entry.unwrap().0).unwrap()).collect();
    paths.sort();
    paths
}

#[test]
fn layers_become_one_tree() {
    let host = Host::new();
    good().write(&host.path("layout"));
    let from_directory = host.rkt(&["fetch", host.path("layout").to_str().unwrap()]).success().stdout;
    let expected = [
        "",
        "app",
        "bin",
        "bin/app",
        "etc",
        "etc/passwd",
        "hidden",
        "hidden/new",
        "sbin",
        "usr",
        "usr/bin",
        "usr/bin/tool",
    ];
    assert_eq!(paths(&host), expected);
    let id = from_directory.trim();
    let manifest = fs::read_to_string(host.data().join("cas/images").join(id).join("manifest")).unwrap();
    for part in ["\"example.com/app\"", "\"v1\"", r#""exec":["/bin/app"]"#, r#""user":"1000","group":"100""#]
    {
        assert!(manifest.contains(part), "{part}: {manifest}");
    }
    for (name, bytes) in [("layout.tar", good().archive()), ("packed", gzip(&good().archive()))] {
        let other = Host::new();
        let path = other.image(name, &bytes);
        assert_eq!(other.rkt(&["fetch", &path]).success().stdout, from_directory, "{name}");
    }
}

#[test]
fn the_tree_is_reproducible() {
    let image = |host: &Host| {
        let path = host.image("layout.tar", &good().archive());
        host.rkt(&["fetch", &path]).success();
        fs::read(host.data().join("cas/images").join(&host.images()[0]).join("image.erofs")).unwrap()
    };
    assert!(image(&Host::new()) == image(&Host::new()));
}

#[test]
fn an_archive_of_docker_save() {
    let (lower, upper) = (lower().end(), upper().end());
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","config":{{"Cmd":["/bin/app"]}},
        "rootfs":{{"diff_ids":["{}","{}"]}}}}"#,
        digest(&lower),
        digest(&upper)
    );
    let name = "c".repeat(64);
    let manifest = format!(
        r#"[{{"Config":"{name}.json","RepoTags":["app:v2"],"Layers":["a/layer.tar","b/layer.tar"]}}]"#
    );
    let save = |upper: &[u8]| {
        Archive::new()
            .file(&format!("{name}.json"), config.as_bytes())
            .file("a/layer.tar", &lower)
            .file("x/layer.tar", upper)
            .entry("b/layer.tar", Symlink, "../x/layer.tar", 0)
            .file("manifest.json", manifest.as_bytes())
            .end()
    };
    let host = Host::new();
    host.rkt(&["fetch", &host.image("saved", &save(&upper))]).success();
    assert!(paths(&host).contains(&"usr/bin/tool".to_owned()));
    let list = host.rkt(&["image", "list"]).success().stdout;
    assert!(list.contains("app:v2"), "{list}");
    let mut changed = upper.clone();
    changed[0] = b'x';
    let other = Host::new();
    let path = other.image("changed", &save(&changed));
    other.rkt(&["fetch", &path]).refused(&["changed", "b/layer.tar"]);
}

/// Expects a layout to be refused with these words, as a directory and as an archive.
#[track_caller]
fn refused(layout: &Layout, words: &[&str]) {
    let host = Host::new();
    layout.write(&host.path("layout"));
    let path = host.path("layout").to_str().unwrap().to_owned();
    host.rkt(&["fetch", &path]).refused(words).refused(&[&path]);
    let path = host.image("layout.tar", &layout.archive());
    host.rkt(&["fetch", &path]).refused(words).refused(&[&path]);
    assert!(host.images().is_empty());
    assert!(fs::read_dir(host.data().join("cas/tmp")).unwrap().next().is_none());
}

#[test]
fn damaged_layouts() {
    refused(&Layout::default().layer(&lower(), "tar", plain).finish("windows"), &["os", "windows"]);
    refused(&Layout::default().layer(&lower(), "tar+bzip3", plain).finish("linux"), &["tar+bzip3"]);
    let without = |prefix: &str| {
        let mut layout = good();
        layout.files.retain(|(name, _)| !name.starts_with(prefix));
        layout
    };
    refused(&without("index.json"), &["no index.json"]);
    refused(&without("blobs"), &["no blobs/sha256/"]);
    refused(&without("oci-layout"), &["oci-layout"]);

    let mut changed = good();
    let layer = &mut changed.files[0];
    let name = layer.0.clone();
    *layer.1.last_mut().unwrap() ^= 1;
    refused(&changed, &[&name]);
    let mut longer = good();
    longer.files[0].1.push(0);
    refused(&longer, &[&name]);
    let mut config = good();
    config.files[2].1.push(b' ');
    refused(&config, &[&config.files[2].0.clone(), "bytes"]);

    let mut index = good();
    let at = index.files.iter().position(|(name, _)| name == "index.json").unwrap();
    index.files[at].1 = b"not json".to_vec();
    refused(&index, &["index.json", "line 1"]);
    index.files[at].1 = br#"{"manifests":[{"digest":"sha256:../../../etc/passwd","size":1}]}"#.to_vec();
    refused(&index, &["index.json"]);
}

#[test]
fn hostile_layers() {
    let layer = |archive: Archive| Layout::default().layer(&archive, "tar", plain).finish("linux");
    refused(&layer(Archive::new().file("../escaped", b"")), &["../escaped"]);
    refused(&layer(Archive::new().file("/absolute", b"")), &["/absolute"]);
    refused(&layer(Archive::new().entry("shadow", Link, "../etc/shadow", 0)), &["shadow"]);
    refused(&layer(Archive::new().file("a/.wh...", b"")), &[".wh..."]);
    refused(&layer(Archive::new().file("a", b"").file("a/b", b"")), &["a/b", "not a directory"]);
    refused(&layer(Archive::new().entry("huge", tar::EntryType::Regular, "", 1 << 62)), &["huge"]);
    let packed = Layout::default().layer(&lower(), "tar", bzip2).finish("linux");
    refused(&packed, &["blobs/sha256/", "compress"]);
    // A link out of the root leads into the image when it is followed.
    let host = Host::new();
    let inside = layer(Archive::new().entry("out", Symlink, "/../../new", 0).file("out/file", b""));
    host.rkt(&["fetch", &host.image("inside", &inside.archive())]).success();
    assert!(paths(&host).contains(&"new/file".to_owned()), "{:?}", paths(&host));
}
