//! Other kinds of networks, and many pods.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::world::{World, bridge};
use super::{ADDRESS, assert_echoed, connect};
use crate::harness::{Aci, LIMIT, Process, stage1};

/// Runs `ip` in the test's network namespace.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn both_versions_of_ip() {
    World::run(|world| {
        let mut config = bridge("lan", "10.9.0.0/24");
        config["ipam"] = json!({"type": "host-local",
            "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]});
        world.configure("10-lan.conf", &config);
        let mut server =
            world.start("--net=lan:IP=10.9.0.77", "echo ready; exec nc -ll -p 8000 -e /bin/echo hello");
        server.wait_for_line("ready");
        // The server has the first address of the range that it asked for nothing of.
        let ask = "for at in 10.9.0.77 fd00:9::2; do until nc -w5 $at 8000; do sleep 0.1; done; done";
        assert_eq!(world.sh("--net=lan", ask).success().text(), "hello\nhello\n");
        server.signal(Signal::SIGTERM);
        server.finish();
    });
}

/// So much that it goes in segments larger than the MTU, without checksums, wherever the two ends of a card can.
#[test]
fn much_data_both_ways() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let mut echo = world.start("--net=lan:IP=10.9.0.77", "echo ready; exec nc -ll -p 8000 -e /bin/cat");
        echo.wait_for_line("ready");
        let sent: Vec<u8> =
            (0..8_u64 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        assert_echoed(connect("10.9.0.77:8000"), &sent);
        echo.signal(Signal::SIGTERM);
        echo.finish();
    });
}

/// Two MiB at one a second take no less than that in each direction, but for the first tenth of a second's and one request.
#[test]
fn a_card_moves_no_more_than_its_bandwidth() {
    if stage1() != "kvm" {
        // It takes a card of the pod's own: `limits` has that.
        return;
    }
    const BYTES: usize = 2 << 20;
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let answer = format!("cat >/dev/null; echo; exec head -c {BYTES} /dev/zero");
        let script = format!("echo ready; exec nc -ll -p 8000 -e /bin/sh -c '{answer}'");
        let isolators =
            json!([{ "name": "resource/network-bandwidth", "value": { "default": true, "limit": "1Mi" } }]);
        let exec = ["/bin/sh", "-c", &script];
        let aci = Aci::new(json!({ "exec": exec, "user": "0", "group": "0", "isolators": isolators }), &[]);
        let mut pod = Process::start(&mut world.command("--net=lan:IP=10.9.0.77", &aci.path()));
        pod.wait_for_line("ready");
        let mut stream = connect("10.9.0.77:8000");
        let begin = Instant::now();
        stream.write_all(&vec![0; BYTES]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let to_guest = begin.elapsed();
        let received = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        let from_guest = begin.elapsed() - to_guest;
        assert_eq!(received, BYTES as u64);
        for took in [to_guest, from_guest] {
            assert!(took >= Duration::from_millis(1500), "{to_guest:?} to the guest, {from_guest:?} from it");
        }
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

/// Answers questions for names: an address to those for one of IPv4, and nothing to others (RFC 1035, section 4).
fn answer_names(socket: &UdpSocket) {
    const ANSWER: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77];
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let mut answer = packet[..length].to_vec();
        let is_for_v4 = answer[length - 4..length - 2] == [0, 1];
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, u8::from(is_for_v4));
        answer.extend(ANSWER.iter().filter(|_| is_for_v4));
        socket.send_to(&answer, from).unwrap();
    }
}

#[test]
fn datagrams_both_ways() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        std::thread::spawn(move || answer_names(&socket));
        let found = world.sh("--net=lan", "nslookup web.example.com 10.9.0.1").success().text();
        assert!(found.contains("web.example.com") && found.contains("192.0.2.77"), "{found}");
    });
}

#[test]
fn a_part_of_another_interface() {
    World::run(|world| {
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        ip("link set up1 up");
        ip("addr add 10.6.0.1/24 dev up1");
        let config = json!({"cniVersion": "0.3.1", "name": "uplink", "type": "macvlan", "master": "up0", "mtu": 1400,
            "ipam": {"type": "host-local", "subnet": "10.6.0.0/24", "rangeStart": "10.6.0.10"}});
        world.configure("10-uplink.conf", &config);
        let script = format!("{ADDRESS}; cat /sys/class/net/eth0/mtu; ping -c1 -W5 10.6.0.1 >&2");
        assert_eq!(world.sh("--net=uplink", &script).success().text(), "10.6.0.10\n1400\n");
    });
}

#[test]
fn pods_that_start_at_once_have_addresses_of_their_own() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let pods: Vec<_> = (0..8).map(|_| world.start("--net=lan", &format!("{ADDRESS}; sleep 3"))).collect();
        let addresses: BTreeSet<String> = pods.into_iter().map(|pod| pod.finish().success().text()).collect();
        assert_eq!(addresses.len(), 8, "{addresses:?}");
    });
}
