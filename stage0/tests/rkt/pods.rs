//! Pods after their end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::host::{Host, is_root};

/// A pod that has ended.
pub fn run(host: &Host) -> String {
    let path = host.image("image.aci", &Archive::good().end());
    assert_eq!(host.rkt(&["run", &path]).code, 7);
    let pods = host.pods("run");
    pods.first().unwrap().clone()
}

/// A pod that runs as long as the lock is kept, and its directory.
pub fn running(host: &Host) -> (String, PathBuf, File) {
    let uuid = run(host);
    let pod = host.data().join("pods/run").join(&uuid);
    let lock = lock(&pod);
    (uuid, pod, lock)
}

/// Takes a pod's lock.
pub fn lock(pod: &Path) -> File {
    let lock = File::open(pod).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn two_runs_of_gc() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let list = host.rkt(&["list"]).success().stdout;
    for word in [&uuid[..8], "test", "example.com/test", "exited"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    assert!(host.rkt(&["gc", "--mark-only"]).success().stderr.contains(&uuid));
    assert_eq!(host.pods("exited-garbage"), [uuid.as_str()]);
    assert!(host.rkt(&["gc"]).success().stderr.contains("grace period"));
    assert!(host.rkt(&["list", "--full"]).success().stdout.contains(&uuid));
    let finished = host.rkt(&["gc", "--grace-period=0s"]).success();
    assert!(finished.stdout.contains(&format!("Garbage collecting pod \"{uuid}\"")), "{}", finished.stdout);
    assert!(host.pods("exited-garbage").is_empty());
}

#[test]
fn rm() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    host.rkt(&["rm", "zzz"]).refused(&["no matches found for \"zzz\""]);
    let lock = fs::File::open(host.data().join("pods/run").join(&uuid)).unwrap();
    lock.lock().unwrap();
    host.rkt(&["rm", &uuid]).refused(&["running"]);
    host.rkt(&["gc", "--grace-period=0s"]).success();
    assert_eq!(host.pods("run"), [uuid.as_str()]);
    // Not only here: a process that another test starts just now may have it, too.
    lock.unlock().unwrap();
    assert!(host.rkt(&["rm", &uuid[..8]]).success().stdout.contains(&format!("\"{uuid}\"\n")));
    assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
}

#[test]
fn half_a_pod_is_listed_and_removed() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = "11111111-2222-4333-8444-555555555555";
    fs::create_dir_all(host.data().join("pods/run").join(uuid)).unwrap();
    fs::write(host.data().join("pods/run").join(uuid).join("pod"), "").unwrap();
    assert!(host.rkt(&["list"]).success().stdout.contains("11111111  -"));
    host.rkt(&["rm", "1111"]).success();
    assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
}

#[test]
fn a_pod_without_apps_is_listed() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    assert_eq!(host.rkt(&["app", "sandbox"]).code, 7);
    let list = host.rkt(&["list", "--no-legend"]).success().stdout;
    let words: Vec<&str> = list.split_whitespace().collect();
    assert_eq!(words[1..4], ["-", "-", "exited"], "{list}");
}
