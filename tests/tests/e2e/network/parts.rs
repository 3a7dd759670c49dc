//! Parts of another interface: `macvlan` and `ipvlan`.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::world::World;
use super::{ADDRESS, assert_echoed, connect};
use crate::harness::{DEBIAN, LIMIT, Process};

/// Runs `ip` in the test's network namespace.
fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().unwrap().success()
}

/// An interface of the host's, and a neighbour of it, 10.6.0.1.
fn uplink() {
    let commands = [
        "link add up0 type veth peer name up1",
        "link set up0 up",
        "link set up1 up",
        "addr add 10.6.0.1/24 dev up1",
        "route add 239.0.0.0/8 dev up1",
    ];
    commands.into_iter().for_each(|command| assert!(ip(command), "ip {command}"));
}

/// The network of parts of it.
fn parts(kind: &str, mode: &str) -> Value {
    json!({"cniVersion": "0.3.1", "name": "uplink", "type": kind, "mode": mode, "master": "up0", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "10.6.0.0/24", "rangeStart": "10.6.0.10"}})
}

/// Whether this kernel has such parts.
fn has(kind: &str) -> bool {
    let there = ip(&format!("link add link up0 name trial type {kind}"));
    if there {
        assert!(ip("link del trial"));
    } else {
        println!("skipped: this kernel has no {kind}");
    }
    there
}

/// Starts a pod that answers.
fn server(world: &World) -> Process {
    let serve =
        format!("{ADDRESS}; cat /sys/class/net/eth0/mtu; echo ready; exec nc -ll -p 8000 -e /bin/cat");
    let mut server = world.start("--net=uplink", &serve);
    for expected in ["10.6.0.10", "1400", "ready"] {
        server.wait_for_line(expected);
    }
    server
}

/// Another pod sends it 1 MiB and gets it back, so that both send much.
fn assert_pods_talk(world: &World) {
    let ask = "ping -c1 -W5 10.6.0.10 >&2 && head -c 1048576 /dev/urandom >sent && \
               until nc -w5 10.6.0.10 8000 <sent >received && cmp sent received; do sleep 0.1; done && echo same";
    assert_eq!(world.sh("--net=uplink", ask).success().text(), "same\n");
}

/// Two pods and the neighbour, each with each.
fn all_talk(world: &World) {
    let server = server(world);
    assert_echoed(connect("10.6.0.10:8000"), &vec![7; 1 << 20]);
    world.sh("--net=uplink", "ping -c1 -W5 10.6.0.1").success();
    assert_pods_talk(world);
    end(server);
}

fn end(server: Process) {
    server.signal(Signal::SIGTERM);
    server.finish();
}

#[test]
fn macvlan_pods_talk() {
    World::run(|world| {
        uplink();
        world.configure("10-uplink.conf", &parts("macvlan", "bridge"));
        all_talk(world);
    });
}

#[test]
fn ipvlan_pods_talk() {
    World::run(|world| {
        uplink();
        if has("ipvlan") {
            world.configure("10-uplink.conf", &parts("ipvlan", "l2"));
            all_talk(world);
        }
    });
}

/// The kernel routes between such pods and asks nobody for Ethernet addresses. From outside it takes routes to them.
#[test]
fn routed_ipvlan_pods_talk() {
    World::run(|world| {
        uplink();
        if has("ipvlan") {
            world.configure("10-uplink.conf", &parts("ipvlan", "l3"));
            let server = server(world);
            assert_pods_talk(world);
            end(server);
        }
    });
}

/// Such an interface passes on only what somebody of its namespace listens to, unless it is told to pass all.
#[test]
fn groups_that_an_app_joins() {
    const LISTEN: &str = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5000)); \
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes([239, 1, 2, 3, 10, 6, 0, 10])); \
        print(s.recv(100).decode())";
    World::run(|world| {
        uplink();
        world.configure("10-uplink.conf", &parts("macvlan", "bridge"));
        let socket = UdpSocket::bind("10.6.0.1:0").unwrap();
        let heard = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut command = world.command("--net=uplink", DEBIAN);
            let listener = Process::start(command.args(["--exec=/usr/bin/python3", "--", "-c", LISTEN]));
            scope.spawn(|| {
                for _ in 0..LIMIT.as_secs() * 10 {
                    if heard.load(Ordering::Relaxed) {
                        break;
                    }
                    socket.send_to(b"hello", "239.1.2.3:5000").unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let finished = listener.finish();
            heard.store(true, Ordering::Relaxed);
            assert_eq!(finished.success().text(), "hello\n");
        });
    });
}
