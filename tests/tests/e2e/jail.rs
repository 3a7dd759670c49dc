//! The process of a pod's machine, as the host sees it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Host, Process, image, stage1};

/// The only child of a pod's parent.
fn machine_of(parent: nix::unistd::Pid) -> PathBuf {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 1, "{children:?}");
    Path::new("/proc").join(children[0])
}

/// A `status` file by its titles.
fn status(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(title, value)| (title.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn the_machine_runs_with_nothing_to_open_and_nobody_to_reach() {
    if stage1() != "kvm" {
        return;
    }
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], "echo ready; exec sleep 1000"));
    pod.wait_for_line("ready");
    let machine = machine_of(pod.pid());

    let threads: Vec<PathBuf> =
        fs::read_dir(machine.join("task")).unwrap().map(|thread| thread.unwrap().path()).collect();
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in &threads {
        let status = status(&thread.join("status"));
        for (title, expected) in [
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("Groups", ""),
        ] {
            assert_eq!(status[title], expected, "{title} of {}", status["Name"]);
        }
        for title in ["Uid", "Gid"] {
            assert!(status[title].split_whitespace().all(|id| id != "0"), "{title}: {}", status[title]);
        }
    }

    for namespace in ["pid", "mnt", "net", "ipc", "uts"] {
        let of = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&machine), of(Path::new("/proc/self")), "{namespace}");
    }
    assert_eq!(fs::read_dir(machine.join("root")).unwrap().count(), 0, "its root is empty");

    for descriptor in fs::read_dir(machine.join("fd")).unwrap().map(|entry| entry.unwrap().path()) {
        let opened = fs::metadata(&descriptor).unwrap();
        assert!(!opened.is_dir() && !opened.file_type().is_block_device(), "{descriptor:?}");
    }
    pod.signal(Signal::SIGKILL);
    pod.finish();
    crate::harness::wait_until("the machine is gone", || !machine.exists());
    host.collect_garbage().success();
}

/// At its end each processor is got out of the guest, and the report passes the filters, too.
#[test]
fn the_machine_tells_how_it_went() {
    if stage1() != "kvm" {
        return;
    }
    let busybox = image(BUSYBOX);
    let host = Host::new();
    let mut command = host.run(&["--timeline", &busybox, "--cpu=2", "--exec=/bin/true"]);
    let finished = Process::start(&mut command).finish().success();
    for mark in ["vmm-ready", "template-entry", "init", "supervisor-ready"] {
        assert!(finished.stderr.contains(mark), "{mark}: {}", finished.stderr);
    }
}
