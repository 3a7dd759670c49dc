//! `--ipc`: whose shared memory and message queues the apps have.

use std::fs;
use std::path::Path;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1};

/// Tells the namespace, and what is in shared memory; writes there.
fn run(host: &Host, flags: &[&str], name: &str) -> Finished {
    let script =
        format!("readlink /proc/self/ns/ipc; cat /dev/shm/{name} 2>/dev/null; echo pod >/dev/shm/{name}");
    let (busybox, rest) = (image(BUSYBOX), ["--exec=/bin/sh", "--", "-c", script.as_str()]);
    Process::start(&mut host.run(&[flags, &[busybox.as_str()], &rest].concat())).finish()
}

#[test]
fn the_pods_own_or_the_parents() {
    if !Path::new("/dev/shm").is_dir() {
        eprintln!("not tested: this host has no /dev/shm");
        return;
    }
    let host = Host::new();
    let shared = tempfile::Builder::new().prefix("rkt-ipc-").tempfile_in("/dev/shm").unwrap();
    fs::write(shared.path(), "host\n").unwrap();
    let name = shared.path().file_name().unwrap().to_str().unwrap();
    let own = format!("{}\n", fs::read_link("/proc/self/ns/ipc").unwrap().display());
    for flags in [&[][..], &["--ipc=auto"], &["--ipc=private"]] {
        let text = run(&host, flags, name).success().text();
        // The first namespaces of all kernels have the same number.
        let is_own = stage1() == "kvm" || text != own;
        assert!(is_own && text.starts_with("ipc:[") && text.lines().count() == 1, "{text}");
    }
    assert_eq!(fs::read_to_string(shared.path()).unwrap(), "host\n");
    let finished = run(&host, &["--ipc=parent"], name);
    if stage1() == "kvm" {
        assert!(finished.exited(254).stderr.contains("--ipc=parent is not possible"));
        return;
    }
    assert_eq!(finished.success().text(), format!("{own}host\n"));
    assert_eq!(fs::read_to_string(shared.path()).unwrap(), "pod\n");
}

#[test]
fn what_cannot_be() {
    let host = Host::new();
    let refused = run(&host, &["--ipc=host"], "x").exited(254).stderr;
    assert!(refused.contains("auto, private or parent"), "{refused}");
    if stage1() == "nspawn" {
        let refused = run(&host, &["--ipc=parent", "--private-users"], "x").exited(254).stderr;
        assert!(refused.contains("not possible with --private-users"), "{refused}");
    }
    assert!(host.pods().is_empty());
}
