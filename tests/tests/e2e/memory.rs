//! Where the memory of a VM pod is: what the host gives, what it gets back, and what is told of it.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{BUSYBOX, Host, Process, image, stage1, wait_until};

const MIB: u64 = 1 << 20;

fn measure(host: &Host) -> Value {
    let mut command = host.rkt();
    let finished =
        Process::start(command.args(["status", &host.uuid(), "--stats", "--format=json"])).finish();
    serde_json::from_str(&finished.success().text()).unwrap()
}

fn resident(statistics: &Value) -> u64 {
    statistics["guest"]["resident_bytes"].as_u64().unwrap_or_else(|| panic!("{statistics}"))
}

/// The same by other means: all anonymous memory of the VMM, in `/proc/PID/status`.
fn anonymous(statistics: &Value) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", statistics["vmm"]["pid"])).unwrap();
    let row = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    row.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn agree(statistics: &Value) -> bool {
    anonymous(statistics).abs_diff(resident(statistics)) < 16 * MIB
}

/// Lets a script go on that waits for the file `name`.
fn permit(host: &Host, name: &str) {
    let (path, uuid) = (format!("/{name}"), host.uuid());
    Process::start(host.rkt().args(["enter", &uuid, "/bin/touch", &path])).finish().success();
}

#[test]
fn what_a_pod_frees_goes_back_to_the_host() {
    if stage1() != "kvm" {
        return;
    }
    let host = Host::new();
    // dd holds a block in memory until somebody takes it.
    let script = "wait_for() { until [ -e $1 ]; do sleep 1; done; }; \
        echo idle; wait_for /fill; \
        dd if=/dev/zero bs=200M count=1 2>/dev/null | { head -c 1 >/dev/null; echo filled; wait_for /free; cat >/dev/null; }; \
        echo freed; wait_for /again; \
        yes rkt | dd bs=64M count=1 iflag=fullblock 2>/dev/null | md5sum; exec sleep 1000";
    let mut pod = Process::start(&mut host.shell(&["--memory=1Gi"], script));
    pod.wait_for_line("idle");
    let idle = measure(&host);
    let guest = &idle["guest"];
    assert_eq!(guest["limit_bytes"], 1024 * MIB, "{idle}");
    // A 64th of the image, too, in steps of 16 MiB.
    assert_eq!(guest["ram_bytes"], (1024 + 16 + 48 + 1_u64).next_multiple_of(16) * MIB, "{idle}");
    assert!(resident(&idle) > 2 * MIB && resident(&idle) < 64 * MIB && agree(&idle), "{idle}");
    assert!(guest["kernel_bytes"].as_u64() > Some(8 * MIB), "{idle}");
    assert!(guest["kernel_bytes"].as_u64() < Some(64 * MIB), "{idle}");
    assert!(idle["vmm"]["own_bytes"].as_u64() > Some(100 << 10), "{idle}");
    assert!(idle["vmm"]["own_bytes"].as_u64() < Some(8 * MIB), "{idle}");

    permit(&host, "fill");
    pod.wait_for_line("filled");
    let filled = measure(&host);
    assert!(resident(&filled) > 200 * MIB && agree(&filled), "{filled}");
    assert!(filled["apps"][0]["memory"]["current_bytes"].as_u64() > Some(200 * MIB), "{filled}");

    permit(&host, "free");
    pod.wait_for_line("freed");
    wait_until("the host has the memory back", || resident(&measure(&host)) < 100 * MIB);
    let freed = measure(&host);
    assert!(agree(&freed), "{freed}");

    permit(&host, "again");
    let mut here = Command::new("sh");
    let sum = Process::start(here.args(["-c", "yes rkt | head -c 64M | md5sum"])).finish().success().text();
    pod.wait_for_line(sum.trim_end());
    pod.signal(Signal::SIGTERM);
    pod.finish();
}

/// The host's cgroup holds all processes of a VM, and what they may use.
#[test]
fn a_vm_is_in_its_pods_cgroup() {
    if stage1() != "kvm" {
        return;
    }
    let host = Host::new();
    let mut command = host.run(&[&image(BUSYBOX), "--cpu=1500m", "--memory=64Mi"]);
    let mut pod = Process::start(command.args(["--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 1000"]));
    pod.wait_for_line("ready");
    let statistics = measure(&host);
    let record = fs::read_to_string(host.pods().remove(0).join("subcgroup")).unwrap();
    let read =
        |file: &str| record.lines().find_map(|cgroup| fs::read_to_string(format!("{cgroup}/vm/{file}")).ok());
    let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes")).unwrap();
    let ram = statistics["guest"]["ram_bytes"].as_u64().unwrap();
    let expected = ram + ram / 64 + 128 * MIB;
    assert_eq!(limit.trim(), expected.to_string());
    let processes = read("cgroup.procs").unwrap();
    let has = |process: &str| processes.lines().any(|line| line == process);
    assert!(has(&pod.pid().to_string()) && has(&statistics["vmm"]["pid"].to_string()), "{processes}");
    let used = statistics["pod"]["memory"]["current_bytes"].as_u64();
    assert!(used > Some(4 * MIB) && used < Some(expected), "{statistics}");
    let address_space = fs::read_to_string(format!("/proc/{}/limits", statistics["vmm"]["pid"])).unwrap();
    let row = address_space.lines().find_map(|line| line.strip_prefix("Max address space")).unwrap();
    let most: u64 = row.split_whitespace().next().unwrap().parse().unwrap();
    assert!(most > ram && most < ram + 1024 * MIB, "{most}");
    pod.signal(Signal::SIGTERM);
    pod.finish();
}
