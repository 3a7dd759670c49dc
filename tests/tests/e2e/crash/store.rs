//! Images come, go, and are made again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use serde_json::json;

use super::{Points, Scenario, Victims, examine, rkt};
use crate::harness::{Aci, BUSYBOX, Entry, Host, image, stage1};

/// Of one process, at all points.
fn crash(name: &str, begin: impl Fn() -> (Host, Command)) {
    // The store is the same whatever the isolation.
    if stage1() == "nspawn" {
        Scenario { name, victims: Victims::All, points: Points::All }.crash(begin, examine);
    }
}

fn command(host: Host, arguments: &[&str]) -> (Host, Command) {
    let mut command = host.rkt();
    command.args(arguments);
    (host, command)
}

#[test]
fn an_import() {
    for name in [BUSYBOX, "busybox-oci.tar"] {
        crash(&format!("fetch {name}"), || command(Host::empty(), &["fetch", &image(name)]));
    }
}

#[test]
fn a_removal() {
    crash("image rm", || command(Host::new(), &["image", "rm", "example.com/busybox"]));
    crash("image gc", || command(Host::new(), &["image", "gc", "--grace-period=0s"]));
}

#[test]
fn a_repair() {
    crash("image verify", || {
        let host = Host::empty();
        let id = rkt(&host, &["fetch", &image(BUSYBOX)]).success().text();
        let path = host.path().join("cas/images").join(id.trim()).join("image.erofs");
        File::options().write(true).open(path).unwrap().write_all_at(b"damage", 70_000).unwrap();
        command(host, &["image", "verify", id.trim()])
    });
}

#[test]
fn an_image_with_dependencies() {
    let app = json!({ "exec": ["/bin/true"], "user": "0", "group": "0" });
    let aci = Aci::above("example.com/busybox", app, &[Entry::program("more", b"")]);
    crash("prepare with dependencies", || {
        let host = Host::new();
        rkt(&host, &["fetch", &aci.path()]).success();
        command(host, &["prepare", "--stage1=nspawn", "example.com/ace"])
    });
}
