//! What only a VM pod has.

mod guest_images;
mod processor;

use crate::harness::{BUSYBOX, Finished, Host, Process, image};

fn with(options: &[&str], script: &str) -> Finished {
    Process::start(&mut Host::new().shell(options, script)).finish()
}

#[test]
fn a_kernel_of_its_own() {
    let inside = with(&[], "uname -r").success().text();
    let outside = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(inside.starts_with("6.12."), "{inside}");
    assert_ne!(inside, outside);
}

#[test]
fn a_cpu_for_each_core_or_part_of_one() {
    for (cpu, processors) in
        [("--cpu=500m", "1\n"), ("--cpu=1", "1\n"), ("--cpu=1500m", "2\n"), ("--cpu=4", "4\n")]
    {
        assert_eq!(with(&[cpu], "nproc").success().text(), processors, "{cpu}");
    }
}

#[test]
fn memory_as_the_limit_has_it() {
    for mib in [128, 1024] {
        let option = format!("--memory={mib}Mi");
        let total =
            with(&[&option], "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo").success().text();
        let total: u64 = total.trim().parse().unwrap();
        assert!((mib..mib + 64).contains(&total), "{total} MiB for {option}");
    }
}

#[test]
fn the_hosts_network_is_not_a_guests() {
    let host = Host::new();
    let finished = Process::start(&mut host.run(&["--net=host", &image(BUSYBOX)])).finish().exited(254);
    assert!(finished.stderr.contains("--net=host is not possible with --stage1=kvm"), "{}", finished.stderr);
    assert!(host.pods().is_empty());
}

#[test]
fn more_cpus_than_a_guest_can_have() {
    let finished = with(&["--cpu=33"], "exit 0").exited(254);
    assert!(finished.stderr.contains("32"), "{}", finished.stderr);
}
