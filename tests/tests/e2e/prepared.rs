//! Pods that are prepared first, and run later or never.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Host, Process, image, stage1};

/// Prepares a shell script as busybox's command; the pod's UUID.
fn prepare(host: &Host, flags: &[&str], script: &str) -> String {
    let mut command = host.rkt();
    command.args(["prepare", "--quiet"]).arg(format!("--stage1={}", stage1())).args(flags);
    command.args([&image(BUSYBOX), "--exec=/bin/sh", "--", "-c", script]);
    Process::start(&mut command).finish().success().text().trim().to_owned()
}

fn run_prepared(host: &Host, flags: &[&str], uuid: &str) -> Command {
    let mut command = host.rkt();
    command.arg("run-prepared").args(flags).arg(uuid);
    command
}

#[test]
fn what_was_prepared_runs_once() {
    let host = Host::new();
    let flags = ["--set-env=A=prepared", "--volume=v,kind=empty", "--mount=volume=v,target=/v"];
    let uuid = prepare(&host, &flags, "echo $A on $(uname -n); touch /v/x && ls /v; exit 5");
    let mut command = run_prepared(&host, &["--hostname=later"], &uuid);
    let finished = Process::start(&mut command).finish().exited(5);
    assert_eq!(finished.text(), "prepared on later\nx\n");
    assert_eq!((host.uuid(), host.status("busybox")), (uuid.clone(), "5".into()));
    let again = Process::start(&mut run_prepared(&host, &[], &uuid)).finish().exited(254);
    assert!(again.stderr.contains("is not prepared: it is exited"), "{}", again.stderr);
}

#[test]
fn a_prepared_pod_that_was_killed_is_collected() {
    let host = Host::new();
    let uuid = prepare(&host, &[], "echo ready; sleep 1000");
    let mut pod = Process::start(&mut run_prepared(&host, &[], &uuid));
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGKILL);
    assert_eq!(pod.finish().code, -9);
    host.collect_garbage().success();
    assert!(host.pods().is_empty());
}

#[test]
fn what_never_runs_leaves_nothing() {
    let host = Host::new();
    let uuid = prepare(&host, &[], "true");
    host.collect_garbage().success();
    assert_eq!(host.uuid(), uuid);
    Process::start(host.rkt().args(["gc", "--expire-prepared=0s"])).finish().success();
    assert!(host.pods().is_empty());
}

#[test]
fn users_are_settled_when_it_runs() {
    if stage1() == "kvm" {
        return;
    }
    let host = Host::new();
    let uuid = prepare(&host, &["--private-users"], "cat /proc/self/uid_map; id -u; touch /srv/x");
    let finished = Process::start(&mut run_prepared(&host, &[], &uuid)).finish().success();
    let text = finished.text();
    let numbers: Vec<&str> = text.split_whitespace().collect();
    let [inner, outer, count, user] = numbers[..] else { panic!("{text}") };
    assert_eq!((inner, count, user), ("0", "65536", "0"));
    assert_ne!(outer, "0");
}
