//! `rkt stop`, from the command line to the stage1's entrypoint.

use std::fs;

use crate::host::{Host, is_root};
use crate::pods::{run, running};

#[test]
fn the_entrypoint_is_called_by_its_interface() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (uuid, pod, _lock) = running(&host);
    let stopped = host.rkt(&["stop", &uuid[..8]]).success().stdout;
    assert!(stopped.contains(&format!("arguments: {uuid}\ndirectory: {}\n", pod.display())), "{stopped}");
    assert!(stopped.ends_with(&format!("\"{uuid}\"\n")), "{stopped}");
    let file = host.path("uuid");
    fs::write(&file, format!("{uuid}\n")).unwrap();
    let file = format!("--uuid-file={}", file.display());
    let forced = host.rkt(&["stop", "--force", &file]).success().stdout;
    assert!(forced.contains(&format!("arguments: --force {uuid}\n")), "{forced}");

    // A stage1 that has no such entrypoint, and one whose entrypoint fails.
    let manifest = pod.join("stage1/manifest");
    let whole = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, whole.replace("rkt/stage1/stop", "rkt/stage1/other")).unwrap();
    host.rkt(&["stop", &uuid]).refused(&["stop: ", &uuid, "no stop entrypoint"]);
    fs::write(&manifest, whole.replace("\"/stop\"", "\"/init\"")).unwrap();
    host.rkt(&["stop", &uuid]).refused(&["could not stop", "7"]);
}

#[test]
fn what_cannot_be_stopped() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let stopped = host.rkt(&["stop", &uuid]).success().stdout;
    assert_eq!(stopped, format!("pod \"{uuid}\" is already stopped\n"));
    // What follows a failure is still stopped.
    let mixed = host.rkt(&["stop", "zzz", &uuid]);
    assert!(mixed.stdout.contains("already stopped"), "{}", mixed.stdout);
    mixed.refused(&["stop: no matches found for \"zzz\""]);
    host.rkt(&["stop"]).refused(&["stop: ", "UUID"]);
    host.rkt(&["stop", "--uuid-file=/nowhere", &uuid]).refused(&["cannot be used with"]);
    let unreadable = host.rkt(&["stop", "--uuid-file=/nowhere"]);
    assert!(unreadable.code == 1 && unreadable.stderr.contains("/nowhere"), "{}", unreadable.stderr);
}
