//! Nothing is left of a pod, however it ended. What is checked for, and after every other test, too, is in the harness.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Host, Process};

#[test]
fn a_killed_pod_is_collected() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], "echo ready; sleep 1000"));
    pod.wait_for_line("ready");
    assert_eq!(host.pods().len(), 1);
    pod.signal(Signal::SIGKILL);
    assert_eq!(pod.finish().code, -9);
    host.collect_garbage().success();
    assert!(host.pods().is_empty());
}

#[test]
fn a_running_pod_is_not_collected() {
    let host = Host::new();
    let mut pod =
        Process::start(&mut host.shell(&[], "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"));
    pod.wait_for_line("ready");
    host.collect_garbage().success();
    assert_eq!(host.pods().len(), 1);
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
    // Collected at last by the harness.
}

#[test]
fn a_pod_dies_with_its_parent() {
    let host = Host::new();
    let marker = format!("{}", 100_000 + std::process::id());
    let mut pod = Process::start(&mut host.shell(&[], &format!("echo ready; sleep {marker}")));
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGKILL);
    pod.finish();
    let sleeps = || Command::new("pgrep").args(["-f", &format!("^sleep {marker}$")]).output().unwrap().stdout;
    for _ in 0..100 {
        if sleeps().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the app still runs: {}", String::from_utf8_lossy(&sleeps()));
}

#[test]
fn orphans_of_an_app_end_with_the_pod() {
    let host = Host::new();
    host.sh("sleep 1000 & sleep 1000 & echo started").success();
}
