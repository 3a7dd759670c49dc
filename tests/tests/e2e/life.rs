//! Apps that are started again, stopped, and that end their pod or not.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Finished, Host, Process, image};

/// Counts its starts in the file /n, which the app keeps from one to the next.
const COUNT: &str = "n=$(($(cat /n 2>/dev/null || echo 0) + 1)); echo $n >/n; echo start $n";
/// Idles until it is told to end.
const IDLE: &str = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done";

/// The words of an app for `rkt run`.
fn app(name: &str, flags: &[&str], script: &str) -> Vec<String> {
    let head = [image(BUSYBOX), format!("--name={name}"), "--exec=/bin/sh".into()];
    let tail = ["--", "-c", script, "---"].map(str::to_owned);
    head.into_iter().chain(flags.iter().map(|flag| (*flag).to_owned())).chain(tail).collect()
}

fn run(host: &Host, flags: &[&str], apps: &[Vec<String>]) -> Command {
    let mut command = host.run(flags);
    command.args(apps.concat());
    command
}

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

/// Waits until `rkt app status` says so.
fn wait_for_status(host: &Host, app: &str, wanted: &str) {
    let begin = Instant::now();
    let name = format!("--app={app}");
    loop {
        let status = rkt(host, &["app", "status", &name, &host.uuid()]).success().text();
        if status.lines().any(|line| line == wanted) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "no {wanted}: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_app_that_fails_is_started_again_until_it_succeeds() {
    let host = Host::new();
    // What it leaves behind ends before it begins again: a daemon that has left its session in particular.
    let left = "ps -o comm | grep -c sleep; setsid sleep 54321 &";
    let script = format!("{COUNT}; {left} sleep 0.2; [ $n = 3 ]");
    let pod = Process::start(&mut host.shell(&["--restart=on-failure"], &script)).finish().success();
    assert_eq!(pod.text(), "start 1\n0\nstart 2\n0\nstart 3\n0\n");
    assert_eq!(host.status("busybox"), "0");
    let status = rkt(&host, &["status", &host.uuid()]).success().text();
    assert!(status.ends_with("exited=true\nrestarts-busybox=2\napp-busybox=0\n"), "{status}");
}

#[test]
fn a_pod_ends_in_the_pause_before_a_start() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&["--restart=always"], &format!("{COUNT}; exit 7")));
    // The pauses double: by then the next is longer than a second.
    pod.wait_for_line("start 5");
    wait_for_status(&host, "busybox", "restarts=5");
    pod.signal(Signal::SIGTERM);
    pod.finish().exited(7);
    assert_eq!(host.status("busybox"), "7");
    host.collect_garbage().success();
    // One whose end somebody wants has not failed.
    let mut pod = Process::start(&mut host.shell(&["--restart=always"], &format!("{COUNT}; exit 7")));
    pod.wait_for_line("start 5");
    rkt(&host, &["app", "stop", &host.uuid()]).success();
    pod.finish().success();
}

#[test]
fn an_app_that_cannot_be_started_is_not_started_again() {
    let host = Host::new();
    let finished =
        Process::start(&mut host.shell(&["--restart=always", "--user=nobody-there"], "true")).finish();
    assert!(finished.exited(254).stderr.contains("nobody-there"));
}

#[test]
fn kill_signals_and_kill_timeouts() {
    let host = Host::new();
    let flags = ["--kill-signal=QUIT", "--kill-timeout=0"];
    let gentle = "trap 'echo quit; exit 3' QUIT; trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    let mut pod = Process::start(&mut host.shell(&flags[..1], gentle));
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.finish().exited(3).text(), "quit\n");
    // One that does not listen; the other app's patience is its own. It is ready once the first is deaf.
    let deaf = app("deaf", &["--kill-timeout=0"], "trap '' TERM; exec sleep 4321");
    let script = "trap 'sleep 3; exit 0' TERM; until ps -o args | grep -qx 'sleep 4321'; do sleep 0.1; done; \
                  echo ready; while :; do sleep 0.1; done";
    let slow = app("slow", &["--kill-timeout=10m"], script);
    let mut pod = Process::start(&mut run(&host, &[], &[deaf, slow]));
    pod.wait_for_line("slow: ready");
    pod.signal(Signal::SIGTERM);
    pod.finish().exited(137);
    host.collect_garbage().success();
}

#[test]
fn exit_policies() {
    let host = Host::new();
    let end = |policy: &str, first: &str, second: &str| {
        let (first, second) = (app("first", &[], first), app("second", &[], second));
        let finished =
            Process::start(&mut run(&host, &[&format!("--exit-policy={policy}")], &[first, second]));
        let finished = finished.finish();
        let statuses = (host.status("first"), host.status("second"));
        host.collect_garbage().success();
        (finished.code, statuses)
    };
    let statuses = |first: &str, second: &str| (first.to_owned(), second.to_owned());
    assert_eq!(end("until-all", "exit 5", "sleep 1; exit 0"), (5, statuses("5", "0")));
    assert_eq!(end("on-any", "exit 0", "exec sleep 1000"), (143, statuses("0", "143")));
    assert_eq!(end("on-any-failure", "exit 0", "sleep 1; exit 0"), (0, statuses("0", "0")));
}

#[test]
fn apps_are_stopped_and_started_one_by_one() {
    let host = Host::new();
    let counted = format!("{COUNT}; {IDLE}");
    let (one, two) = (app("one", &["--restart=always"], &counted), app("two", &[], IDLE));
    let mut pod = Process::start(&mut run(&host, &[], &[one, two]));
    pod.wait_for_line("one: ready");
    let uuid = host.uuid();
    rkt(&host, &["status", "--wait-ready", &uuid]).success();
    let of = |app: &str, action: &str| rkt(&host, &["app", action, &format!("--app={app}"), &uuid]);

    of("one", "stop").success();
    wait_for_status(&host, "one", "state=exited");
    assert_eq!(host.status("one"), "0");
    let list = rkt(&host, &["app", "list", "--no-legend", &uuid]).success().text();
    assert_eq!(list, "one  exited\ntwo  running\n");
    let refused = rkt(&host, &["app", "exec", "--app=one", &uuid, "true"]).exited(254);
    assert!(refused.stderr.contains("has ended"), "{}", refused.stderr);
    of("one", "stop").success();

    of("one", "start").success();
    pod.wait_for_line("one: ready");
    let exec = rkt(&host, &["app", "exec", "--app=one", &uuid, "cat", "/n"]).success();
    assert_eq!(exec.text(), "2\n", "it has kept what it wrote");
    of("one", "start").success();
    wait_for_status(&host, "one", "state=running");

    // By a signal, and it has not failed.
    rkt(&host, &["app", "exec", "--app=two", &uuid, "touch", "/mark"]).success();
    of("two", "stop").success();
    of("two", "start").success();
    rkt(&host, &["app", "exec", "--app=two", &uuid, "test", "-e", "/mark"]).success();
    assert!(of("three", "stop").exited(254).stderr.contains("no app \"three\""));
    assert!(rkt(&host, &["app", "stop", &uuid]).exited(254).stderr.contains("--app: one, two"));
    of("one", "stop").success();
    of("two", "stop").success();
    pod.finish().success();
    assert!(of("one", "start").exited(254).stderr.contains("not running"));
}

/// What an app may do to stay: ignore its signal, fork on and on, leave its session, in all of which it takes others along.
#[test]
fn stopped_apps_leave_nothing_behind() {
    let host = Host::new();
    let bomb = "trap '' TERM; ulimit -u 200; setsid sleep 54321 & \
                echo 'sleep 0.1; sh /tmp/bomb & exec sh /tmp/bomb' >/tmp/bomb; sh /tmp/bomb 2>/dev/null & \
                echo ready; exec sleep 12345";
    let bomb = app("bomb", &["--kill-timeout=100ms", "--user=4242", "--group=4242"], bomb);
    let mut pod = Process::start(&mut run(&host, &[], &[bomb, app("other", &[], "exec sleep 1000")]));
    pod.wait_for_line("bomb: ready");
    let uuid = host.uuid();
    rkt(&host, &["status", "--wait-ready", &uuid]).success();
    rkt(&host, &["app", "stop", "--app=bomb", &uuid]).success();
    assert_eq!(host.status("bomb"), "137");
    let left =
        rkt(&host, &["app", "exec", "--app=other", &uuid, "sh", "-c", "ps | grep -c '^ *[0-9]* 4242 '"]);
    assert_eq!(left.text(), "0\n");
    pod.signal(Signal::SIGTERM);
    pod.finish().exited(143);
}

#[test]
fn a_client_that_is_killed_leaves_the_pod_as_it_is() {
    let host = Host::new();
    let deaf = app(
        "deaf",
        &["--kill-timeout=10m"],
        "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done",
    );
    let mut pod = Process::start(&mut run(&host, &[], &[deaf, app("other", &[], IDLE)]));
    pod.wait_for_line("deaf: ready");
    let uuid = host.uuid();
    rkt(&host, &["status", "--wait-ready", &uuid]).success();
    let client = Process::start(host.rkt().args(["app", "stop", "--app=deaf", &uuid]));
    pod.wait_for_line("deaf: asked");
    client.signal(Signal::SIGKILL);
    client.finish();
    assert_eq!(
        rkt(&host, &["app", "exec", "--app=other", &uuid, "echo", "there"]).success().text(),
        "there\n"
    );
    // The pod's own parent, in the middle of it: the harness looks for what is left.
    pod.signal(Signal::SIGKILL);
    pod.finish();
    rkt(&host, &["status", "--wait", &uuid]).success();
}
