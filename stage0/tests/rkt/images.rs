//! `rkt image`.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::archive::{Archive, MANIFEST};
use crate::host::{Host, finished, is_root};

/// A host with an image in its store; the image's file, and its ID.
fn host() -> (Host, String, String) {
    let host = Host::new();
    let (path, id) = fetch(&host, "one");
    (host, path, id)
}

/// Imports an image of this name.
fn fetch(host: &Host, name: &str) -> (String, String) {
    let manifest = MANIFEST.replace("/test\"", &format!("/{name}\""));
    let data: Vec<u8> = (0u16..20_000).flat_map(u16::to_le_bytes).collect();
    let archive = Archive::aci(&manifest).file("rootfs/bin/app", b"#!/bin/sh\n").file("rootfs/data", &data);
    let path = host.image(&format!("{name}.aci"), &archive.end());
    let id = host.rkt(&["fetch", &path]).success().stdout.trim().to_owned();
    (path, id)
}

fn stored(host: &Host, id: &str, file: &str) -> PathBuf {
    host.data().join("cas/images").join(id).join(file)
}

/// Changes one bit of a file in its middle.
fn flip(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn removal() {
    let (host, _, one) = host();
    let (_, two) = fetch(&host, "two");
    let (_, three) = fetch(&host, "three");
    fs::write(stored(&host, &three, "manifest"), "{").unwrap();
    let removed = host.rkt(&["image", "rm", "nothing", "example.com/one", &two[..20], &three]);
    assert_eq!(removed.code, 254);
    assert!(removed.stderr.contains("image: \"nothing\" matches nothing"), "{}", removed.stderr);
    assert!(removed.stderr.ends_with("3 image(s) successfully removed\n"), "{}", removed.stderr);
    let expected: Vec<String> =
        [&one, &two, &three].map(|id| format!("successfully removed aci for image: \"{id}\"")).into();
    assert_eq!(removed.stdout.lines().collect::<Vec<_>>(), expected);
    assert!(host.images().is_empty());
    assert!(fs::read_dir(host.data().join("cas/tmp")).unwrap().next().is_none());
}

#[test]
fn what_pods_use_is_not_collected() {
    if !is_root() {
        return;
    }
    let (host, path, one) = host();
    let (_, two) = fetch(&host, "two");
    let (_, three) = fetch(&host, "three");
    host.rkt(&["prepare", &one]).success();
    assert_eq!(host.rkt(&["run", "example.com/two"]).code, 7);
    assert!(host.rkt(&["image", "gc", "--grace-period=1h"]).success().stdout.is_empty());
    // Nobody has used the third for two hours.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for id in [&one, &three] {
        let directory = fs::File::open(stored(&host, id, "")).unwrap();
        directory.set_modified(before).unwrap();
    }
    let tree = |id: &str| host.data().join("cas/trees").join(id);
    [&two, &three].iter().for_each(|id| fs::create_dir_all(tree(id)).unwrap());
    let collected = host.rkt(&["image", "gc", "--grace-period=1h"]).success().stdout;
    assert_eq!(collected, format!("successfully removed aci for image: \"{three}\"\n"));
    assert!(tree(&two).exists() && !tree(&three).exists());
    let mut kept = vec![one.clone(), two.clone()];
    kept.sort();
    host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(host.images(), kept);
    host.rkt(&["gc", "--grace-period=0s", "--expire-prepared=0s"]).success();
    host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert!(host.images().is_empty() && !tree(&two).exists());
    assert!(fs::read_dir(host.data().join("cas/sources")).unwrap().next().is_none(), "notes stay");
    host.rkt(&["fetch", &path]).success();
}

#[test]
fn a_pod_keeps_an_image_that_is_removed() {
    if !is_root() {
        return;
    }
    let (host, _, one) = host();
    let uuid = host.rkt(&["prepare", "--quiet", &one]).success().stdout;
    host.rkt(&["image", "rm", &one]).success();
    assert_eq!(host.rkt(&["run-prepared", uuid.trim()]).code, 7);
}

#[test]
fn a_run_is_a_use() {
    if !is_root() {
        return;
    }
    let (host, _, one) = host();
    let used = || {
        let list = host.rkt(&["image", "list", "--format=json"]).success().stdout;
        serde_json::from_str::<Value>(&list).unwrap()[0]["last_used_time"].as_u64().unwrap()
    };
    let imported = used();
    assert_eq!(host.rkt(&["run", &one]).code, 7);
    assert!(used() > imported);
}

#[test]
fn a_flipped_bit_is_found_and_mended() {
    let (host, path, one) = host();
    let verify = || host.rkt(&["image", "verify", &one[..30]]);
    let good = format!("successfully verified checksum for image: \"{one}\"\n");
    assert_eq!(verify().success().stdout, good);
    for file in ["image.erofs", "manifest", "sha256sums"] {
        let stored = stored(&host, &one, file);
        let before = fs::read(&stored).unwrap();
        flip(&stored);
        let mended = verify().success();
        assert!(mended.stderr.contains("was damaged"), "{file}: {}", mended.stderr);
        assert_eq!((mended.stdout, fs::read(&stored).unwrap()), (good.clone(), before), "{file}");
        assert!(verify().success().stderr.is_empty());
    }
    assert!(fs::read_dir(host.data().join("cas/tmp")).unwrap().next().is_none());

    flip(&stored(&host, &one, "image.erofs"));
    let damaged = fs::read(stored(&host, &one, "image.erofs")).unwrap();
    fs::write(&path, Archive::good().end()).unwrap();
    verify().refused(&["(image.erofs)", "cannot be made again", "is another image now"]);
    fs::remove_file(&path).unwrap();
    verify().refused(&["(image.erofs)", "cannot be made again", &path]);
    assert_eq!(fs::read(stored(&host, &one, "image.erofs")).unwrap(), damaged);
    fs::remove_file(stored(&host, &one, "sha256sums")).unwrap();
    verify().refused(&["nobody has noted"]);
}

#[test]
fn a_tree_is_compared_with_its_image() {
    if !is_root() {
        return;
    }
    let (host, _, one) = host();
    let tree = host.data().join("cas/trees").join(&one);
    fs::create_dir(tree.parent().unwrap()).unwrap();
    host.rkt(&["image", "extract", "--rootfs-only", &one, tree.to_str().unwrap()]).success();
    assert!(host.rkt(&["image", "verify", &one]).success().stderr.is_empty());
    fs::set_permissions(tree.join("data"), fs::Permissions::from_mode(0o600)).unwrap();
    let uuid = host.rkt(&["prepare", "--quiet", &one]).success().stdout;
    host.rkt(&["image", "verify", &one]).refused(&["remove the pods"]);
    host.rkt(&["rm", uuid.trim()]).success();
    let mended = host.rkt(&["image", "verify", &one]).success();
    assert!(mended.stderr.contains("its unpacked tree") && !tree.exists(), "{}", mended.stderr);
}

#[test]
fn an_exported_image_is_the_same_image() {
    let (host, _, one) = host();
    let output = host.path("out.aci");
    let export = |flags: &[&str]| {
        host.rkt(&[&["image", "export"], flags, &[one.as_str(), output.to_str().unwrap()]].concat())
    };
    export(&[]).success();
    let bytes = fs::read(&output).unwrap();
    export(&[]).refused(&["out.aci", "--overwrite"]);
    fs::write(&output, "").unwrap();
    export(&["--overwrite"]).success();
    assert_eq!(fs::read(&output).unwrap(), bytes);
    let again = host.rkt(&["fetch", output.to_str().unwrap()]).success().stdout;
    let erofs = |id: &str| fs::read(stored(&host, id, "image.erofs")).unwrap();
    assert!(erofs(&one) == erofs(again.trim()), "another tree");
    let manifest = |id: &str| host.rkt(&["image", "cat-manifest", id]).success().stdout;
    assert_eq!(manifest(&one), manifest(again.trim()));
    host.rkt(&["image", "export", "nothing", "x"]).refused(&["image: ", "matches nothing"]);
    host.rkt(&["image", "export", &one, "/nowhere/x.aci"]).refused(&["/nowhere/x.aci"]);
    assert!(fs::read_dir(host.path("")).unwrap().count() == 4, "bin, data, one.aci, out.aci");
}

#[test]
fn trees() {
    if !is_root() {
        return;
    }
    let (host, _, one) = host();
    let output = host.path("tree");
    let line = |command: &'static str, flags: &[&'static str]| {
        host.rkt(&[&["image", command], flags, &["example.com/one", output.to_str().unwrap()]].concat())
    };
    for command in ["extract", "render"] {
        line(command, &[]).success();
        assert_eq!(
            fs::read(output.join("manifest")).unwrap(),
            fs::read(stored(&host, &one, "manifest")).unwrap()
        );
        let app = fs::metadata(output.join("rootfs/bin/app")).unwrap();
        assert_eq!((app.permissions().mode() & 0o777, app.uid()), (0o755, 0));
        line(command, &[]).refused(&["tree", "--overwrite"]);
        line(command, &["--rootfs-only", "--overwrite"]).success();
        assert!(output.join("bin/app").exists() && !output.join("manifest").exists());
        fs::remove_dir_all(&output).unwrap();
    }
    host.rkt(&["image", "extract", "--overwrite", &one, "/"]).refused(&["image: / cannot be replaced"]);
}

#[test]
fn lists() {
    let (host, _, one) = host();
    let (_, two) = fetch(&host, "a-two");
    let list = |flags: &[&str]| host.rkt(&[&["image", "list"], flags].concat()).success().stdout;
    let text = list(&[]);
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("ID                   NAME"), "{text}");
    assert!(lines.next().unwrap().starts_with(&one[..19]) && !text.contains(&one), "{text}");
    assert_eq!(
        list(&["--fields=name", "--no-legend", "--sort=name"]),
        "example.com/a-two\nexample.com/one\n"
    );
    assert_eq!(
        list(&["--fields=name", "--no-legend", "--order=desc"]),
        "example.com/a-two\nexample.com/one\n"
    );
    assert_eq!(list(&["--fields=id", "--full", "--no-legend"]), format!("{one}\n{two}\n"));
    let json: Value = serde_json::from_str(&list(&["--format=json"])).unwrap();
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "import_time", "last_used_time", "name", "size"]);
    assert_eq!((&json[0]["id"], &json[1]["name"]), (&one.as_str().into(), &"example.com/a-two".into()));
    assert!(list(&["--format=json-pretty"]).contains("\n\t\t\"id\""));
    host.rkt(&["image", "list", "--sort=id"]).refused(&["importtime, lastused, name or size"]);
    host.rkt(&["image", "list", "--fields=colour"]).refused(&["colour", "lastused"]);
    fs::write(stored(&host, &two, "manifest"), "{").unwrap();
    let damaged = host.rkt(&["image", "list"]);
    assert!(damaged.code == 254 && damaged.stdout.contains("example.com/one"), "{}", damaged.stdout);
    assert!(
        damaged.stderr.contains(&two) && damaged.stderr.contains("rkt image verify"),
        "{}",
        damaged.stderr
    );
    assert_eq!(Host::new().rkt(&["image", "list", "--format=json"]).success().stdout, "[]\n");
}

/// Whoever wins, each run has its image or says that it is not there, and nothing is left half removed.
#[test]
fn runs_fetches_and_removals_at_once() {
    if !is_root() {
        return;
    }
    let (host, path, _) = host();
    let lines: [&[&str]; 4] = [
        &["run", &path],
        &["fetch", &path],
        &["image", "gc", "--grace-period=0s"],
        &["image", "rm", "example.com/one"],
    ];
    for _ in 0..5 {
        let started: Vec<_> = (0..16)
            .map(|number| {
                let line = lines[number % lines.len()];
                let mut command = host.command(line);
                (line, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
            })
            .collect();
        for (line, process) in started {
            let done = finished(process.wait_with_output().unwrap());
            match line[0] {
                "run" => assert_eq!(done.code, 7, "{}", done.stderr),
                "image" if line[1] == "rm" => {
                    let is_good = done.code == 0 || done.stderr.contains("matches nothing");
                    assert!(is_good, "{}", done.stderr);
                }
                _ => assert_eq!(done.code, 0, "{line:?}: {}", done.stderr),
            }
        }
    }
    host.rkt(&["gc", "--grace-period=0s"]).success();
    host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert!(host.images().is_empty());
    assert!(fs::read_dir(host.data().join("cas/tmp")).unwrap().next().is_none());
}
