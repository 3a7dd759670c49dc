//! "Isolators" and "Linux Isolators", as an image's manifest has them.

use serde_json::{Value, json};

use super::run_at;
use crate::harness::{Finished, Host};

/// Runs a script under these isolators.
fn under(host: &Host, isolators: &[(&str, Value)], script: &str) -> Finished {
    let isolators: Vec<Value> =
        isolators.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let exec = ["/bin/sh", "-c", script];
    run_at(host, json!({ "exec": exec, "user": "0", "group": "0", "isolators": isolators }), &[], &[])
}

/// Which isolators were ignored must be known: here none is, for the app does not run without.
#[test]
fn what_is_not_carried_out_is_refused() {
    let host = Host::empty();
    for (name, value) in [
        ("example.com/unheard-of", json!(true)),
        ("os/unix/sysctl", json!({ "net.ipv4.ip_forward": "1" })),
        // These are for all devices of a machine, or for nothing.
        ("resource/block-bandwidth", json!({ "limit": "2M" })),
        ("resource/block-iops", json!({ "default": false, "limit": "1000" })),
        ("resource/network-bandwidth", json!({ "default": true, "limit": "16m" })),
    ] {
        let finished = under(&host, &[(name, value)], "exit 0").exited(254);
        assert!(finished.stderr.contains(name), "{name}: {}", finished.stderr);
    }
    assert!(host.pods().is_empty());
}

#[test]
fn sets_that_cannot_be() {
    const REMOVE: &str = "os/linux/seccomp-remove-set";
    const RETAIN: &str = "os/linux/seccomp-retain-set";
    let host = Host::empty();
    let set = |names: &[&str]| json!({ "set": names });
    let errno = |errno: &str| json!({ "set": ["mkdir"], "errno": errno });
    for (isolators, word) in [
        (vec![(REMOVE, set(&[]))], "empty"),
        (vec![(RETAIN, set(&[]))], "empty"),
        (vec![(REMOVE, set(&["mkdri"]))], "mkdri"),
        // Names are case-sensitive, and what begins with @ is a list or nothing.
        (vec![(REMOVE, set(&["MKDIR"]))], "MKDIR"),
        (vec![(REMOVE, set(&["@appc.io/nothing"]))], "@appc.io/nothing"),
        (vec![(REMOVE, errno("EFOO"))], "EFOO"),
        (vec![(REMOVE, errno("eperm"))], "eperm"),
        (vec![(REMOVE, set(&["mkdir"])), (RETAIN, set(&["mkdir"]))], "exclude"),
        (vec![(REMOVE, set(&["mkdir"])), (REMOVE, set(&["rmdir"]))], "more than one"),
        (vec![(RETAIN, set(&["mkdir"])), (RETAIN, set(&["rmdir"]))], "more than one"),
        (vec![("os/linux/capabilities-retain-set", set(&["CAP_FLY"]))], "CAP_FLY"),
        (vec![("os/linux/capabilities-remove-set", set(&["CAP_FLY"]))], "CAP_FLY"),
        (
            vec![
                ("os/linux/capabilities-retain-set", set(&["CAP_KILL"])),
                ("os/linux/capabilities-remove-set", set(&["CAP_KILL"])),
            ],
            "capabilities-re",
        ),
        (vec![("os/linux/apparmor-profile", json!({ "profile": "rkt-has-no-such-profile" }))], "AppArmor"),
        (vec![("resource/memory", json!({ "limit": "2X" }))], "2X"),
        (vec![("resource/memory", json!({ "request": "2G", "limit": "1G" }))], "request"),
    ] {
        let finished = under(&host, &isolators, "exit 0").exited(254);
        assert!(finished.stderr.contains(word), "{isolators:?}: {}", finished.stderr);
        assert!(host.pods().is_empty(), "{isolators:?}");
    }
}

/// What is blocked and what is not, call by call: `system_calls::`.
#[test]
fn special_sets_and_the_end_by_a_signal() {
    let host = Host::empty();
    let show = "grep ^Seccomp: /proc/self/status; unshare -m true 2>/dev/null || echo blocked";
    let filtered = "Seccomp:\t2\nblocked\n";
    for (name, set, wanted) in [
        ("retain", json!({ "set": ["@appc.io/all"] }), "Seccomp:\t0\nblocked\n"),
        ("retain", json!({ "set": ["read", "@appc.io/all"] }), "Seccomp:\t0\nblocked\n"),
        ("remove", json!({ "set": ["@appc.io/empty"] }), filtered),
    ] {
        let isolator = format!("os/linux/seccomp-{name}-set");
        let finished = under(&host, &[(&isolator, set.clone())], show).success();
        assert_eq!(finished.text(), wanted, "{name} {set}");
    }
    // An empty errno is none.
    for set in [json!({ "set": ["mkdir"] }), json!({ "set": ["mkdir"], "errno": "" })] {
        let finished = under(&host, &[("os/linux/seccomp-remove-set", set.clone())], "mkdir /tmp/x; echo $?");
        assert_eq!(finished.success().text(), "159\n", "{set}");
    }
}

#[test]
fn capabilities_that_are_retained_and_removed() {
    let host = Host::empty();
    let show = "sed -n 's/^CapBnd:\\t//p' /proc/self/status";
    for (name, set, wanted) in [
        ("retain", &["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"][..], "0000000000001400\n"),
        ("remove", &["CAP_SYS_CHROOT", "CAP_MKNOD"], "00000000a00025fb\n"),
        // Not one of the default ones.
        ("remove", &["CAP_SYS_ADMIN"], "00000000a80425fb\n"),
    ] {
        let isolator = format!("os/linux/capabilities-{name}-set");
        let finished = under(&host, &[(&isolator, json!({ "set": set }))], show).success();
        assert_eq!(finished.text(), wanted, "{name} {set:?}");
    }
}

/// By default an app may gain privileges by what it executes; it may not if the image says so.
#[test]
fn no_new_privileges() {
    let host = Host::empty();
    let show = "sed -n 's/^NoNewPrivs:\\t//p' /proc/self/status";
    for (isolators, wanted) in [
        (&[][..], "0\n"),
        (&[("os/linux/no-new-privileges", json!(false))], "0\n"),
        (&[("os/linux/no-new-privileges", json!(true))], "1\n"),
    ] {
        assert_eq!(under(&host, isolators, show).success().text(), wanted, "{isolators:?}");
    }
}

/// What is consumed in excess of the limit ends the app, however the limit is written.
#[test]
fn quantities_of_a_limit() {
    let host = Host::empty();
    for limit in ["64Mi", "65536Ki", "67108864"] {
        let isolators = [("resource/memory", json!({ "request": "32Mi", "limit": limit }))];
        let script = "exec dd if=/dev/zero of=/dev/null bs=80M count=1";
        let finished = under(&host, &isolators, script).exited(137);
        assert!(finished.stderr.contains("its limit is 67108864 bytes"), "{}", finished.stderr);
    }
}
