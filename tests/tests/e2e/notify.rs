//! Readiness: an app tells rkt, and rkt tells the service manager.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, DEBIAN, Host, Process, image};

/// Of three apps one tells that it is ready, late and with a read-only root, and one must not be believed for it.
#[test]
fn a_pod_is_ready_when_its_apps_say_so() {
    let host = Host::with_images(&[BUSYBOX, DEBIAN]);
    let manager = host.path().join("manager");
    let manager_socket = UnixDatagram::bind(&manager).unwrap();
    let program = "import os,socket,sys,time\n\
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        s.send(b'STATUS=warming up')\n\
        print('waiting',flush=True)\n\
        while not os.path.exists('/dev/shm/go'): time.sleep(.1)\n\
        s.send(b'STATUS=up\\nREADY=1')\n\
        time.sleep(1000)";
    let annotation = "--annotation=appc.io/executor/supports-systemd-notify=true";
    let mut command =
        host.run(&[&image(DEBIAN), "--name=late", annotation, "--user=65534", "--readonly-rootfs"]);
    command.args(["--exec=/usr/bin/python3", "--", "-c", program, "---"]);
    let other = "echo NOTIFY_SOCKET=$NOTIFY_SOCKET $(ls /run/systemd 2>&1); sleep 1000";
    command.args([&image(BUSYBOX), "--name=other", "--exec=/bin/sh", "--", "-c", other]);
    command.env("NOTIFY_SOCKET", &manager);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("late: waiting");
    let uuid = host.uuid();
    let wait = |limit: &str| {
        Process::start(host.rkt().args(["status", &format!("--wait-ready={limit}"), &uuid])).finish()
    };
    assert!(wait("1s").exited(254).stderr.contains("is not ready"));
    Process::start(host.rkt().args(["enter", "--app=other", &uuid, "touch", "/dev/shm/go"]))
        .finish()
        .success();
    assert!(wait("600s").success().text().starts_with("state=running\n"));
    let mut message = [0; 100];
    manager_socket.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    let length = manager_socket.recv(&mut message).unwrap();
    let wanted = format!("READY=1\nMAINPID={}", pod.pid());
    assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), wanted);
    pod.signal(Signal::SIGTERM);
    let output = pod.finish().text();
    assert!(!output.contains("/notify"), "the other app has no such socket: {output}");
}
