//! Pods on a host whose init is systemd: which unit they are in.

use std::fs;
use std::process::Command;

use crate::harness::{BUSYBOX, Finished, Host, Process, Systemd, image, stage1, wait_until};

/// Says that it runs, and goes on until it is told to end.
const WAITS: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";

/// Options of systemd-run for a service, where there is no sysinit.target.
const SERVICE: [&str; 4] = ["--pipe", "--wait", "--unit=own", "--property=DefaultDependencies=no"];

/// The number of the pod's parent, as systemd's namespace has it.
fn parent(host: &Host) -> String {
    fs::read_to_string(host.pods()[0].join("ppid")).unwrap().trim().to_owned()
}

/// The cgroups of a process, by systemd's names.
fn cgroups(systemd: &Systemd, process: &str) -> String {
    systemd.sh(&format!("cat /proc/{process}/cgroup")).success().text()
}

fn scope(host: &Host) -> String {
    format!("rkt-{}.scope", host.uuid())
}

/// Until systemd has forgotten a unit, its cgroup is gone, too.
fn wait_for_the_end_of(systemd: &Systemd, unit: &str) {
    let state = || systemd.sh(&format!("systemctl show -P ActiveState {unit}")).text();
    wait_until("gone", || state().trim() == "inactive");
}

/// Runs `exit 3` in a pod in a unit with such options of systemd-run; what is said, and the cgroups that the pod was given.
fn run_in(options: &[&str]) -> (Finished, String) {
    let (systemd, host) = (Systemd::boot(), Host::new());
    let command = host.shell(&["--cpu=500m"], "exit 3");
    let finished = Process::start(&mut systemd.in_unit(options, &command)).finish().exited(3);
    let record = fs::read_to_string(host.pods()[0].join("subcgroup")).unwrap_or_default();
    (finished, record)
}

#[test]
fn a_pod_of_a_session_gets_a_scope() {
    let (systemd, host) = (Systemd::boot(), Host::new());
    let mut pod = Process::start(&mut systemd.in_session(&host.shell(&[], WAITS)));
    pod.wait_for_line("ready");
    let (parent, scope) = (parent(&host), scope(&host));
    let cgroups = cgroups(&systemd, &parent);
    assert!(cgroups.contains(&format!("/machine.slice/{scope}")), "{cgroups}");
    let properties = "-p Delegate -p Description -p TasksMax -p ActiveState";
    let shown = systemd.sh(&format!("systemctl show {properties} {scope}")).success().text();
    for property in ["Delegate=yes", "TasksMax=infinity", "ActiveState=active", "Description=rkt pod"] {
        assert!(shown.contains(property), "{property}: {shown}");
    }
    // This systemd has its own numbers for processes, and none for KVM's thread, which is in the VMM's cgroup: it reads no list
    // with that.
    let stop = if stage1() == "kvm" { format!("kill {parent}") } else { format!("systemctl stop {scope}") };
    systemd.sh(&stop).success();
    let finished = pod.finish();
    assert!(!finished.stderr.contains("warning"), "{}", finished.stderr);
    wait_for_the_end_of(&systemd, &scope);
}

#[test]
fn a_killed_pod_leaves_no_scope() {
    let (systemd, host) = (Systemd::boot(), Host::new());
    let mut pod = Process::start(&mut systemd.in_session(&host.shell(&[], WAITS)));
    pod.wait_for_line("ready");
    let scope = scope(&host);
    systemd.sh(&format!("kill -KILL {}", parent(&host))).success();
    pod.finish().exited(137);
    wait_for_the_end_of(&systemd, &scope);
    let collect = systemd.in_session(host.rkt().args(["gc", "--grace-period=0s"]));
    Process::start(&mut { collect }).finish().success();
    assert!(host.pods().is_empty());
}

#[test]
fn a_pod_stays_in_a_delegated_unit() {
    for options in [
        &["--scope", "--unit=own", "-p", "Delegate=yes"][..],
        &[&SERVICE[..], &["-p", "Delegate=yes"]].concat(),
    ] {
        let (finished, record) = run_in(options);
        assert!(!finished.stderr.contains("warning"), "{options:?} {}", finished.stderr);
        assert!(record.contains("/system.slice/own."), "{options:?} {record}");
    }
}

#[test]
fn a_pod_leaves_a_unit_that_is_not_delegated_and_ends_with_it() {
    let (systemd, host) = (Systemd::boot(), Host::new());
    let command = host.shell(&["--cpu=500m"], WAITS);
    let mut pod = Process::start(&mut systemd.in_unit(&SERVICE, &command));
    pod.wait_for_line("ready");
    let (parent, scope) = (parent(&host), scope(&host));
    let cgroups = cgroups(&systemd, &parent);
    assert!(cgroups.contains(&format!("/machine.slice/{scope}")), "{cgroups}");
    let main = systemd.sh("systemctl show -P MainPID own.service").success().text();
    assert_eq!(main.trim(), parent);
    systemd.sh("systemctl stop own.service").success();
    let finished = pod.finish().success();
    assert!(finished.stderr.contains("own.service") && finished.stderr.contains("Delegate=yes"));
    assert_eq!(host.status("busybox"), "0", "it was told to end, and has");
    wait_for_the_end_of(&systemd, &scope);
}

/// Only in namespaces: a VM needs the controller "cpu" there, and systemd gives it to no cgroup that it does not know of.
#[test]
fn the_cgroup_that_is_asked_for_needs_no_scope() {
    if stage1() == "kvm" {
        return;
    }
    let (systemd, host) = (Systemd::boot(), Host::new());
    let make =
        "cd /sys/fs/cgroup; [ ! -d systemd ] || tops=$(ls); for top in ${tops:-.}; do mkdir $top/here; done";
    systemd.sh(make).success();
    let mut run = host.run(&["--cgroup-parent=/here", &image(BUSYBOX)]);
    let run = run.args(["--exec=/bin/sh", "--", "-c", WAITS]);
    let mut pod = Process::start(&mut systemd.in_session(run));
    pod.wait_for_line("ready");
    let record = fs::read_to_string(host.pods()[0].join("subcgroup")).unwrap();
    assert!(record.lines().all(|cgroup| cgroup.contains("/here/rkt-")), "{record}");
    let state = systemd.sh(&format!("systemctl show -P ActiveState {}", scope(&host))).text();
    assert_eq!(state.trim(), "inactive");
    systemd.sh(&format!("kill {}", parent(&host))).success();
    pod.finish().success();
}

/// Not being known to systemd is no weaker isolation.
#[test]
fn without_a_bus_the_pod_runs_where_rkt_does() {
    let (systemd, host) = (Systemd::boot(), Host::new());
    let mut command = Command::new("unshare");
    let run = host.shell(&[], "exit 3");
    command.args(["--mount", "/bin/sh", "-c", "mount -t tmpfs none /run/dbus && exec \"$@\"", "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    let finished = Process::start(&mut systemd.in_session(&command)).finish().exited(3);
    assert!(finished.stderr.contains("no scope of systemd's"), "{}", finished.stderr);
    assert!(finished.stderr.contains("/run/dbus/system_bus_socket"), "{}", finished.stderr);
}
