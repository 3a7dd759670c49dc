//! What cannot run, and guests that fail.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::pod::{Pod, make_guest_root, needs_kvm, parts, shell, text};

/// Parts of which those whose names begin so are another file, or missing.
fn parts_with(name: &str, other: Option<&str>) -> TempDir {
    let changed = tempfile::tempdir().unwrap();
    // The program looks beside its own file, so that this is a copy.
    fs::copy(parts().join("stage1-kvm"), changed.path().join("stage1-kvm")).unwrap();
    for part in ["guest.erofs", "vmlinux", "vmlinux-norethunk"] {
        match (part.starts_with(name), other) {
            (false, _) => symlink(parts().join(part), changed.path().join(part)).unwrap(),
            (true, Some(other)) => symlink(other, changed.path().join(part)).unwrap(),
            (true, None) => {}
        }
    }
    changed
}

fn stderr_of(pod: &Pod, arguments: &[&str]) -> String {
    let output = pod.command(arguments).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(254), "{stderr}");
    stderr
}

#[test]
fn an_app_that_cannot_be_started_says_why() {
    needs_kvm!();
    let pod = Pod::new().with("app", json!({"exec": ["/bin/nope"]}));
    let stderr = stderr_of(&pod, &[]);
    assert!(stderr.contains("cannot start app \"app\"") && stderr.contains("\"/bin/nope\""), "{stderr}");
    assert_eq!(pod.status("app"), "254");
}

#[test]
fn the_hosts_network() {
    let stderr = stderr_of(&shell("true"), &["--net=host"]);
    assert!(stderr.contains("--net=host is not possible in a VM"), "{stderr}");
}

#[test]
fn a_missing_image_or_kernel_is_named() {
    needs_kvm!();
    let pod = shell("true");
    fs::remove_file(pod.path("appsinfo/app/image.erofs")).unwrap();
    assert!(stderr_of(&pod, &[]).contains("appsinfo/app/image.erofs"));
    assert!(!pod.path("scratch.ext4").exists(), "nothing half-made");
    let parts = parts_with("vmlinux", None);
    let stderr = stderr_of(&Pod::of_parts(parts.path()).with("app", json!({"exec": ["true"]})), &[]);
    assert!(stderr.contains(&parts.path().join("vmlinux").display().to_string()), "{stderr}");
}

#[test]
fn a_guest_whose_init_is_no_program() {
    needs_kvm!();
    let parts = parts_with("guest.erofs", None);
    make_guest_root(Path::new("/etc/passwd"), &parts.path().join("guest.erofs"));
    let pod = Pod::of_parts(parts.path()).with("app", json!({"exec": ["true"]}));
    let stderr = stderr_of(&pod, &[]);
    assert!(stderr.contains("the guest kernel panicked") && stderr.contains("init"), "{stderr}");
    assert_eq!(pod.status("app"), "", "an app that never ran has no status");
    assert_eq!(pod.parts(), parts.path());
}

#[test]
fn a_guest_that_resets_in_the_middle() {
    needs_kvm!();
    // Root of the pod may not reset the machine; with every capability it may.
    let pod = shell("exec /bin/busybox reboot -f");
    let stderr = stderr_of(&pod, &["--disable-capabilities-restriction"]);
    assert!(stderr.contains("the guest has reset the machine in the middle of its work"), "{stderr}");
}

#[test]
fn it_is_no_program_to_be_started_by_hand() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_stage1-kvm")).output().unwrap();
    assert_eq!(output.status.code(), Some(254));
    assert!(text(&output.stderr).contains("not an entrypoint"), "{}", text(&output.stderr));
}
