//! What is asked for in a wrong way is an error that says so, before anything is created.

use crate::harness::{BUSYBOX, Finished, Host, Process, image, rkt, stage1};

/// Runs with these arguments after `run`, and expects exit status 254, these words, and no pod.
fn refused(host: &Host, arguments: &[&str], words: &[&str]) {
    let mut command = host.rkt();
    command.arg("run").args(arguments);
    complains(Process::start(&mut command).finish(), words);
    assert!(host.pods().is_empty(), "{arguments:?} left a pod");
}

fn complains(finished: Finished, words: &[&str]) {
    assert_eq!(finished.code, 254, "{}", finished.stderr);
    for word in words {
        assert!(finished.stderr.contains(word), "\"{word}\" is not in: {}", finished.stderr);
    }
}

#[test]
fn unsigned_images_need_consent() {
    let host = Host::new();
    let mut command = std::process::Command::new(rkt());
    command.arg(format!("--dir={}", host.path().display()));
    command.args(["run", "--stage1", &stage1(), &image(BUSYBOX)]);
    complains(Process::start(&mut command).finish(), &["--insecure-options=image"]);
    assert!(host.pods().is_empty());
}

#[test]
fn an_unknown_stage1() {
    refused(&Host::new(), &["--stage1=warp", &image(BUSYBOX)], &["warp", "kvm", "nspawn"]);
}

#[test]
fn networks_that_are_not_there() {
    for net in ["unheard-of", "host:IP=1.2.3.4", "", "none,host"] {
        let stage1 = format!("--stage1={}", stage1());
        let net = format!("--net={net}");
        refused(&Host::new(), &[&stage1, &net, &image(BUSYBOX)], &["net"]);
    }
}

#[test]
fn an_image_that_is_not_there() {
    let stage1 = format!("--stage1={}", stage1());
    refused(&Host::empty(), &[&stage1, "/no/such/image.aci"], &["/no/such/image.aci"]);
    refused(&Host::empty(), &[&stage1, "example.com/unheard-of"], &["example.com/unheard-of"]);
}

#[test]
fn a_command_that_is_not_there() {
    let host = Host::new();
    let mut command = host.run(&[&image(BUSYBOX), "--exec=/bin/no-such-command"]);
    complains(Process::start(&mut command).finish(), &["/bin/no-such-command"]);
    let mut command = host.run(&[&image(BUSYBOX), "--exec=/etc/passwd"]);
    complains(Process::start(&mut command).finish(), &["/etc/passwd"]);
}

#[test]
fn a_terminal_that_is_not_there() {
    let mut command = Host::new().run(&["--interactive", &image(BUSYBOX)]);
    complains(Process::start(&mut command).finish(), &["--interactive", "terminal"]);
}

/// A missing /dev/kvm, in a mount namespace where another device is in its place.
#[test]
fn no_kvm() {
    let host = Host::new();
    let rkt = format!("{} --dir={} --insecure-options=image", rkt().display(), host.path().display());
    let script = format!(
        "[ -e /dev/kvm ] || : >/dev/kvm; mount --bind /dev/null /dev/kvm && exec {rkt} run --stage1=kvm {}",
        image(BUSYBOX)
    );
    let mut command = std::process::Command::new("unshare");
    complains(Process::start(command.args(["-m", "sh", "-c", &script])).finish(), &["/dev/kvm"]);
    assert!(host.pods().is_empty());
}

/// An installation without its guest kernel.
#[test]
fn no_guest_kernel() {
    let host = Host::new();
    let installation = tempfile::tempdir().unwrap();
    for name in ["rkt", "stage1-kvm", "stage1-nspawn", "guest-init"] {
        std::fs::copy(rkt().with_file_name(name), installation.path().join(name)).unwrap();
    }
    let mut command = std::process::Command::new(installation.path().join("rkt"));
    command.arg(format!("--dir={}", host.path().display()));
    command.args(["--insecure-options=image", "run", "--stage1=kvm", &image(BUSYBOX)]);
    complains(Process::start(&mut command).finish(), &["vmlinux"]);
    assert!(host.pods().is_empty());
}

#[test]
fn the_doctor_knows_this_machine() {
    let output = Process::start(Host::new().rkt().arg("doctor")).finish().text();
    for word in ["/dev/kvm", "cgroup", "overlay", "EROFS"] {
        assert!(output.to_lowercase().contains(&word.to_lowercase()), "\"{word}\" is not in: {output}");
    }
}
