//! A pod leaves nothing behind.

use std::fs;
use std::os::unix::process::CommandExt;

use crate::pod::{shell, text, wait_until};

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn neither_mounts_nor_cgroups_nor_processes() {
    let before = mounts();
    let pod = shell("sleep 1000 & exit 1").pack("app");
    assert_eq!(pod.run().status.code(), Some(1));
    assert_eq!(mounts(), before);
    assert!(!pod.cgroups().is_empty(), "cgroups were made");
    assert!(pod.cgroups().iter().all(|cgroup| !cgroup.exists()));
    let pid = fs::read_to_string(pod.path("pid")).unwrap();
    assert!(!fs::exists(format!("/proc/{}", pid.trim())).unwrap());
}

#[test]
fn gc_removes_what_a_crash_has_left() {
    let pod = shell("echo ready; sleep 1000");
    let mut running = pod.start();
    std::io::Read::read_exact(running.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let pid = fs::read_to_string(pod.path("pid")).unwrap();
    wait_until("the pod is gone", || !fs::exists(format!("/proc/{}", pid.trim())).unwrap());
    assert!(pod.cgroups().iter().any(|cgroup| cgroup.exists()), "there is something to remove");
    for _ in 0..2 {
        let output = pod.command(&["--debug"]).arg0("gc").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(pod.cgroups().iter().all(|cgroup| !cgroup.exists()));
    }
}

#[test]
fn gc_touches_no_other_cgroup() {
    let pod = shell("true");
    let other = pod.path("other/rkt-of-somebody");
    fs::create_dir_all(&other).unwrap();
    fs::write(pod.path("subcgroup"), format!("{}\n/\n", other.display())).unwrap();
    let output = pod.command(&[]).arg0("gc").output().unwrap();
    assert!(output.status.success() && other.exists());
}

#[test]
fn what_is_wrong_is_said_before_anything_is_made() {
    let pod = shell("true");
    let refused = |arguments: &[&str], expected: &str| {
        let output = pod.command(arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(254) && stderr.contains(expected), "{stderr}");
        assert!(!pod.path("subcgroup").exists());
    };
    refused(&["--net=a,host"], "stands alone");
    refused(&["--net=lan", "--local-config=/nowhere"], "networks not found: lan");
    refused(&["--interactive"], "needs a terminal");
    refused(&["--private-users=0:1"], "range of users");
    refused(&["--private-users=65536:65536"], "no lock of the pod's users");
    let mut command = pod.command(&[]);
    let output = command.env_remove("RKT_LOCK_FD").output().unwrap();
    assert!(text(&output.stderr).contains("RKT_LOCK_FD is not set"));
    fs::remove_dir_all(pod.tree("app")).unwrap();
    refused(&[], "has no image in the pod's directory");
}
