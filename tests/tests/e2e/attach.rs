//! `rkt attach`: clients at the streams of an app's own process.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, wait_until};
use crate::terminal::Session;

fn attach(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.rkt();
    command.args(["attach", &host.uuid()]).args(arguments);
    command
}

fn say(host: &Host, words: &str) -> Finished {
    Process::start_with_input(&mut attach(host, &["--mode=stdin"]), words.into()).finish()
}

/// Waits until clients hear the app answer. What it said before they were there they do not get, so it is asked until they
/// all have heard it.
fn until_heard(host: &Host, clients: &mut [&mut Process]) {
    let heard = Arc::new(AtomicBool::new(false));
    let asking = thread::spawn({
        let (heard, mut command) = (Arc::clone(&heard), attach(host, &["--mode=stdin"]));
        move || {
            while !heard.load(Ordering::Relaxed) {
                Process::start_with_input(&mut command, "ping\n".into()).finish().success();
            }
        }
    });
    clients.iter_mut().for_each(|client| client.wait_for_line("got ping"));
    heard.store(true, Ordering::Relaxed);
    asking.join().unwrap();
}

#[test]
fn several_clients_at_streams() {
    const SCRIPT: &str = "echo ready; while read -r line; do echo got $line; echo err $line >&2; case $line in \
        flood) head -c 20000000 /dev/zero;; end) exit 7;; esac; done";
    let host = Host::new();
    let options = ["--stdin=stream", "--stdout=stream,inherit", "--stderr=stream"];
    let mut pod = Process::start(&mut host.shell(&options, SCRIPT));
    pod.wait_for_line("ready");
    let list = Process::start(&mut attach(&host, &["--mode=list"])).finish().success();
    assert_eq!(list.text(), "stdin\nstdout\nstderr\n");
    let refused = Process::start(&mut attach(&host, &["--mode=tty"])).finish().exited(254);
    assert!(refused.stderr.contains("stdin, stdout, stderr"), "{}", refused.stderr);

    let mut one = Process::start(&mut attach(&host, &["--mode=stdout"]));
    let mut two = Process::start(&mut attach(&host, &["--mode=stdout,stderr"]));
    let mut gone = Process::start(&mut attach(&host, &[]));
    until_heard(&host, &mut [&mut one, &mut two, &mut gone]);
    gone.signal(Signal::SIGKILL);
    drop(gone);
    // It leaves once that is said, or exits as the app does, if that is quicker.
    assert!([0, 7].contains(&say(&host, "end\n").code));
    assert!(one.finish().exited(7).text().ends_with("got end\n"));
    let two = two.finish().exited(7);
    assert!(two.text().ends_with("got end\n") && two.stderr.ends_with("err end\n"), "{}", two.stderr);
    assert!(pod.finish().exited(7).text().ends_with("got end\n"));
    let over = Process::start(&mut attach(&host, &[])).finish().exited(254);
    assert!(over.stderr.contains("is exited, not running"), "{}", over.stderr);
}

#[test]
fn an_app_waits_for_no_client() {
    const SCRIPT: &str = "while read -r line; do echo got $line; case $line in \
        flood) head -c 20000000 /dev/zero;; end) exit 0;; esac; done";
    let host = Host::new();
    let pod = Process::start(&mut host.shell(&["--stdin=stream", "--stdout=stream"], SCRIPT));
    wait_until("running", || host.pods().first().is_some_and(|pod| pod.join("pid").exists()));
    let mut slow = Process::start(&mut attach(&host, &["--mode=stdout"]));
    until_heard(&host, &mut [&mut slow]);
    // From here on it does not read.
    say(&host, "flood\nend\n").success();
    pod.finish().success();
    let slow = slow.finish().exited(254);
    assert!(slow.stderr.contains("did not take the app's output in time"), "{}", slow.stderr);
    assert!(slow.stdout.len() < 10_000_000, "{}", slow.stdout.len());
}

#[test]
fn a_terminal_outlives_its_clients() {
    let host = Host::new();
    let mut command = host.run(&[&image(BUSYBOX), "--stdin=tty", "--stdout=tty,log"]);
    command.arg("--exec=/bin/sh");
    let pod = Process::start(&mut command);
    wait_until("running", || host.pods().first().is_some_and(|pod| pod.join("pid").exists()));
    let list = Process::start(&mut attach(&host, &["--mode=list"])).finish().success();
    assert_eq!(list.text(), "tty-in\ntty-out\n");
    let mut one = Session::start(attach(&host, &[]), 24, 80);
    one.type_in("echo $((6 * 7))\n");
    one.expect("\n42\r\n");
    one.type_in("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.1; done; echo si''zed\n");
    one.expect("sized\r\n");
    let mut two = Session::start(attach(&host, &["--mode=tty"]), 30, 100);
    two.type_in("echo to''gether\n");
    two.expect("together\r\n");
    one.expect("together\r\n");
    one.type_in("\x1d\x1d\x1d");
    assert_eq!(one.finish(), 0);
    two.type_in("echo still $((6 * 7))\n");
    two.expect("still 42\r\n");
    two.type_in("exit 5\n");
    assert_eq!(two.finish(), 5);
    pod.finish().exited(5);
    let log = Process::start(host.rkt().args(["logs", &host.uuid()])).finish().success();
    assert!(log.text().contains("still 42\r\n"), "{}", log.text());
}
