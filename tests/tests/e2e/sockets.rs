//! Socket activation: an app gets the listening sockets that rkt was started with.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Aci, BUSYBOX, DEBIAN, Finished, Host, Process, image, pass_sockets, stage1};

/// Says what it was given, then answers connections with that; after the second one it fails.
const SERVER: &str = "import os,socket\n\
    names=os.environ['LISTEN_FDNAMES'].split(':')\n\
    assert os.environ['LISTEN_PID']==str(os.getpid())\n\
    assert os.environ['LISTEN_FDS']==str(len(names))\n\
    sockets=[n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/'+n) \
        and os.readlink('/proc/self/fd/'+n).startswith('socket:') and int(n)>2]\n\
    assert len(sockets)==len(names),sockets\n\
    print('ready',flush=True)\n\
    s=socket.socket(fileno=3)\n\
    for _ in range(2):\n\
    \x20 c,_=s.accept()\n\
    \x20 c.sendall(':'.join(names).encode())\n\
    \x20 c.close()\n\
    raise SystemExit(7)";

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn ask(port: u16) -> String {
    let mut text = String::new();
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn refused(command: &mut Command, expected: &str) {
    let finished = Process::start(command).finish().exited(254);
    assert!(finished.stderr.contains(expected), "{expected}: {}", finished.stderr);
}

/// The server answers on the host's port, without any network of the pod's, and again after it was started again; no other app
/// and nothing that enters has the socket.
#[test]
fn an_app_accepts_on_the_sockets_of_its_ports() {
    let host = Host::with_images(&[BUSYBOX, DEBIAN]);
    let (listener, port) = listen();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = udp.local_addr().unwrap().port();
    let mut command = host.run(&[&image(DEBIAN), "--name=server", &format!("--socket-activated={port}")]);
    command.args(["--restart=on-failure", "--user=65534", "--rlimit=NOFILE=100"]);
    command.args(["--exec=/usr/bin/python3", "--", "-c", SERVER, "---"]);
    let other = "echo fds $(ls -l /proc/self/fd | grep -c socket:) $LISTEN_FDS; dd count=1 <&3 2>/dev/null; sleep 1000";
    command.args([&image(BUSYBOX), "--name=other", &format!("--socket-activated={udp_port}/udp")]);
    command.args(["--exec=/bin/sh", "--", "-c", other]);
    let mut command = pass_sockets(&command, vec![udp.into(), listener.into()]);
    if stage1() == "kvm" {
        return refused(&mut command, "use --stage1=nspawn");
    }
    let mut pod = Process::start(command.env("LISTEN_FDNAMES", "questions:web.socket"));
    pod.wait_for_line("other: fds 1 1");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"a datagram\n", ("127.0.0.1", udp_port)).unwrap();
    pod.wait_for_line("other: a datagram");
    // The third one is of the next start.
    (0..3).for_each(|_| assert_eq!(ask(port), "web.socket"));
    let uuid = host.uuid();
    let script = "ls -l /proc/self/fd | grep socket:; echo ${LISTEN_FDS-none}";
    let mut enter = host.rkt();
    enter.args(["enter", "--app=server", &uuid, "/bin/sh", "-c", script]);
    assert_eq!(Process::start(&mut enter).finish().success().text(), "none\n");
    pod.signal(Signal::SIGTERM);
    pod.finish();
}

/// By what an image says of its port, found at the host's port that `--port` names.
#[test]
fn a_port_of_the_image_is_found_by_the_hosts_port() {
    let host = Host::empty();
    let ports = json!([{ "name": "log", "protocol": "udp", "port": 514, "socketActivated": true }]);
    let show = "echo $LISTEN_FDS $LISTEN_FDNAMES; dd count=1 <&3 2>/dev/null";
    let app = json!({ "exec": ["/bin/sh", "-c", show], "user": "0", "group": "0", "ports": ports,
        "environment": [{ "name": "LISTEN_FDNAMES", "value": "the image's" }] });
    let aci = Aci::new(app, &[]);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let command = |port: u16, users: &str| host.run(&[users, &format!("--port=log:{port}"), &aci.path()]);
    let own = "--private-users=false";
    let passing = |port, users| pass_sockets(&command(port, users), vec![udp.try_clone().unwrap().into()]);
    if stage1() == "kvm" {
        return refused(&mut passing(port, own), "port \"log\" of app \"ace\"");
    }
    for users in [own, "--private-users"] {
        udp.send_to(b"through\n", ("127.0.0.1", port)).unwrap();
        let finished = Process::start(&mut passing(port, users)).finish().success();
        assert_eq!(finished.text(), "1 log\nthrough\n", "{users}");
    }
    refused(&mut passing(1, own), "which no app of the pod takes");
    refused(&mut command(port, own), "was not passed its socket");
}

#[test]
fn what_is_passed_in_vain_or_wrong_is_refused() {
    let host = Host::new();
    let run = |descriptors, variables: &[(&str, &str)]| {
        let mut command = pass_sockets(&host.shell(&[], "echo ran"), descriptors);
        Process::start(command.envs(variables.iter().copied())).finish()
    };
    let said = |finished: Finished, expected: &str| {
        let finished = finished.exited(254);
        assert!(finished.stderr.contains(expected), "{expected}: {}", finished.stderr);
        assert!(host.pods().is_empty());
    };
    said(run(vec![listen().0.into()], &[]), "no app of the pod has a socket-activated port");
    said(run(vec![], &[("LISTEN_FDS", "abc")]), "LISTEN_FDS is \"abc\"");
    said(run(vec![], &[("LISTEN_FDS", "1")]), "descriptor 3, which LISTEN_FDS announces, cannot be used");
    said(run(vec![listen().0.into()], &[("LISTEN_FDNAMES", "a:b")]), "LISTEN_FDNAMES has 2 names");
    said(run(vec![File::open("/dev/null").unwrap().into()], &[]), "is not a socket");
    let (listener, port) = listen();
    let connected = TcpStream::connect(("127.0.0.1", port)).unwrap();
    listener.accept().unwrap().0.write_all(b"x").unwrap();
    said(run(vec![connected.into()], &[]), "Accept=no");
}

/// What is announced to another process is not rkt's, nor the pod's.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let host = Host::new();
    let mut command = host.shell(&[], "ls -l /proc/self/fd | grep socket:; echo ${LISTEN_FDS-none}");
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "abc")]);
    assert_eq!(Process::start(&mut command).finish().success().text(), "none\n");
}
