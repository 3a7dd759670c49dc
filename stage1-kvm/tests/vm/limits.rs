//! What resource/cpu and resource/memory do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::pod::{Pod, Running, limited, needs_kvm, shell, text};

fn total_kib(pod: &Pod) -> u64 {
    let output = pod.run();
    let stdout = text(&output.stdout);
    stdout.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_else(|| panic!("{output:?}"))
}

#[test]
fn memory_is_the_guests() {
    needs_kvm!();
    let script = "grep MemTotal /proc/meminfo";
    let small = total_kib(&Pod::new().with("app", limited(script, "resource/memory", "64Mi")));
    assert!((64 << 10..(64 + 48) << 10).contains(&small), "{small} KiB");
    let default = total_kib(&shell(script));
    assert!((512 << 10..(512 + 56) << 10).contains(&default), "{default} KiB");
}

#[test]
fn an_app_beyond_its_memory_is_killed() {
    needs_kvm!();
    let pod = Pod::new().with("app", limited("exec tail /dev/zero", "resource/memory", "32Mi"));
    assert_eq!(pod.run().status.code(), Some(137));
}

#[test]
fn vcpus_are_rounded_up_and_a_part_of_one_is_a_quota() {
    needs_kvm!();
    let directory = Pod::new().with("app", limited("nproc; read line", "resource/cpu", "1500m"));
    let mut command = directory.command(&[]);
    let mut pod = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "2\n");
    let record = fs::read_to_string(directory.path("subcgroup")).unwrap();
    let cgroup = PathBuf::from(record.trim()).join("vm");
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    // Beside it there may be what the kernel does for KVM.
    assert!(procs.lines().any(|process| process == pod.0.id().to_string()), "{procs}");
    let quota = fs::read_to_string(cgroup.join("cpu.max"))
        .or_else(|_| fs::read_to_string(cgroup.join("cpu.cfs_quota_us")))
        .unwrap();
    assert!(quota.starts_with("150000"), "{quota}");
    drop(pod.0.stdin.take());
    assert_eq!(pod.exit_code(), 1, "read finds the end");
    assert!(!cgroup.exists());
}
