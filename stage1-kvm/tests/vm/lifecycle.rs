//! How pods run and end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::pod::{Pod, Running, app, needs_kvm, shell, text, wait_until};

/// Starts a pod whose app says "ready" when it is.
fn start(directory: &Pod) -> Running {
    let mut pod = directory.start();
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    pod
}

#[test]
fn exit_codes_and_signals() {
    needs_kvm!();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137), ("kill $$", 143)] {
        let pod = shell(script);
        let output = pod.run();
        assert_eq!(output.status.code(), Some(code), "{script}: {}", text(&output.stderr));
        assert_eq!(pod.status("app"), code.to_string());
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_kernel_and_a_network_of_its_own() {
    needs_kvm!();
    let pod = shell("uname -r; hostname; ip -o addr show dev lo; touch /written && ls /written");
    let output = pod.run();
    let stdout = text(&output.stdout);
    assert!(stdout.lines().next().is_some_and(|release| release.ends_with("-rkt")), "{stdout}");
    for wanted in [&format!("\nrkt-{}\n", pod.uuid), "127.0.0.1/8", "::1/128", "\n/written\n"] {
        assert!(stdout.contains(wanted), "{wanted} in {stdout}{}", text(&output.stderr));
    }
    assert_eq!(fs::read_link(pod.path("flavor")).unwrap().to_str(), Some("kvm"));
}

#[test]
fn sigterm_stops_a_pod_in_an_orderly_way() {
    needs_kvm!();
    let directory = shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let mut pod = start(&directory);
    let pid = fs::read_to_string(directory.path("pid")).unwrap();
    assert_eq!(pid.trim(), pod.0.id().to_string());
    pod.signal(Signal::SIGTERM);
    assert_eq!((pod.exit_code(), directory.status("app").as_str()), (5, "5"));
}

#[test]
fn a_second_signal_ends_at_once() {
    needs_kvm!();
    let directory = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let mut pod = start(&directory);
    pod.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(pod.0.try_wait().unwrap().is_none(), "it has its grace period");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(), 137);
}

#[test]
fn the_first_app_that_fails_stops_the_others() {
    needs_kvm!();
    let directory = Pod::new()
        .with("fails", app("sleep 0.5; exit 5"))
        .with("stays", app("trap 'exit 0' TERM; while :; do sleep 0.05; done"));
    let output = directory.run();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert_eq!((directory.status("fails"), directory.status("stays")), ("5".into(), "0".into()));
}

#[test]
fn killed_it_leaves_nothing() {
    needs_kvm!();
    let directory = shell("echo ready; sleep 1000");
    let mounts = || fs::read_to_string("/proc/mounts").unwrap();
    let before = mounts();
    let mut pod = start(&directory);
    assert_eq!(mounts(), before, "nothing is mounted on the host");
    let process = format!("/proc/{}", pod.0.id());
    pod.0.kill().unwrap();
    pod.0.wait().unwrap();
    wait_until("the machine is gone", || !fs::exists(&process).unwrap());
    assert_eq!(mounts(), before);
    for _ in 0..2 {
        let gc = directory.entrypoint("gc", &[]).output().unwrap();
        assert!(gc.status.success(), "{}", text(&gc.stderr));
    }
}
