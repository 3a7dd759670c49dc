//! Guests that end in the middle of their work: what has happened is told, with the last lines of the console.

use crate::harness::{BUSYBOX, Host, Process, image};

/// Runs a script as a root whom nothing confines, and gets what is told of the end of its guest.
fn end_of(script: &str) -> String {
    let host = Host::new();
    let options = ["--insecure-options=image,all-run", &image(BUSYBOX), "--memory=64Mi", "--exec=/bin/sh"];
    let finished = Process::start(host.run(&options).args(["--", "-c", script])).finish().exited(254);
    finished.stderr
}

#[test]
fn a_kernel_that_panics() {
    let told = end_of("echo 2 >/proc/sys/vm/panic_on_oom && tail /dev/zero");
    assert!(told.contains("the guest kernel panicked; the last lines of its console:"), "{told}");
    assert!(told.contains("Kernel panic - not syncing: Out of memory"), "{told}");
}

#[test]
fn a_process_that_resets_the_machine() {
    let told = end_of("reboot -f; sleep 60");
    assert!(told.contains("the guest has reset the machine in the middle of its work"), "{told}");
}

#[test]
fn an_init_cannot_be_killed_from_within() {
    let host = Host::new();
    let options = ["--insecure-options=image,all-run", &image(BUSYBOX), "--exec=/bin/sh"];
    let script = "for s in KILL SEGV TERM ABRT; do kill -$s 1; done; sleep 1; echo alive";
    let output = Process::start(host.run(&options).args(["--", "-c", script])).finish().success();
    assert_eq!(output.text(), "alive\n");
}
