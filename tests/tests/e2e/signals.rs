//! Signals to `rkt` end the pod: in an orderly way, the second one at once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Host, Process};

/// Announces itself, then waits for signals in small steps: a shell runs a trap only between commands.
const WAIT: &str = "echo ready; while :; do sleep 0.1; done";

#[test]
fn sigterm_and_sigint_let_the_app_finish() {
    let host = Host::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let script = format!("trap 'echo orderly; exit 7' TERM; {WAIT}");
        let mut pod = Process::start(&mut host.shell(&[], &script));
        pod.wait_for_line("ready");
        pod.signal(signal);
        let finished = pod.finish().exited(7);
        assert_eq!(finished.text(), "orderly\n", "after {signal}");
    }
}

#[test]
fn an_app_without_a_handler_ends_by_the_signal() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], "echo ready; exec sleep 1000"));
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGTERM);
    pod.finish().exited(143);
}

#[test]
fn a_second_signal_ends_the_pod_at_once() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], &format!("trap 'echo stubborn' TERM; {WAIT}")));
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGTERM);
    pod.wait_for_line("stubborn");
    assert!(pod.runs());
    let begin = Instant::now();
    pod.signal(Signal::SIGTERM);
    pod.finish().exited(137);
    assert!(begin.elapsed() < Duration::from_secs(8), "took {:?}", begin.elapsed());
}
