//! Images are imported once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::archive::{Archive, MANIFEST, gzip};
use crate::host::{Host, finished, is_root};

#[test]
fn eight_imports_at_once() {
    let host = Host::new();
    let data: Vec<u8> = (0u32..1 << 19).flat_map(u32::to_le_bytes).collect();
    let path = host.image("image", &Archive::good().file("rootfs/data", &data).end());
    // Another file with the same image: the loser finds the winner's.
    let packed = host.image("packed", &gzip(&fs::read(&path).unwrap()));
    let imports: Vec<_> = (0..8)
        .map(|n| {
            let path = if n % 2 == 0 { &path } else { &packed };
            let mut command = host.command(&["fetch", path]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let ids: Vec<String> = imports
        .into_iter()
        .map(|import| finished(import.wait_with_output().unwrap()).success().stdout.trim().to_owned())
        .collect();
    assert_eq!(host.images(), [ids[0].clone()]);
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!(fs::read_dir(host.data().join("cas/tmp")).unwrap().next().is_none());
}

#[test]
fn a_file_is_read_again_only_if_it_has_changed() {
    let host = Host::new();
    let path = host.image("image", &Archive::good().end());
    // The clock of files' times has to move on before a state of a file can be told from the next.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let id = host.rkt(&["fetch", &path]).success().stdout;
    let manifest = host.data().join("cas/images").join(id.trim()).join("manifest");
    let before = fs::metadata(&manifest).unwrap();
    let note = fs::read_dir(host.data().join("cas/sources")).unwrap().next().unwrap().unwrap();
    assert_eq!(fs::read_to_string(note.path()).unwrap(), id.trim());
    assert_eq!(host.rkt(&["fetch", &path]).success().stdout, id);
    assert_eq!(fs::metadata(&manifest).unwrap().ino(), before.ino());
    let changed = host.image("image", &Archive::good().file("rootfs/more", b"").end());
    assert_ne!(host.rkt(&["fetch", &changed]).success().stdout, id);
    assert_eq!(host.images().len(), 2);
    // A note without its image is none.
    fs::remove_dir_all(host.data().join("cas/images")).unwrap();
    host.rkt(&["fetch", &changed]).success();
    assert_eq!(host.images().len(), 1);
}

#[test]
fn images_by_id_and_name() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let path = host.image("image", &Archive::good().end());
    let id = host.rkt(&["fetch", &path]).success().stdout;
    // Of a SHA-512, an ID is the first half.
    let whole = format!("{}{}", id.trim(), "0".repeat(64));
    for image in [id.trim(), &id[..20], &id[..9], &whole, "example.com/test"] {
        assert_eq!(host.rkt(&["run", image]).code, 7, "{image}");
    }
    for little in ["sha512-", &id[..8]] {
        for command in [&["run", little][..], &["image", "rm", little], &["image", "cat-manifest", little]] {
            host.rkt(command).refused(&["too little", "two of its digits"]);
        }
    }
    for digit in ['1', '2'] {
        let other = format!("sha512-ffff{}", digit.to_string().repeat(60));
        std::fs::create_dir(host.data().join("cas/images").join(other)).unwrap();
    }
    host.rkt(&["image", "rm", "sha512-ffff"]).refused(&["2 images", "begin with sha512-ffff"]);
    host.rkt(&["image", "rm", "sha512-ffff1"]).success();
    host.rkt(&["fetch", id.trim()]).refused(&["ID", "rkt fetch takes files"]);
    host.rkt(&["run", &id[..10].replace(&id[7..10], "zzz")]).refused(&["rkt image list"]);
    host.rkt(&["run", "example.com/test:v9"]).refused(&["example.com/test:v9", "matches nothing"]);
    let list = host.rkt(&["image", "list", "--full", "--no-legend"]).success().stdout;
    assert!(list.starts_with(id.trim()) && list.contains("example.com/test"), "{list}");
}

/// Imports an image of a name and a version.
fn fetch(host: &Host, name: &str, version: &str) -> String {
    let version_label = format!(r#""amd64"}},{{"name":"version","value":"{version}"}}"#);
    let manifest = MANIFEST.replace("example.com/test", name).replace(r#""amd64"}"#, &version_label);
    let path = host.image(&format!("{}-{version}", name.replace('/', "-")), &Archive::aci(&manifest).end());
    host.rkt(&["fetch", &path]).success().stdout.trim().to_owned()
}

#[test]
fn names_lead_to_images() {
    let host = Host::new();
    let one = fetch(&host, "example.com/a", "1");
    let two = fetch(&host, "example.com/a", "2");
    let other = fetch(&host, "example.com/b", "1");
    let manifest_of = |image: &str| host.rkt(&["image", "cat-manifest", image]).success().stdout;
    for (name, id) in [
        ("example.com/a:1", &one),
        ("example.com/a,version=1", &one),
        ("example.com/a:2,os=linux,arch=amd64", &two),
        ("example.com/a", &two),
        ("example.com/b", &other),
    ] {
        assert_eq!(manifest_of(name), manifest_of(id), "{name}");
    }
    for (name, word) in [
        ("example.com/a:3", "matches nothing"),
        ("example.com/a:1,os=plan9", "matches nothing"),
        ("example.com/c", "matches nothing"),
        ("example.com/a:1,version=2", "twice"),
        ("docker://a", "not there yet"),
        ("/etc/passwd", "is a file"),
    ] {
        host.rkt(&["image", "cat-manifest", name]).refused(&[word]);
    }
    fs::create_dir_all(host.data().join("example.com/b")).unwrap();
    let mut command = host.command(&["image", "cat-manifest", "example.com/b"]);
    assert_eq!(
        finished(command.current_dir(host.data()).output().unwrap()).success().stdout,
        manifest_of(&other)
    );
    let names = host.data().join("cas/names");
    let count =
        || fs::read_dir(&names).unwrap().map(|name| fs::read_dir(name.unwrap().path()).unwrap().count());
    assert_eq!((count().count(), count().sum::<usize>()), (2, 3));
    // A name without its image is none, and goes with the next that is removed.
    fs::remove_dir_all(host.data().join("cas/images").join(&two)).unwrap();
    assert_eq!(manifest_of("example.com/a"), manifest_of(&one));
    host.rkt(&["image", "rm", "example.com/b"]).success();
    assert_eq!((count().count(), count().sum::<usize>()), (1, 1));
    // A store from before there were names.
    fs::remove_dir_all(&names).unwrap();
    assert_eq!(manifest_of("example.com/a:1"), manifest_of(&one));
    assert_eq!(count().sum::<usize>(), 1);
    fs::remove_dir_all(&names).unwrap();
    let new = fetch(&host, "example.com/c", "1");
    assert_eq!(manifest_of("example.com/a:1"), manifest_of(&one));
    assert_eq!(manifest_of("example.com/c"), manifest_of(&new));
}

#[test]
fn what_a_killed_import_leaves_is_cleared() {
    let host = Host::new();
    let path = host.image("image", &Archive::good().end());
    host.rkt(&["fetch", &path]).success();
    let abandoned = host.data().join("cas/tmp/abandoned");
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("image.erofs"), "half").unwrap();
    host.rkt(&["gc"]).success();
    assert!(!abandoned.exists());
    assert_eq!(host.images().len(), 1);
}

#[test]
fn unsigned_images_need_consent() {
    let host = Host::new();
    let path = host.image("image", &Archive::good().end());
    let mut commands = vec!["fetch"];
    commands.extend(is_root().then_some("run"));
    for (command, options) in commands.into_iter().flat_map(|c| [(c, "none"), (c, "paths,ondisk")]) {
        let mut rkt = std::process::Command::new(host.path("bin/rkt"));
        rkt.arg("--dir").arg(host.data()).arg(format!("--insecure-options={options}")).args([command, &path]);
        crate::host::finish(&mut rkt).refused(&[&path, "--insecure-options=image"]);
    }
    assert!(!host.data().exists());
}
