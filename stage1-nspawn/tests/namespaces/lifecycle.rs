//! How pods end.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::pod::{Pod, Running, shell, text, wait_until};

/// Starts a pod whose app says "ready" when it is.
fn start(directory: &Pod) -> Running {
    let mut pod = directory.start();
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    pod
}

#[test]
fn signals_stop_a_pod_in_an_orderly_way() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let directory = shell("trap 'touch /orderly; exit 5' TERM; echo ready; while :; do sleep 0.05; done");
        let mut pod = start(&directory);
        pod.signal(signal);
        assert_eq!(pod.exit_code(), 5, "{signal}");
        assert!(directory.path("overlay/app/upper/orderly").exists());
    }
}

#[test]
fn an_app_that_does_nothing_about_it_is_ended() {
    let directory = shell("echo ready; exec sleep 1000");
    let mut pod = start(&directory);
    pod.signal(Signal::SIGTERM);
    assert_eq!((pod.exit_code(), directory.status("app").as_str()), (143, "143"));
}

#[test]
fn a_second_signal_ends_at_once() {
    let directory = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let mut pod = start(&directory);
    let begin = Instant::now();
    pod.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(pod.0.try_wait().unwrap().is_none(), "it has its grace period");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(), 137);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_first_app_that_fails_stops_the_others() {
    let app = |script: &str| json!({"exec": ["/bin/sh", "-c", script]});
    let directory = Pod::new()
        .with("ends", app("exit 0"))
        .with("fails", app("sleep 0.5; exit 5"))
        .with("stays", app("trap 'exit 0' TERM; while :; do sleep 0.05; done"))
        .with("asks-too-late", app("sleep 1000"));
    let output = directory.run();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let status = |app| directory.status(app);
    assert_eq!((status("ends"), status("fails"), status("stays")), ("0".into(), "5".into(), "0".into()));
    assert_eq!(status("asks-too-late"), "143");
}

#[test]
fn apps_end_by_themselves_when_others_succeed() {
    let app = |script: &str| json!({"exec": ["/bin/sh", "-c", script]});
    let directory = Pod::new().with("first", app("exit 0")).with("last", app("sleep 0.5; echo done"));
    let output = directory.run();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "last: done\n"));
}

#[test]
fn orphans_end_with_the_pod() {
    let directory = shell("(trap '' TERM HUP; while :; do sleep 0.05; done) & echo started");
    let begin = Instant::now();
    let output = directory.run();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "started\n"));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_parent_that_is_killed_takes_the_pod_along() {
    let directory = shell("echo ready; sleep 1000");
    let mut pod = start(&directory);
    let supervisor = std::fs::read_to_string(directory.path("pid")).unwrap();
    let process = format!("/proc/{}", supervisor.trim());
    assert!(std::path::Path::new(&process).exists());
    pod.0.kill().unwrap();
    wait_until("the supervisor is gone", || !std::path::Path::new(&process).exists());
}

#[test]
fn a_supervisor_that_is_killed_is_an_error() {
    let directory = shell("echo ready; sleep 1000");
    let mut pod = start(&directory);
    let supervisor: i32 = std::fs::read_to_string(directory.path("pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    assert_eq!(pod.exit_code(), 254);
}

#[test]
fn the_stop_entrypoint() {
    let directory = shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let uuid = directory.uuid.to_string();
    let stop = |arguments: &[&str]| {
        let output = directory.entrypoint("/pod/stop", arguments).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    // Started first, for what is started later inherits the lock from here.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let mut pod = start(&directory);
    wait_until("it is ready", || directory.path("stage1/rootfs/rkt/supervisor-status").is_symlink());
    let parent = std::fs::read_to_string(directory.path("ppid")).unwrap();
    assert_eq!(parent, format!("{}\n", pod.0.id()));

    // Somebody else's number is not signalled.
    std::fs::write(directory.path("ppid"), format!("{}\n", stranger.id())).unwrap();
    let (code, why) = stop(&["--force", &uuid]);
    assert!(code == Some(254) && why.contains("does not hold its lock"), "{why}");
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    std::fs::write(directory.path("ppid"), parent).unwrap();
    assert_eq!(stop(&[&uuid]), (Some(0), String::new()));
    assert_eq!((pod.exit_code(), directory.status("app").as_str()), (5, "5"));
    assert_eq!(stop(&[&uuid]).0, Some(254), "there is no parent any more");
    assert_eq!(stop(&["--soon", &uuid]).0, Some(254));
}

#[test]
fn a_forced_stop() {
    let directory = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let mut pod = start(&directory);
    let supervisor = std::fs::read_to_string(directory.path("pid")).unwrap();
    let stopped = directory.entrypoint("stop", &["--force", &directory.uuid.to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(pod.exit_code(), -1, "killed");
    wait_until("the supervisor is gone", || !std::path::Path::new("/proc").join(supervisor.trim()).exists());
}

#[test]
fn an_idle_pod_does_nothing() {
    let directory = shell("echo ready; sleep 1000");
    let pod = start(&directory);
    let supervisor = std::fs::read_to_string(directory.path("pid")).unwrap();
    let switches = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.map(|line| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let pids = [pod.0.id().to_string(), supervisor.trim().to_owned()];
    std::thread::sleep(Duration::from_millis(200));
    let before = pids.each_ref().map(|pid| switches(pid));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(pids.each_ref().map(|pid| switches(pid)), before);
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pids[1])).unwrap();
    let private: u64 = smaps
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(private < 1024, "{private} KiB");
}
