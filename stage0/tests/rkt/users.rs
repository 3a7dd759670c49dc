//! What users may do who are not root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use crate::archive::Archive;
use crate::host::{Finished, Host, finish, is_root};

const NOBODY: u32 = 65534;
const GROUP: u32 = 12345;

/// What a user gets who is in this group and no other.
fn as_nobody(host: &Host, group: u32, arguments: &[&str]) -> Finished {
    finish(host.command(arguments).uid(NOBODY).gid(group))
}

/// A data directory that the group may look into, with an image and a pod, and the pod's UUID.
fn host() -> (Host, String, String) {
    let host = Host::new();
    fs::create_dir(host.data()).unwrap();
    chown(host.data(), None, Some(GROUP)).unwrap();
    for (path, mode) in [(host.data(), 0o2750), (host.path("."), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let image = host.image("image.aci", &Archive::good().end());
    let uuid = host.rkt(&["prepare", "--quiet", &image]).success().stdout.trim().to_owned();
    (host, image, uuid)
}

#[test]
fn a_group_may_look_and_nothing_else() {
    if !is_root() {
        return;
    }
    let (host, image, uuid) = host();
    let own = host.path("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), None).unwrap();
    let exported = own.join("exported.aci");
    let looks: [&[&str]; 6] = [
        &["list", "--full"],
        &["status", &uuid],
        &["cat-manifest", &uuid],
        &["image", "list"],
        &["image", "cat-manifest", "example.com/test"],
        &["image", "export", "--overwrite", "example.com/test", exported.to_str().unwrap()],
    ];
    for line in looks {
        assert!(as_nobody(&host, GROUP, line).success().stderr.is_empty(), "{line:?}");
        as_nobody(&host, NOBODY, line).refused(&["Permission denied"]);
    }
    as_nobody(&host, GROUP, &["fetch", &image]).refused(&["Permission denied"]);
    as_nobody(&host, GROUP, &["image", "rm", "example.com/test"]).refused(&["Permission denied"]);
    assert_eq!((host.images().len(), host.pods("prepared").len()), (1, 1));
}

#[test]
fn pods_are_roots() {
    if !is_root() {
        return;
    }
    let (host, image, uuid) = host();
    let lines: [&[&str]; 11] = [
        &["run", &image],
        &["prepare", &image],
        &["run-prepared", &uuid],
        &["app", "sandbox"],
        &["enter", &uuid],
        &["attach", &uuid],
        &["gc"],
        &["rm", &uuid],
        &["export", &uuid, "x.aci"],
        &["app", "add", &uuid, &image],
        &["port-forward", &uuid, "80"],
    ];
    for line in lines {
        let finished = as_nobody(&host, GROUP, line);
        assert!(finished.stderr.contains("cannot run as unprivileged user"), "{line:?}: {}", finished.stderr);
        assert_eq!(finished.code, if line == ["app", "sandbox"] { 1 } else { 254 }, "{line:?}");
    }
}
