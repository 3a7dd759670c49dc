//! How a guest has its apps' images, and what it can do to them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Aci, BUSYBOX, Entry, Host, Process, image, rkt, sizes};

fn app(script: &str) -> Value {
    json!({ "exec": ["/bin/sh", "-c", script], "user": "0", "group": "0" })
}

/// More images than a machine has slots for devices.
#[test]
fn thirty_apps_of_thirty_images() {
    let host = Host::empty();
    let numbers: Vec<String> = (0..30).map(|number| format!("number {number}\n")).collect();
    let images: Vec<Aci> = numbers
        .iter()
        .map(|number| Aci::new(app("cat /number"), &[Entry::program("number", number.as_bytes())]))
        .collect();
    let mut arguments = Vec::new();
    for (index, image) in images.iter().enumerate() {
        arguments.extend((index > 0).then(|| "---".to_owned()));
        arguments.extend([
            image.path(),
            format!("--name=app{index}"),
            "--memory=8Mi".into(),
            "--cpu=100m".into(),
        ]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = Process::start(&mut host.run(&arguments)).finish().success().text();
    for (index, number) in numbers.iter().enumerate() {
        assert!(
            output.lines().any(|line| line.ends_with(number.trim()) && line.contains(&format!("app{index}"))),
            "{output}"
        );
    }
    assert_eq!(output.lines().count(), numbers.len(), "{output}");
}

/// The guest's root, and the image once for all apps.
#[test]
fn apps_of_one_image_share_it() {
    let host = Host::new();
    let busybox = image(BUSYBOX);
    let count = "grep -c 'pmem0p' /proc/partitions";
    let mut command = host.run(&[&busybox, "--name=a", "--exec=/bin/true", "---", &busybox, "--name=b"]);
    command.args(["--exec=/bin/sh", "--", "-c", count]);
    let output = Process::start(&mut command).finish().success().text();
    assert!(output.trim_end().ends_with(" 2"), "{output}");
}

/// An image whose descriptors would take more than an eighth of the guest's memory.
#[test]
fn a_large_image_in_a_small_guest_is_a_disk() {
    const HOLE_BYTES: u64 = 704 << 20;
    let look = "cat /sys/block/vdb/ro; tail -c 4 /hole | od -An -tx1; stat -c %s /hole; cat /after";
    let aci = Aci::with_hole(app(look), ("hole", HOLE_BYTES), &[Entry::program("after", b"the end\n")]);
    let host = Host::empty();
    let id = Process::start(host.rkt().args(["fetch", &aci.path()])).finish().success().text();
    let run = |memory: &str| {
        let mut debug = host.rkt();
        Process::start(debug.args(["--debug", "run", "--stage1=kvm", id.trim(), memory])).finish().success()
    };
    let small = run("--memory=16Mi");
    assert_eq!(small.text(), format!("1\n 00 00 00 00\n{HOLE_BYTES}\nthe end\n"), "{}", small.stderr);
    assert!(small.stderr.contains("\"/dev/vdb\""), "{}", small.stderr);
    let large = run("--memory=64Mi");
    assert!(large.text().ends_with("the end\n") && large.stderr.contains("No such file"), "{}", large.stderr);
    assert!(large.stderr.contains("\"/dev/pmem0p2\""), "{}", large.stderr);
}

const NODE: &str = "mknod /dev/images b $(tr : ' ' </sys/block/pmem0/dev) || exit 3; cat /sys/block/pmem0/ro";
/// Over the image's beginning, and the guest's own root before it.
const WRITE: &str = "dd if=/dev/zero of=/dev/images bs=4k count=16 conv=notrunc,fsync 2>&1; \
    dd if=/dev/zero of=/dev/images bs=4k seek=1024 count=16 conv=notrunc,fsync 2>&1";

/// The files that a guest has mapped, with what is in them.
fn mapped(host: &Host) -> Vec<(PathBuf, Vec<u8>)> {
    const IMAGE_BYTES: u64 = 64 << 10;
    let store = sizes(&host.path().join("cas")).into_iter().filter(|(_, bytes)| *bytes > IMAGE_BYTES);
    let mut files: Vec<PathBuf> = store.map(|(path, _)| path).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.push(rkt().with_file_name("guest.erofs"));
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// CVE-2026-24834: a guest's root writes to the device of its images, which other guests have mapped, too.
#[test]
fn an_image_cannot_be_written_by_a_guest() {
    let host = Host::new();
    let before = mapped(&host);
    let mut neighbour =
        Process::start(&mut host.shell(&[], "echo ready; read line; sha256sum /bin/busybox; sleep 1000"));
    neighbour.wait_for_line("ready");

    let attack = format!(
        "{NODE}; {WRITE}; blockdev --setrw /dev/images && {WRITE}; echo 3 >/proc/sys/vm/drop_caches; sha256sum /bin/busybox"
    );
    let attacked = Process::start(&mut attacker(&host, &attack)).finish().success();
    let output = attacked.text();
    assert!(output.starts_with("1\n"), "the guest's own kernel knows: {output}");
    assert!(output.contains("not permitted"), "{output}");
    assert!(
        attacked.stderr.contains("warning: the pod's guest writes to the memory of its images"),
        "{}",
        attacked.stderr
    );
    assert!(attacked.stderr.contains("times to write to the memory of its images"), "{}", attacked.stderr);

    let sum = output.lines().last().unwrap().to_owned();
    assert_eq!(
        host.sh("sha256sum /bin/busybox").success().text().trim_end(),
        sum,
        "another pod of the image"
    );
    assert!(mapped(&host) == before, "the host's files");
    neighbour.signal(Signal::SIGTERM);
    neighbour.finish();
}

/// With every capability and without the device policy.
fn attacker(host: &Host, script: &str) -> Command {
    let mut command = host.run(&["--insecure-options=image,paths,capabilities,seccomp", &image(BUSYBOX)]);
    command.args(["--exec=/bin/sh", "--", "-c", script]);
    command
}

/// It is the device policy that keeps apps from it, not the want of a capability.
#[test]
fn an_app_has_no_access_to_its_images_device() {
    let host = Host::new();
    let mut command = host.run(&["--insecure-options=image,capabilities,seccomp", &image(BUSYBOX)]);
    command.args(["--exec=/bin/sh", "--", "-c", &format!("{NODE}; {WRITE}; cat /dev/images")]);
    let finished = Process::start(&mut command).finish().exited(1);
    let output = finished.text() + &finished.stderr;
    assert_eq!(output.matches("Operation not permitted").count(), 3, "{output}");
    assert!(!output.contains("warning"), "{output}");
}
