//! `rkt stop` and `rkt status`.

use std::time::{Duration, Instant};

use crate::harness::{Finished, Host, Process};

fn start(host: &Host, script: &str) -> Process {
    let script = format!("{script}; echo ready; while :; do sleep 0.1; done");
    let mut pod = Process::start(&mut host.shell(&[], &script));
    pod.wait_for_line("ready");
    pod
}

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

#[test]
fn stop_is_orderly() {
    let host = Host::new();
    let pod = start(&host, "trap 'echo orderly; exit 7' TERM");
    let uuid = host.uuid();
    assert_eq!(rkt(&host, &["stop", &uuid[..8]]).success().text(), format!("\"{uuid}\"\n"));
    assert_eq!(pod.finish().exited(7).text(), "orderly\n");
    assert_eq!(host.status("busybox"), "7");
    let again = rkt(&host, &["stop", &uuid]).success().text();
    assert_eq!(again, format!("pod \"{uuid}\" is already stopped\n"));
}

#[test]
fn a_forced_stop_is_at_once() {
    let host = Host::new();
    let pod = start(&host, "trap '' TERM");
    let begin = Instant::now();
    rkt(&host, &["stop", "--force", &host.uuid()]).success();
    assert_eq!(pod.finish().code, -9);
    assert!(begin.elapsed() < Duration::from_secs(8), "took {:?}", begin.elapsed());
    // What the pod has left outside is collected, as after any kill; the harness looks.
    let status = rkt(&host, &["status", "--wait", &host.uuid()]).success().text();
    assert!(status.starts_with("state=exited\n"), "{status}");
}

#[test]
fn status_from_the_beginning_to_the_end() {
    let host = Host::new();
    let pod = start(&host, "trap 'exit 3' TERM");
    let uuid = host.uuid();
    let ready = rkt(&host, &["status", "--wait-ready", &uuid]).success().text();
    for line in ["state=running\n", "\ncreated=", "\nstarted=", "\npid=", "\nexited=false\n"] {
        assert!(ready.contains(line), "{line:?}: {ready}");
    }
    let vain = rkt(&host, &["status", "--wait=200ms", &uuid]).exited(254);
    assert!(vain.stderr.contains("timed out"), "{}", vain.stderr);
    let mut waiting = Process::start(host.rkt().args(["status", "--wait", &uuid]));
    assert!(waiting.runs());
    rkt(&host, &["stop", &uuid]).success();
    let ended = waiting.finish().success().text();
    assert!(
        ended.starts_with("state=exited\n") && ended.ends_with("exited=true\napp-busybox=3\n"),
        "{ended}"
    );
    pod.finish().exited(3);
    let json = rkt(&host, &["status", "--format=json", &uuid]).success().text();
    assert!(json.contains(r#""exit_code":3"#) && json.contains(r#""state":"exited""#), "{json}");
}
