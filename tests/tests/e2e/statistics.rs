//! What pods use: `rkt status --stats`, and what is told of the kernel's kills.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{BUSYBOX, Host, Process, image, stage1};

fn status(host: &Host, options: &[&str]) -> String {
    Process::start(host.rkt().args(["status", &host.uuid()]).args(options)).finish().success().text()
}

#[test]
fn of_a_running_pod() {
    let host = Host::new();
    let busybox = image(BUSYBOX);
    let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo burnt; sleep 1000";
    let mut command =
        host.run(&[&busybox, "--name=burner", "--memory=96Mi", "--pids=99", "--exec=/bin/sh", "--", "-c"]);
    command.args([burn, "---", &busybox, "--name=idle", "--exec=/bin/sleep", "--", "1000"]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("burner: burnt");
    let json: Value = serde_json::from_str(&status(&host, &["--stats", "--format=json"])).unwrap();
    let (burner, idle) = (&json["apps"][0], &json["apps"][1]);
    assert_eq!((burner["name"].as_str(), idle["name"].as_str()), (Some("burner"), Some("idle")), "{json}");
    let usage = |app: &Value| app["cpu"]["usage_us"].as_u64();
    assert!(usage(burner) > usage(idle) && usage(idle) > Some(0), "{json}");
    assert_eq!(burner["memory"]["limit_bytes"], 96 << 20, "{json}");
    assert_eq!(burner["memory"]["oom_kills"], 0, "{json}");
    assert!(burner["memory"]["current_bytes"].as_u64() > Some(0), "{json}");
    assert_eq!(burner["pids"]["limit"], 99, "{json}");
    assert_eq!(idle["pids"]["current"], 1, "{json}");
    if stage1() == "kvm" {
        let vmm = &json["vmm"];
        let status = std::fs::read_to_string(format!("/proc/{}/status", vmm["pid"])).unwrap();
        assert!(status.contains(&format!("PPid:\t{}\n", pod.pid())), "{status}");
        // A guest takes time for its own in which a busy host runs something else.
        assert!(
            vmm["resident_bytes"].as_u64() > Some(1 << 20)
                && vmm["user_us"].as_u64().map(|time| 2 * time) > usage(burner),
            "{json}"
        );
    } else {
        assert!(usage(&json["pod"]) >= usage(burner), "{json}");
    }
    let table = status(&host, &["--stats"]);
    assert!(table.starts_with("NAME") && table.contains("96.0 MiB") && table.contains("1/2048"), "{table}");
    pod.signal(Signal::SIGTERM);
    pod.finish();
    let refused = Process::start(host.rkt().args(["status", "--stats", &host.uuid()])).finish().exited(254);
    assert!(refused.stderr.contains("not running"), "{}", refused.stderr);
}

#[test]
fn kills_for_want_of_memory_are_told() {
    let host = Host::new();
    // The app goes on after one of its processes.
    let script = "dd if=/dev/zero of=/dev/null bs=80M count=1; exit 3";
    let finished = Process::start(&mut host.shell(&["--memory=64Mi"], script)).finish().exited(3);
    let told = "app \"busybox\" ran out of memory: the kernel has killed 1 of its processes; its limit is 67108864 bytes";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
    assert!(status(&host, &[]).contains("oom-kills-busybox=1\n"));
    let json: Value = serde_json::from_str(&status(&host, &["--format=json"])).unwrap();
    assert_eq!(
        (&json["apps"][0]["oom_kills"], &json["apps"][0]["exit_code"]),
        (&1.into(), &3.into()),
        "{json}"
    );
}

#[test]
fn below_another_cgroup() {
    let host = Host::new();
    let mut command = host.run(&["--cgroup-parent=/no/such/cgroup", &image(BUSYBOX), "--exec=/bin/true"]);
    let finished = Process::start(&mut command).finish().exited(254);
    assert!(finished.stderr.contains("no/such/cgroup"), "{}", finished.stderr);
    let mut command = host.run(&["--cgroup-parent=up/../../etc", &image(BUSYBOX)]);
    assert!(Process::start(&mut command).finish().exited(254).stderr.contains("absolute"));

    let host = Host::new();
    let parent = format!("below-{}", std::process::id());
    let made: Vec<PathBuf> = hierarchies().iter().map(|top| top.join(&parent)).collect();
    made.iter().for_each(|cgroup| fs::create_dir(cgroup).unwrap());
    let mut command = host.run(&[&format!("--cgroup-parent=/{parent}"), &image(BUSYBOX)]);
    let mut pod = Process::start(command.args(["--exec=/bin/sh", "--", "-c", "echo ready; sleep 1000"]));
    pod.wait_for_line("ready");
    let name = format!("rkt-{}", host.uuid());
    assert!(made.iter().any(|cgroup| cgroup.join(&name).is_dir()), "{made:?}");
    pod.signal(Signal::SIGTERM);
    pod.finish();
    // Nothing may be in them.
    made.iter().for_each(|cgroup| fs::remove_dir(cgroup).unwrap());
}

/// Where this host has cgroups.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "));
    let mut tops: Vec<PathBuf> = mounts.map(|line| line.split(' ').nth(4).unwrap().into()).collect();
    tops.retain(|top| fs::metadata(top.join("cgroup.procs")).is_ok());
    tops
}
