//! File systems: the root, what Linux apps must find in it, and that each run gets a clean copy.

use serde_json::json;

use super::run_at;
use crate::harness::{Aci, BUSYBOX, Entry, Host, Process, image};

/// Read-only means the image; the kernel's file systems and the devices are there all the same.
#[test]
fn a_read_only_root() {
    let host = Host::new();
    let script = "exec 2>&1; (: >/made); (: >/srv/made); (: >/tmp/made); : >/dev/shm/made && echo shm; : </dev/zero && echo zero";
    let output = Process::start(&mut host.shell(&["--readonly-rootfs"], script)).finish().text();
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
    assert!(output.ends_with("shm\nzero\n"), "{output}");
}

#[test]
fn each_run_gets_a_clean_copy() {
    let host = Host::empty();
    let script =
        "cat /srv/kept/file; ls /srv; echo changed >/srv/kept/file; : >/srv/made; cat /srv/kept/file";
    let app = json!({ "exec": ["/bin/sh", "-c", script], "user": "0", "group": "0" });
    let first = run_at(&host, app.clone(), &[], &[]).success().text();
    assert!(first.ends_with("changed\n") && !first.contains("made"), "{first}");
    assert_eq!(run_at(&host, app, &[], &[]).success().text(), first);
}

/// OS-SPEC: "must be made available in each application's filesystem".
#[test]
fn devices_and_file_systems_of_linux() {
    let script = "for d in null zero full random urandom tty ptmx; do [ -c /dev/$d ] || echo no $d; done; \
        [ -e /dev/console ] || [ -L /dev/console ] || echo no console; \
        for m in 'proc /proc' 'sysfs /sys' 'devpts /dev/pts' 'tmpfs /dev/shm'; do \
            grep -q \" ${m#* } ${m% *} \" /proc/mounts || echo not mounted: $m; \
        done; echo done";
    for options in [&[][..], &["--user=1000", "--group=2000"][..]] {
        let host = Host::new();
        assert_eq!(Process::start(&mut host.shell(options, script)).finish().success().text(), "done\n");
    }
}

/// They are made, with the directories above them, root's and 0755; what was there is hidden, not lost.
#[test]
fn targets_of_volumes() {
    let host = Host::new();
    let volumes = ["made/deep/v", "srv/kept"].map(|target| format!("--mount=volume=v,target=/{target}"));
    let volume = "--volume=v,kind=empty,mode=0700,uid=7,gid=8";
    let script = "umask; stat -c '%a %u %g' /made /made/deep /made/deep/v /srv/kept; ls /srv/kept | wc -l";
    let busybox = image(BUSYBOX);
    let mut command = host.run(&[volume, &busybox, &volumes[0], &volumes[1], "--exec=/bin/sh"]);
    let output = Process::start(command.args(["--", "-c", script])).finish().success().text();
    assert_eq!(output, "0022\n755 0 0\n755 0 0\n700 7 8\n700 7 8\n0\n");
    let output = Process::start(&mut host.shell(&[], "ls /srv/kept | wc -l")).finish().success().text();
    assert_ne!(output, "0\n");
}

/// The image's own files are above those of what it depends on, and it is its app that runs.
#[test]
fn what_an_image_depends_on_is_below_it() {
    let host = Host::empty();
    let entries = [
        Entry::program("srv/kept/file", b"above\n"),
        Entry::program("bin/tell", b"#!/bin/sh\ncat /srv/kept/file\n"),
    ];
    let app = json!({ "exec": ["/bin/tell"], "user": "0", "group": "0" });
    let aci = Aci::above("example.com/busybox", app, &entries);
    let refused = Process::start(&mut host.run(&[&aci.path()])).finish().exited(254);
    assert!(
        refused.stderr.contains("depends on example.com/busybox, which is not in the store"),
        "{}",
        refused.stderr
    );
    Process::start(host.rkt().args(["fetch", &image(BUSYBOX)])).finish().success();
    assert_eq!(Process::start(&mut host.run(&[&aci.path()])).finish().success().text(), "above\n");
    let missing = Process::start(&mut host.run(&[&aci.path(), "--exec=/no/such"])).finish().exited(254);
    assert!(missing.stderr.contains("/no/such is not in the image"), "{}", missing.stderr);
}
