//! The disk of a VM pod: its size, and what it takes of the host's.

use std::os::unix::fs::MetadataExt;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1, wait_until};

fn with(options: &[&str], script: &str) -> Finished {
    let host = Host::new();
    let mut command = host.run(options);
    command.args([&image(BUSYBOX), "--exec=/bin/sh", "--", "-c", script]);
    Process::start(&mut command).finish()
}

/// The pod's disk as the apps see it, in MiB.
fn size_mib(options: &[&str]) -> u64 {
    let finished = with(options, "df -m / | tail -n 1 | awk '{ print $2 }'").success();
    finished.text().trim().parse().unwrap()
}

#[test]
fn it_is_as_large_as_was_asked_for() {
    if stage1() != "kvm" {
        return;
    }
    // What the file system has for itself is not there for the apps.
    for mib in [64, 300] {
        let seen = size_mib(&[&format!("--disk-space={mib}Mi")]);
        assert!((mib * 9 / 10..=mib).contains(&seen), "{seen} MiB of {mib}");
    }
    let full = with(
        &["--disk-space=64Mi"],
        "dd if=/dev/zero of=/fill bs=1M count=80; echo $?; rm /fill; echo x >/x && exit 7",
    );
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert_eq!((full.code, full.text().as_str()), (7, "1\n"));
}

#[test]
fn more_than_there_is() {
    if stage1() != "kvm" {
        return;
    }
    let finished = with(&["--disk-space=1Ti"], "exit 0").exited(254);
    for words in ["--disk-space", "1099511627776", "left: make room"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
}

#[test]
fn sizes_without_sense() {
    for size in ["16m", "1Mi", "2Ti", "much", "-1"] {
        let host = Host::new();
        let option = format!("--disk-space={size}");
        let finished = Process::start(&mut host.run(&[&option, &image(BUSYBOX)])).finish();
        assert!(matches!(finished.code, 2 | 254), "{size}: {} {}", finished.code, finished.stderr);
        assert!(host.pods().is_empty(), "{size}");
    }
}

/// Where nothing could hold an app to it, nothing starts.
#[test]
fn only_a_disk_has_a_size() {
    if stage1() == "kvm" {
        return;
    }
    for isolation in ["nspawn", "fly"] {
        let host = Host::new();
        let mut command = host.rkt();
        command.args(["run", &format!("--stage1={isolation}"), "--disk-space=1Gi", &image(BUSYBOX)]);
        let finished = Process::start(&mut command).finish().exited(254);
        for words in ["--disk-space", &format!("--stage1={isolation}"), "--stage1=kvm"] {
            assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
        }
        assert!(host.pods().is_empty());
    }
}

/// What an app has removed is the host's again while the app runs.
#[test]
fn what_is_removed_is_given_back() {
    if stage1() != "kvm" {
        return;
    }
    let host = Host::new();
    let script = "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; sync; echo written; exec sleep 1000";
    let mut pod = Process::start(&mut host.shell(&[], script));
    pod.wait_for_line("written");
    let scratch = host.pods()[0].join("scratch.ext4");
    let taken_mib = || (scratch.metadata().unwrap().blocks() * 512) >> 20;
    assert!(taken_mib() >= 200, "{} MiB", taken_mib());
    let mut remove = host.rkt();
    remove.args(["enter", &host.uuid(), "rm", "/big"]);
    Process::start(&mut remove).finish().success();
    wait_until("given back", || taken_mib() < 10);
    pod.signal(nix::sys::signal::Signal::SIGTERM);
    pod.finish();
}
