//! The pod's exit status is its app's.

use crate::harness::Host;

#[test]
fn codes() {
    let host = Host::new();
    for code in [0, 1, 42, 255] {
        host.sh(&format!("exit {code}")).exited(code);
    }
}

#[test]
fn death_by_signal() {
    let host = Host::new();
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139)] {
        host.sh(&format!("kill -{signal} $$; sleep 60")).exited(code);
    }
}

#[test]
fn the_status_is_recorded() {
    let host = Host::new();
    host.sh("exit 42").exited(42);
    assert_eq!(host.status("busybox"), "42");
}
