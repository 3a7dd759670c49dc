//! What becomes of pods when their images are removed, and of images that leave the store and come back.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{BUSYBOX, Host, Process, image};

fn run(command: &mut Command) -> String {
    Process::start(command).finish().success().text()
}

fn images(host: &Host) -> usize {
    let list = run(host.rkt().args(["image", "list", "--format=json"]));
    serde_json::from_str::<Vec<Value>>(&list).unwrap().len()
}

#[test]
fn a_running_pod_keeps_its_image() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], "echo ready; read x </no/end; sleep 1000"));
    pod.wait_for_line("ready");
    run(host.rkt().args(["image", "gc", "--grace-period=0s"]));
    assert_eq!(images(&host), 1);
    run(host.rkt().args(["image", "rm", "example.com/busybox"]));
    assert_eq!(images(&host), 0);
    let list = run(host.rkt().args(["list", "--full"]));
    assert!(list.contains("example.com/busybox:1.0.0  sha512-") && list.contains("running"), "{list}");
    let uuid = host.uuid();
    let entered =
        run(host.rkt().args(["enter", &uuid, "/bin/sh", "-c", "cat /srv/kept/file; ls /bin | wc -l"]));
    assert!(entered.starts_with("upper\n"), "{entered}");
    pod.signal(Signal::SIGKILL);
    pod.finish();
    // What the store has no more, it gets again.
    assert_eq!(host.sh("echo again").success().text(), "again\n");
}

#[test]
fn an_exported_image_runs() {
    let (from, host) = (Host::new(), Host::empty());
    let exported = tempfile::NamedTempFile::new().unwrap();
    run(from.rkt().args(["image", "export", "--overwrite", "example.com/busybox"]).arg(exported.path()));
    let text = run(&mut host.run(&[exported.path().to_str().unwrap()]));
    assert_eq!(text, "hello from busybox in /srv\n");
}

#[test]
fn a_mended_image_runs() {
    use std::os::unix::fs::FileExt;
    // A store of its own, which shares no file with other tests.
    let host = Host::empty();
    let id = run(host.rkt().args(["fetch", &image(BUSYBOX)]));
    let erofs = host.path().join("cas/images").join(id.trim()).join("image.erofs");
    let file = std::fs::File::options().write(true).open(erofs).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    run(host.rkt().args(["image", "verify", id.trim()]));
    assert_eq!(host.sh("echo fine").success().text(), "fine\n");
}
