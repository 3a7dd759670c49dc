//! What only a VM pod has.

mod ends;
mod guest_images;
mod processor;
mod templates;

use std::time::Duration;

use serde_json::json;

use crate::harness::{Aci, BUSYBOX, Finished, Host, Process, image};

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

/// Four MiB at one a second take no less than that, but for the first tenth of a second's and one request.
#[test]
fn a_disk_moves_no_more_than_its_bandwidth() {
    let host = Host::empty();
    let script = "read a _ </proc/uptime; dd if=/dev/zero of=/x bs=64K count=64 conv=fsync 2>/dev/null; \
        read b _ </proc/uptime; echo $a $b";
    let isolators =
        json!([{ "name": "resource/block-bandwidth", "value": { "default": true, "limit": "1Mi" } }]);
    let exec = ["/bin/sh", "-c", script];
    let aci = Aci::new(json!({ "exec": exec, "user": "0", "group": "0", "isolators": isolators }), &[]);
    let finished = Process::start(&mut host.run(&[&aci.path()])).finish().success();
    let times: Vec<f64> = finished.text().split_whitespace().map(|time| time.parse().unwrap()).collect();
    let [before, after] = times[..] else { panic!("{times:?}") };
    let took = Duration::from_secs_f64(after - before);
    assert!(took >= Duration::from_millis(2500), "{took:?}");
}
