//! Apps may make nodes of all devices, and use those that do no harm.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Output;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::pod::{Pod, shell, text};

/// A device that root needs no capability to write to.
const KERNEL_LOG: &str = "c 1 11";

/// An app that makes a node of each device ("b 8 0") and opens it, for reading and for writing; it says what fails.
fn open_all(devices: &[String]) -> Pod {
    let attempt = |device| {
        format!("busybox mknod /dev/made {device}; (: </dev/made); (: >>/dev/made); busybox rm /dev/made\n")
    };
    let attempts: String = devices.iter().map(attempt).collect();
    shell(&format!("exec 2>&1\n{attempts}"))
}

#[test]
fn nodes_of_the_hosts_devices_can_be_made_but_not_opened() {
    let numbers = fs::read_dir("/sys/class/block").unwrap().map(|device| {
        let number = fs::read_to_string(device.unwrap().path().join("dev")).unwrap();
        format!("b {}", number.trim().replace(':', " "))
    });
    let devices: Vec<String> = numbers.chain([KERNEL_LOG.to_owned()]).collect();
    let output = open_all(&devices).run();
    let expected = "/bin/sh: can't open /dev/made: Operation not permitted\n\
        /bin/sh: can't create /dev/made: Operation not permitted\n"
        .repeat(devices.len());
    assert_eq!(text(&output.stdout), expected, "{devices:?}: {}", text(&output.stderr));
}

#[test]
fn they_can_be_opened_if_the_user_wants_so() {
    let script = format!("busybox mknod /dev/made {KERNEL_LOG} && : >>/dev/made && echo opened");
    let output = shell(&script).command(&["--disable-paths"]).output().unwrap();
    assert_eq!(text(&output.stdout), "opened\n", "{}", text(&output.stderr));
}

#[test]
fn event_handlers_are_under_the_same_policy() {
    let open = format!("busybox mknod /dev/made {KERNEL_LOG} && ! (: >>/dev/made) 2>/dev/null");
    let handlers = json!([{"name": "pre-start", "exec": ["/bin/sh", "-c", open]}]);
    let section = json!({"exec": ["/bin/sh", "-c", "echo ran"], "eventHandlers": handlers});
    let output = Pod::new().with("app", section).run();
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}

#[test]
fn the_usual_devices_work() {
    let script = "\
        echo x >/dev/null && head -c 1 /dev/null | grep -c . ; \
        for device in zero full random urandom; do head -c 3 /dev/$device | busybox wc -c; done; \
        echo x >/dev/full; \
        : <>/dev/ptmx && echo ptmx; \
        busybox mknod /dev/mine c 1 3 && echo x >/dev/mine && echo made; \
        : <>/dev/tty";
    let output = shell(&format!("({script}) 2>&1")).run();
    let expected = "0\n3\n3\n3\n3\n\
        sh: write error: No space left on device\n\
        ptmx\nmade\n\
        /bin/sh: can't create /dev/tty: No such device or address\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

/// Runs a pod where no cgroups are mounted.
fn without_cgroups(pod: &Pod, arguments: &[&str]) -> Output {
    let mut command = pod.command(arguments);
    let unmount = || {
        let (none, slave) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, slave, none)?;
        Ok(umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?)
    };
    // SAFETY: it does nothing but system calls, with paths that need no memory of the heap.
    unsafe { command.pre_exec(unmount) };
    command.output().unwrap()
}

#[test]
fn a_host_that_cannot_enforce_the_policy_needs_consent() {
    let pod = shell("echo ran");
    let output = without_cgroups(&pod, &[]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(254) && output.stdout.is_empty(), "{output:?}");
    assert!(stderr.contains("mount -t cgroup2") && stderr.contains("--insecure-options=paths"), "{stderr}");
    assert!(!pod.path("subcgroup").exists() && !pod.path("pid").exists(), "before anything is made");
    let output = without_cgroups(&pod, &["--disable-paths"]);
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}
