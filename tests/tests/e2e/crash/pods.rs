//! Pods begin and end.

use std::process::Command;

use super::{Points, Scenario, Victims, examine};
use crate::harness::{BUSYBOX, Host, Process, image, stage1};

/// In namespaces at all points; of a micro-VM, which takes longer to start than all tests of a kind here, at some.
fn crash(name: &str, victims: Victims, begin: impl Fn() -> (Host, Command)) {
    let points = if stage1() == "nspawn" { Points::All } else { Points::Some(12) };
    Scenario { name, victims, points }.crash(begin, examine);
}

fn run(options: &[&str]) -> (Host, Command) {
    let host = Host::new();
    let command = host.run(&[options, &[&image(BUSYBOX), "--exec=/bin/true"]].concat());
    (host, command)
}

#[test]
fn a_pod_whose_parent_is_killed() {
    crash("run, its parent", Victims::First, || run(&[]));
}

#[test]
fn a_pod_of_which_any_process_is_killed() {
    if stage1() == "nspawn" {
        crash("run", Victims::All, || run(&[]));
    }
}

#[test]
fn a_pod_with_users_of_its_own() {
    if stage1() == "nspawn" {
        crash("run --private-users", Victims::All, || run(&["--private-users"]));
    }
}

#[test]
fn a_pod_that_is_prepared() {
    crash("prepare", Victims::First, || {
        let host = Host::new();
        let mut command = host.rkt();
        command.args(["prepare", &format!("--stage1={}", stage1()), &image(BUSYBOX), "--exec=/bin/true"]);
        (host, command)
    });
}

/// One that has ended.
fn ended() -> (Host, String) {
    let host = Host::new();
    host.sh("exit 0").success();
    let uuid = host.uuid();
    (host, uuid)
}

#[test]
fn a_pod_that_is_removed() {
    if stage1() != "nspawn" {
        return;
    }
    crash("rm", Victims::First, || {
        let (host, uuid) = ended();
        let mut command = host.rkt();
        command.args(["rm", &uuid]);
        (host, command)
    });
    crash("gc", Victims::First, || {
        let host = ended().0;
        let mut command = host.rkt();
        command.args(["gc", "--grace-period=0s"]);
        (host, command)
    });
}

#[test]
fn a_pod_that_is_stopped() {
    if stage1() != "nspawn" {
        return;
    }
    let begin = || {
        let host = Host::new();
        let mut pod = Process::start(&mut host.shell(&[], "echo ready; while :; do sleep 1; done"));
        pod.wait_for_line("ready");
        let mut command = host.rkt();
        command.args(["stop", &host.uuid()]);
        ((host, pod), command)
    };
    let scenario = Scenario { name: "stop", victims: Victims::All, points: Points::All };
    scenario.crash(begin, |(host, pod), when| {
        // Whoever was to stop it may not have come so far.
        drop(pod);
        examine(host, when);
    });
}
