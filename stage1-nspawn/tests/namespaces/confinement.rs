//! Filters of system calls and limits of processes take effect, whoever the app's user is.

use serde_json::{Value, json};

use crate::pod::{Pod, text};

pub fn confined(user: &str, script: &str, isolators: Value) -> Pod {
    let section =
        json!({"exec": ["/bin/sh", "-c", script], "user": user, "group": user, "isolators": isolators});
    Pod::new().with("app", section)
}

/// Standard output; nothing else may have gone wrong.
fn output(pod: &Pod) -> String {
    let output = pod.run();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

pub fn remove(calls: &[&str], errno: Option<&str>) -> Value {
    json!({"name": "os/linux/seccomp-remove-set", "value": {"set": calls, "errno": errno}})
}

pub fn no_new_privileges() -> Value {
    json!({"name": "os/linux/no-new-privileges", "value": true})
}

/// What the kernel ends a process with whose call a filter refuses: 128 and SIGSYS.
pub const KILLED: i32 = 128 + 31;

const STATUS: &str = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";

#[test]
fn every_app_has_a_filter() {
    for user in ["0", "33"] {
        assert_eq!(output(&confined(user, STATUS, json!([]))), "NoNewPrivs:\t0\nSeccomp:\t2\n", "{user}");
        let pod = confined(user, STATUS, json!([no_new_privileges()]));
        assert_eq!(output(&pod), "NoNewPrivs:\t1\nSeccomp:\t2\n", "{user}");
    }
    let all = json!([{"name": "os/linux/seccomp-retain-set", "value": {"set": ["@appc.io/all"]}}]);
    assert_eq!(output(&confined("0", STATUS, all)), "NoNewPrivs:\t0\nSeccomp:\t0\n");
}

#[test]
fn the_user_can_do_without() {
    let pod = confined("0", STATUS, json!([remove(&["mkdir"], None)]));
    let output = pod.command(&["--disable-seccomp"]).output().unwrap();
    assert!(text(&output.stdout).ends_with("Seccomp:\t0\n"), "{output:?}");
}

#[test]
fn a_removed_call_fails_as_was_asked_for() {
    let script = "mkdir /tmp/x 2>&1; ls -d /tmp";
    for user in ["0", "33"] {
        for isolators in [
            json!([remove(&["mkdir"], Some("EXDEV"))]),
            json!([remove(&["mkdir"], Some("EXDEV")), no_new_privileges()]),
        ] {
            let found = output(&confined(user, script, isolators));
            assert!(
                found.contains("Invalid cross-device link") && found.ends_with("\n/tmp\n"),
                "{user}: {found}"
            );
        }
        let found = output(&confined(user, "mkdir /tmp/x; echo $?", json!([remove(&["mkdir"], None)])));
        assert_eq!(found, "159\n", "killed by SIGSYS");
    }
}

/// What is needed between the app's set-up and its program's first instruction is nothing that a filter can refuse.
#[test]
fn a_filter_refuses_nothing_of_the_set_up() {
    let ours = [
        "setgroups",
        "setresgid",
        "setresuid",
        "capset",
        "capget",
        "prctl",
        "chdir",
        "close_range",
        "umask",
        "seccomp",
        "rt_sigaction",
        "rt_sigprocmask",
        "access",
        "faccessat",
        "faccessat2",
        "stat",
        "statx",
        "newfstatat",
        "prlimit64",
        "sendmsg",
        "openat",
        "open",
        "mmap",
        "munmap",
        "brk",
        "close",
    ];
    for user in ["0", "33"] {
        // Found in PATH, not in its first directory; the filter ends the program itself, by its first call.
        let section =
            json!({"exec": ["true"], "user": user, "group": user, "isolators": [remove(&ours, None)]});
        let output = Pod::new().with("app", section).run();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(159), ""), "{user}");
    }
}

#[test]
fn the_default_filter_follows_the_capabilities() {
    let script = "unshare -m echo done || echo refused";
    let admin = json!([{"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_SYS_ADMIN"]}}]);
    assert_eq!(output(&confined("0", script, json!([]))), "refused\n");
    assert_eq!(output(&confined("0", script, admin.clone())), "done\n");
    // Its own CAP_SYS_ADMIN is gone with the execution.
    assert_eq!(output(&confined("33", script, admin)), "refused\n");
}

#[test]
fn limits_of_processes() {
    let rlimits = json!([{"name": "os/linux/rlimits", "value": [
        {"name": "NOFILE", "soft": 100, "hard": 200}, {"name": "CORE", "soft": 0, "hard": 0},
    ]}]);
    for user in ["0", "33"] {
        let pod = confined(user, "ulimit -n; ulimit -Hn; ulimit -c", rlimits.clone());
        assert_eq!(output(&pod), "100\n200\n0\n", "{user}");
    }
}
