//! "Event handlers": pre-start and post-stop.

use nix::sys::signal::Signal;
use serde_json::json;

use super::run_at;
use crate::harness::{Aci, Entry, Host, Process};

/// As root whoever the app is, in its root, before it and after it has been killed; what they say arrives, long as it is.
#[test]
fn handlers_run_as_root_around_the_app() {
    let host = Host::empty();
    let aci = Aci::new(
        json!({
            "exec": ["/bin/sh", "-c", "cat /run/made; trap '' TERM; id -u; while :; do sleep 0.1; done"],
            "user": "1000", "group": "2000", "workingDirectory": "/srv",
            "eventHandlers": [
                { "name": "pre-start", "exec": ["/bin/sh", "-c",
                    "echo pre $(id -u) $(id -g) $(pwd) $AC_APP_NAME; echo by handler >/run/made; echo said >&2"] },
                { "name": "post-stop", "exec": ["/bin/sh", "-c",
                    "echo post $(id -u) $(pwd) $(cat /run/made); ps | grep -c '[w]hile'; seq 1 20000; echo last"] },
            ],
        }),
        &[],
    );
    let mut pod = Process::start(&mut host.run(&[&aci.path(), "--name=app"]));
    for line in ["pre 0 0 /srv app", "by handler", "1000"] {
        pod.wait_for_line(line);
    }
    // It does not take SIGTERM, and is killed.
    pod.signal(Signal::SIGTERM);
    let finished = pod.finish().exited(137);
    let output = finished.text();
    assert!(
        output.starts_with("post 0 /srv by handler\n0\n1\n2\n") && output.ends_with("\n20000\nlast\n"),
        "{output}"
    );
    assert_eq!(finished.stderr, "said\n");
}

#[test]
fn an_app_does_not_start_without_its_pre_start_handler() {
    let host = Host::empty();
    let entries = [Entry::program("fail", b"#!/bin/sh\necho failing\nexit 3\n")];
    for (handler, words) in [
        ("/fail", &["pre-start", "/fail", "status 3"][..]),
        ("/nothing", &["pre-start", "/nothing", "not in the image"][..]),
    ] {
        let app = json!({
            "exec": ["/bin/echo", "started"], "user": "0", "group": "0",
            "eventHandlers": [{ "name": "pre-start", "exec": [handler] }],
        });
        let finished = run_at(&host, app, &entries, &[]).exited(254);
        assert!(!finished.text().contains("started"), "{}", finished.text());
        for word in words {
            assert!(finished.stderr.contains(word), "{}", finished.stderr);
        }
    }
}

#[test]
fn what_a_post_stop_handler_fails_with_is_told() {
    let app = json!({
        "exec": ["/bin/sh", "-c", "exit 4"], "user": "0", "group": "0",
        "eventHandlers": [{ "name": "post-stop", "exec": ["/nothing"] }],
    });
    let finished = run_at(&Host::empty(), app, &[], &[]).exited(4);
    assert!(
        finished.stderr.contains("post-stop") && finished.stderr.contains("/nothing"),
        "{}",
        finished.stderr
    );
}
