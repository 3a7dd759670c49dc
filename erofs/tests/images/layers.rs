//! Layers on layers: replacements, whiteouts, parents that are links, data that nobody has a name for any more.

use erofs::{Error, Kind, Metadata, Reader, Special, Summary, Writer};

use crate::listing::{self, Listing};
use crate::{Item, What, add, path, zoo};

enum Step {
    Add(Item),
    Remove(&'static str),
    Clear(&'static str),
    NextLayer,
}

use Step::{Clear, NextLayer, Remove};

fn dir(path: &str) -> Step {
    Step::Add(zoo::item(path, What::Directory))
}

fn file(path: &str, data: &str) -> Step {
    Step::Add(zoo::item(path, What::File(data.into())))
}

fn link(path: &str, target: &str) -> Step {
    Step::Add(zoo::item(path, What::Symlink(target.into())))
}

fn hard(path: &str, target: &str) -> Step {
    Step::Add(zoo::item(path, What::Link(target.into())))
}

fn try_build(steps: Vec<Step>) -> Result<(Vec<u8>, Summary), Error> {
    let mut writer = Writer::new(Vec::new());
    for step in steps {
        match step {
            Step::Add(item) => add(&mut writer, &item)?,
            Remove(name) => writer.remove(&path(name))?,
            Clear(name) => writer.clear(&path(name))?,
            NextLayer => writer.next_layer(),
        }
    }
    writer.finish()
}

fn build(steps: Vec<Step>) -> Listing {
    listing::of_image(&Reader::open(&try_build(steps).unwrap().0).unwrap())
}

/// The paths, directories with a slash, files with their data.
fn shape(listing: &Listing) -> Vec<String> {
    let name = |path: &[u8], seen: &listing::Seen| {
        let (path, data) = (String::from_utf8_lossy(path), String::from_utf8_lossy(&seen.data));
        match seen.kind {
            Kind::Directory => format!("{path}/"),
            Kind::Symlink => format!("{path}>{data}"),
            _ => format!("{path}={data}"),
        }
    };
    listing.iter().filter(|(path, _)| !path.is_empty()).map(|(path, seen)| name(path, seen)).collect()
}

#[test]
fn a_directory_over_a_directory_keeps_the_children() {
    let mut again = zoo::item("a", What::Directory);
    again.metadata = Metadata { permissions: 0o700, uid: 7, ..Metadata::root_owned(0) };
    let listing = build(vec![file("a/b", "1"), NextLayer, Step::Add(again)]);
    assert_eq!(shape(&listing), ["a/", "a/b=1"]);
    assert_eq!((listing[&b"a"[..]].metadata.permissions, listing[&b"a"[..]].metadata.uid), (0o700, 7));
}

#[test]
fn anything_else_replaces_all_that_was_there() {
    assert_eq!(shape(&build(vec![file("a/b/c", "1"), NextLayer, file("a", "2")])), ["a=2"]);
    assert_eq!(shape(&build(vec![file("a/b/c", "1"), link("a", "b")])), ["a>b"]);
    assert_eq!(shape(&build(vec![file("a", "1"), NextLayer, dir("a")])), ["a/"]);
    // A link to a directory is no directory: what it points at keeps its children, the link is gone.
    assert_eq!(
        shape(&build(vec![file("d/x", "1"), link("a", "d"), NextLayer, dir("a")])),
        ["a/", "d/", "d/x=1"]
    );
    assert_eq!(shape(&build(vec![file("a", "1"), file("a", "2")])), ["a=2"]);
}

#[test]
fn parents_that_are_links_are_followed_inside_the_image() {
    let relative = build(vec![dir("usr/lib"), link("lib", "usr/lib"), NextLayer, file("lib/x", "1")]);
    assert_eq!(shape(&relative), ["lib>usr/lib", "usr/", "usr/lib/", "usr/lib/x=1"]);
    let absolute = build(vec![link("a", "/b/../c/."), file("a/x", "1")]);
    assert_eq!(shape(&absolute), ["a>/b/../c/.", "b/", "c/", "c/x=1"]);
    let from_below = build(vec![link("a/b/c", "/d"), file("a/b/c/x", "1")]);
    assert_eq!(shape(&from_below), ["a/", "a/b/", "a/b/c>/d", "d/", "d/x=1"]);
    let outwards = build(vec![link("d/out", "../../../../etc"), file("d/out/passwd", "1")]);
    assert_eq!(shape(&outwards), ["d/", "d/out>../../../../etc", "etc/", "etc/passwd=1"]);
    // The last component is not followed: the link itself is replaced.
    assert_eq!(shape(&build(vec![link("a", "b"), file("b", "1"), file("a", "2")])), ["a=2", "b=1"]);
}

#[test]
fn links_that_lead_nowhere_end() {
    let error = try_build(vec![link("a", "b"), link("b", "a"), file("a/x", "1")]).unwrap_err();
    assert_eq!(error.to_string(), "/a/x: its path goes through more than 40 symbolic links");
    let chain = (0..50).map(|n| link(&format!("l{n}"), &format!("l{}", n + 1)));
    assert!(try_build(chain.chain([file("l0/x", "1")]).collect()).is_err());
    // Links must not make a path longer than Linux can open.
    let half = ["x"; 1500].join("/");
    let error = try_build(vec![dir(&half), link("a", &half), file(&format!("a/{half}"), "1")]).unwrap_err();
    assert!(matches!(error, Error::ResolvedTooLong { .. }), "{error}");
    let error = try_build(vec![link("a", &"n".repeat(300)), file("a/x", "1")]).unwrap_err();
    assert!(matches!(error, Error::ResolvedTooLong { .. }), "{error}");
}

#[test]
fn a_file_is_no_parent() {
    let error = try_build(vec![file("etc/passwd", "1"), file("etc/passwd/x", "2")]).unwrap_err();
    assert!(
        matches!(&error, Error::NotADirectory { entry, parent } if entry == "/etc/passwd/x" && parent == "passwd")
    );
}

#[test]
fn the_root_takes_metadata_and_nothing_else() {
    let mut root = zoo::item("./", What::Directory);
    root.metadata.permissions = 0o711;
    assert_eq!(build(vec![file("a", "1"), Step::Add(root)])[&b""[..]].metadata.permissions, 0o711);
    for step in [file("./", "1"), link(".", "x"), Remove("./"), hard("./", "a")] {
        assert!(matches!(try_build(vec![file("a", "1"), step]), Err(Error::Root { .. })));
    }
    assert_eq!(shape(&build(vec![file("a", "1"), NextLayer, Clear("."), file("b", "2")])), ["b=2"]);
}

#[test]
fn hard_links_keep_a_file_that_is_replaced() {
    let listing = build(vec![file("a", "1"), hard("b", "a"), NextLayer, file("a", "2"), hard("c", "/b")]);
    assert_eq!(shape(&listing), ["a=2", "b=1", "c=1"]);
    assert_eq!((listing[&b"c"[..]].links, &*listing[&b"c"[..]].same_as), (2, &b"b"[..]));
    // A link may take the place of the directory that it came from, and of itself.
    assert_eq!(shape(&build(vec![file("d/a", "1"), hard("d", "d/a")])), ["d=1"]);
    assert_eq!(shape(&build(vec![file("a", "1"), hard("a", "a")])), ["a=1"]);
    // Its target's parents may be links, and it may be one.
    let through = build(vec![file("d/a", "1"), link("l", "d"), hard("b", "l/a"), hard("m", "l")]);
    assert_eq!(shape(&through), ["b=1", "d/", "d/a=1", "l>d", "m>d"]);
}

#[test]
fn hard_links_to_nothing_and_to_directories() {
    let error = try_build(vec![hard("a", "b/c")]).unwrap_err();
    assert!(error.to_string().starts_with("/a: its hard-link target /b/c is not in the image"), "{error}");
    for target in ["d", "/"] {
        assert!(matches!(try_build(vec![dir("d"), hard("a", target)]), Err(Error::LinkToDirectory { .. })));
    }
}

#[test]
fn whiteouts_hide_lower_layers_and_spare_their_own() {
    let lower = || vec![file("a/x", "1"), file("a/d/y", "1"), file("b", "1"), NextLayer];
    let with = |upper: Vec<Step>| shape(&build(lower().into_iter().chain(upper).collect()));
    assert_eq!(with(vec![Remove("a")]), ["b=1"]);
    assert_eq!(
        with(vec![Remove("a/x"), Remove("nothing"), Remove("b/not/there")]),
        ["a/", "a/d/", "a/d/y=1", "b=1"]
    );
    // Whether a layer names its own files before the whiteout or after it makes no difference.
    let kept = ["a/", "a/d/", "a/d/z=2", "b=1"];
    assert_eq!(with(vec![Clear("a"), file("a/d/z", "2")]), kept);
    assert_eq!(with(vec![file("a/d/z", "2"), Clear("a")]), kept);
    assert_eq!(with(vec![Remove("a"), file("a/d/z", "2")]), kept);
    assert_eq!(with(vec![file("a/d/z", "2"), Remove("a")]), kept);
    assert_eq!(with(vec![file("b", "2"), Remove("b"), Remove("a")]), ["b=2"]);
    assert_eq!(with(vec![file("a/n", "2"), NextLayer, Clear("a")]), ["a/", "b=1"]);
    assert_eq!(with(vec![Clear("b"), Clear("nothing/there")]).len(), 5);
}

#[test]
fn data_without_a_name_becomes_a_hole() {
    let data = "x".repeat(10_000);
    let steps = vec![
        file("a", &data),
        file("b/c", &data),
        file("kept", "kept"),
        file("d", &data),
        hard("e", "d"),
        NextLayer,
        file("a", "new"),
        Remove("b"),
        Remove("d"),
    ];
    let (image, summary) = try_build(steps).unwrap();
    assert_eq!((summary.dead_blocks, summary.inodes), (6, 4));
    let dead = 4096..4096 * 7;
    assert!(image[dead.clone()].iter().all(|byte| *byte == 0));
    assert_eq!(image[dead.end..].iter().filter(|byte| **byte == b'x').count(), 10_000);
    assert_eq!(
        shape(&listing::of_image(&Reader::open(&image).unwrap())),
        ["a=new", &format!("e={data}"), "kept=kept"]
    );
}

#[test]
fn type_bits_among_the_permissions_are_ignored() {
    let mut item = zoo::item("a", What::Directory);
    item.metadata.permissions = 0o120_751;
    let listing = build(vec![Step::Add(item)]);
    assert_eq!((listing[&b"a"[..]].kind, listing[&b"a"[..]].metadata.permissions), (Kind::Directory, 0o751));
}

#[test]
fn what_linux_cannot_hold_is_refused_by_name() {
    let bad = |what: What, change: fn(&mut Metadata)| {
        let mut item = zoo::item("dir/bad", what);
        change(&mut item.metadata);
        let error = try_build(vec![Step::Add(item)]).unwrap_err().to_string();
        assert!(error.starts_with("/dir/bad: "), "{error}");
    };
    let keep = |_: &mut Metadata| {};
    bad(What::Symlink(vec![]), keep);
    bad(What::Symlink(vec![b'x'; 4096]), keep);
    bad(What::Symlink(b"a\0b".to_vec()), keep);
    bad(What::Special(Special::Character { major: 4096, minor: 0 }), keep);
    bad(What::Special(Special::Block { major: 0, minor: 1 << 20 }), keep);
    bad(What::Directory, |metadata| metadata.mtime_ns = 1_000_000_000);
    bad(What::Directory, |metadata| metadata.uid = u32::MAX);
    bad(What::Directory, |metadata| drop(metadata.xattrs.insert(b"other.name".to_vec(), vec![])));
}
