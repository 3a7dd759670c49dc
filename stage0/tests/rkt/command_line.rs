//! Exit statuses and where messages go.

use std::process::{Command, Stdio};

use crate::host::{Host, finish};

#[test]
fn without_a_command() {
    let finished = finish(&mut Command::new(env!("CARGO_BIN_EXE_rkt")));
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("missing command") && finished.stdout.is_empty());
}

#[test]
fn errors_of_the_command_line() {
    let host = Host::new();
    host.rkt(&["run", "--stage1=warp", "x"]).refused(&["run: ", "warp", "kvm", "nspawn"]);
    host.rkt(&["run", "--net=lan,host", "x"]).refused(&["run: ", "host", "stands alone"]);
    host.rkt(&["--insecure-options=everything", "list"]).refused(&["list: ", "everything", "all-run"]);
    host.rkt(&["unknown"]).refused(&["unknown"]);
    assert!(!host.data().exists());
}

#[test]
fn the_doctor() {
    let host = Host::new();
    let finished = host.rkt(&["doctor", "--format=json"]);
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(finished.code == 0, report["nspawn"].as_bool().unwrap(), "{}", finished.stdout);
    let row = |name: &str| {
        report["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap()
    };
    // There is none in this installation.
    let stage1 = row("stage1-kvm");
    assert!(stage1["ok"] == false && stage1["remedy"].is_string() && report["kvm"] == false, "{stage1}");
    for name in [
        "KVM",
        "overlayfs",
        "system call filters",
        "EROFS",
        "cgroup v2",
        "cgroup v1",
        "device policy",
        "user namespaces",
        "CNI plugins",
        "tap devices",
    ] {
        assert!(row(name)["found"].is_string(), "{name}");
    }
    assert!(!host.data().exists());
}

#[test]
fn a_reader_that_goes_away() {
    let host = Host::new();
    let mut child = host.command(&["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let finished = crate::host::finished(child.wait_with_output().unwrap());
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}
