//! Images that depend on others: `rkt image render`, and what becomes of what it has made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::archive::Archive;
use crate::host::{Host, is_root};

/// A host, and the images that it knows.
struct World {
    host: Host,
}

impl World {
    /// `None` for all but root: owners are set.
    fn new() -> Option<Self> {
        is_root().then(|| Self { host: Host::new() })
    }

    /// Imports an image with these further fields in its manifest and these files, which contain its name.
    fn fetch(&self, name: &str, fields: Value, files: &[&str]) -> String {
        let mut manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": format!("example.com/{name}"),
            "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
            "app": { "exec": ["/bin/app"], "user": "0", "group": "0" },
        });
        let labels = fields["labels"].as_array().cloned().unwrap_or_default();
        manifest["labels"].as_array_mut().unwrap().extend(labels);
        for field in ["dependencies", "pathWhitelist"] {
            if let Some(value) = fields.get(field) {
                manifest[field] = value.clone();
            }
        }
        let archive = Archive::aci(&manifest.to_string());
        let archive = files
            .iter()
            .fold(archive, |archive, path| archive.file(&format!("rootfs/{path}"), name.as_bytes()));
        let path = self.host.image(&format!("{name}.aci"), &archive.end());
        self.host.rkt(&["fetch", &path]).success().stdout.trim().to_owned()
    }

    /// The files of an image as an app gets it, and what is in them.
    fn render(&self, id: &str) -> BTreeMap<String, String> {
        let output = self.host.data().join("output");
        let directory = output.to_str().unwrap();
        self.host.rkt(&["image", "render", "--overwrite", "--rootfs-only", id, directory]).success();
        let mut files = BTreeMap::new();
        read(&output, Path::new(""), &mut files);
        files
    }

    fn refused(&self, id: &str, words: &[&str]) {
        let output = self.host.data().join("refused");
        let finished = self.host.rkt(&["image", "render", id, output.to_str().unwrap()]);
        assert_eq!(finished.code, 254);
        for word in words {
            assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
        }
        assert!(!output.exists());
    }

    /// How many renderings there are.
    fn renderings(&self) -> usize {
        fs::read_dir(self.host.data().join("cas/rendered")).map_or(0, Iterator::count)
    }
}

fn read(root: &Path, below: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        if root.join(&path).is_dir() {
            read(root, &path, files);
        } else {
            files.insert(path.to_str().unwrap().into(), fs::read_to_string(root.join(&path)).unwrap());
        }
    }
}

fn on(names: &[&str]) -> Value {
    json!({ "dependencies": names.iter().map(|name| json!({ "imageName": format!("example.com/{name}") })).collect::<Vec<_>>() })
}

fn files(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(path, content)| ((*path).into(), (*content).into())).collect()
}

#[test]
fn later_dependencies_cover_earlier_ones_and_the_image_all() {
    let Some(world) = World::new() else { return };
    world.fetch("d", json!({}), &["all", "lower", "d"]);
    world.fetch("c", on(&["d"]), &["all", "lower", "c"]);
    world.fetch("b", json!({}), &["all", "lower", "b"]);
    let a = world.fetch("a", on(&["b", "c"]), &["all"]);
    let expected = [("all", "a"), ("lower", "c"), ("b", "b"), ("c", "c"), ("d", "d")];
    assert_eq!(world.render(&a), files(&expected));
    // As it is, without.
    let output = world.host.data().join("extracted");
    world.host.rkt(&["image", "extract", &a, output.to_str().unwrap()]).success();
    assert_eq!(fs::read_dir(output.join("rootfs")).unwrap().count(), 1);
    // What is whole depends on nothing.
    let output = world.host.data().join("rendered");
    world.host.rkt(&["image", "render", &a, output.to_str().unwrap()]).success();
    let manifest: Value = serde_json::from_slice(&fs::read(output.join("manifest")).unwrap()).unwrap();
    assert_eq!((&manifest["dependencies"], &manifest["name"]), (&Value::Null, &json!("example.com/a")));
    // Once.
    world.render(&a);
    assert_eq!(world.renderings(), 1);
}

#[test]
fn lists_of_paths() {
    let Some(world) = World::new() else { return };
    // Its own list, and that of the uppermost image above it that has one.
    let listed = |on: Value, paths: Value| {
        let mut fields = on;
        fields["pathWhitelist"] = paths;
        fields
    };
    world.fetch("base", listed(json!({}), json!(["/a", "/b", "/dir/x"])), &["a", "b", "c", "dir/x", "dir/y"]);
    let middle = world.fetch("middle", listed(on(&["base"]), json!(["/a", "/m"])), &["m", "n"]);
    let top = world.fetch("top", listed(on(&["middle"]), json!(["/b", "/m", "/t"])), &["t", "u"]);
    let plain = world.fetch("plain", on(&["base"]), &["p"]);
    assert_eq!(world.render(&middle), files(&[("a", "base"), ("m", "middle")]));
    assert_eq!(world.render(&top), files(&[("b", "base"), ("m", "middle"), ("t", "top")]));
    let expected = [("a", "base"), ("b", "base"), ("dir/x", "base"), ("p", "plain")];
    assert_eq!(world.render(&plain), files(&expected));
}

#[test]
fn which_image_is_meant() {
    let Some(world) = World::new() else { return };
    let version = |version: &str| json!({ "labels": [{ "name": "version", "value": version }] });
    let one = world.fetch("base", version("1"), &["one"]);
    world.fetch("base", version("2"), &["two"]);
    let dependency = |fields: Value| {
        let mut dependency = json!({ "imageName": "example.com/base" });
        for (name, value) in fields.as_object().unwrap() {
            dependency[name] = value.clone();
        }
        json!({ "dependencies": [dependency] })
    };
    let newest = world.fetch("newest", dependency(json!({})), &[]);
    let labelled = world.fetch("labelled", dependency(version("1")), &[]);
    let exact = world.fetch("exact", dependency(json!({ "imageID": one })), &[]);
    assert_eq!(world.render(&newest), files(&[("two", "base")]));
    assert_eq!(world.render(&labelled), files(&[("one", "base")]));
    assert_eq!(world.render(&exact), files(&[("one", "base")]));
    // A newer one is taken when it is there.
    world.fetch("base", version("3"), &["three"]);
    assert_eq!(world.render(&newest), files(&[("three", "base")]));
    let other = world.fetch("other", dependency(version("9")), &[]);
    world.refused(&other, &["example.com/other", "example.com/base:9", "not in the store"]);
}

#[test]
fn what_cannot_be_put_together() {
    let Some(world) = World::new() else { return };
    let itself = world.fetch("itself", on(&["itself"]), &["a"]);
    world.refused(&itself, &["depends on itself"]);
    let path = world.host.image("gone.aci", &{
        let manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/gone",
            "labels": [{ "name": "os", "value": "linux" }, { "name": "arch", "value": "amd64" }],
            "dependencies": [{ "imageName": "example.com/nowhere" }],
        });
        Archive::aci(&manifest.to_string()).end()
    });
    // It can come before what it depends on, but that is told.
    let fetched = world.host.rkt(&["fetch", &path]).success();
    assert!(fetched.stderr.contains("example.com/nowhere, which is not in the store"), "{}", fetched.stderr);
    world.refused(fetched.stdout.trim(), &["example.com/nowhere"]);
}

#[test]
fn what_was_rendered_goes_with_its_parts_and_is_made_again() {
    let Some(world) = World::new() else { return };
    let base = world.fetch("base", json!({}), &["b"]);
    let top = world.fetch("top", on(&["base"]), &["t"]);
    let whole = files(&[("b", "base"), ("t", "top")]);
    assert_eq!(world.render(&top), whole);
    let rendered =
        fs::read_dir(world.host.data().join("cas/rendered")).unwrap().next().unwrap().unwrap().path();
    fs::write(rendered.join("image.erofs"), "damaged").unwrap();
    let verified = world.host.rkt(&["image", "verify", &top]).success();
    assert!(verified.stderr.contains("with its dependencies"), "{}", verified.stderr);
    assert_eq!(world.renderings(), 0);
    assert_eq!(world.render(&top), whole);
    world.host.rkt(&["image", "rm", &base]).success();
    assert_eq!(world.renderings(), 0);
    world.refused(&top, &["example.com/base"]);
    world.fetch("base", json!({}), &["b"]);
    assert_eq!(world.render(&top), whole);
    world.host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!((world.renderings(), world.host.images().len()), (0, 0));
}
