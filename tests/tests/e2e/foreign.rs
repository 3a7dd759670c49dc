//! A stage1 of somebody's: an image with scripts that speak the interface, and change the root for an app. Every version of the interface
//! is tested with `rkt` alone; here one runs a program.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Aci, Entry, Finished, Host, Process, stage1};

/// The pod's directory is the working directory; the last argument of all but `enter` is its UUID.
const INIT: &[u8] = br#"#!/bin/sh
echo $$ >ppid
root=stage1/rootfs/opt/stage2/ace/rootfs
stage1/rootfs/bin/busybox chroot $root /bin/app &
trap 'kill $!' TERM
wait $!; status=$?
test $status -le 128 || { trap '' TERM; wait $!; status=$?; }
echo $status >stage1/rootfs/rkt/status/ace
exit $status
"#;
const ENTER: &[u8] = br#"#!/bin/sh
test "$(cat /proc/${1#--pid=}/comm)" = app || exit 99
shift 3
exec stage1/rootfs/bin/busybox chroot stage1/rootfs/opt/stage2/ace/rootfs "$@"
"#;
const STOP: &[u8] = b"#!/bin/sh\nkill -TERM $(cat ppid)\n";
const GC: &[u8] = b"#!/bin/sh\nfor uuid; do :; done\necho $uuid >>../../../collected\n";
const APP: &[u8] = b"#!/bin/sh\ntrap 'exit 42' TERM\necho up\nwhile :; do sleep 0.05; done\n";

fn image() -> Aci {
    let programs = [("run", "init"), ("enter", "enter"), ("stop", "stop"), ("gc", "gc")];
    let annotations = programs.map(
        |(name, file)| json!({"name": format!("coreos.com/rkt/stage1/{name}"), "value": format!("/{file}")}),
    );
    let files = [("init", INIT), ("enter", ENTER), ("stop", STOP), ("gc", GC)];
    let files = files.map(|(name, content)| Entry::program(name, content));
    Aci::annotated(Value::Null, json!(annotations), &files)
}

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

#[test]
fn a_pod_lives_and_ends() {
    if stage1() == "kvm" {
        return; // it is neither
    }
    let (host, ours) = (Host::empty(), image());
    let app =
        Aci::new(json!({"exec": ["/bin/app"], "user": "0", "group": "0"}), &[Entry::program("bin/app", APP)]);
    let flag = format!("--stage1={}", ours.path());
    let mut pod = Process::start(host.rkt().args(["run", &flag, &app.path()]));
    pod.wait_for_line("up");
    let uuid = host.uuid();
    let status = rkt(&host, &["status", &uuid]).success().text();
    assert!(status.starts_with("state=running\n"), "{status}");
    let entered = rkt(&host, &["enter", &uuid, "/bin/ls", "/bin/app"]).success().text();
    assert_eq!(entered, "/bin/app\n");
    rkt(&host, &["stop", &uuid]).success();
    pod.finish().exited(42);
    let status = rkt(&host, &["status", &uuid]).success().text();
    assert!(status.contains("state=exited\n") && status.contains("app-ace=42\n"), "{status}");
    rkt(&host, &["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(rkt(&host, &["image", "list", "--no-legend"]).success().text().lines().count(), 2);
    host.collect_garbage().success();
    assert!(host.pods().is_empty());
    assert_eq!(fs::read_to_string(host.path().join("collected")).unwrap().trim(), uuid);
    fs::remove_file(host.path().join("collected")).unwrap();
    rkt(&host, &["image", "gc", "--grace-period=0s"]).success();
    assert!(rkt(&host, &["image", "list", "--no-legend"]).success().text().is_empty());
}
