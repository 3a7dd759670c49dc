//! Other kinds of networks, and many pods.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};

use nix::sys::signal::Signal;

use super::world::{World, both_versions, bridge, ptp};
use super::{ADDRESS, connect};
use crate::harness::{LIMIT, effort};

#[test]
fn both_versions_of_ip() {
    World::run(|world| {
        world.configure("10-lan.conf", &both_versions());
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

const CHUNK_BYTES: u64 = 64 << 10;

/// A part of what is sent, like no other part.
fn chunk(number: u64) -> Vec<u8> {
    let words = number * CHUNK_BYTES / 8..(number + 1) * CHUNK_BYTES / 8;
    words.flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_ne_bytes()).collect()
}

/// It goes in segments larger than the MTU, without checksums, wherever the two ends of a card can.
#[test]
fn much_data_both_ways() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let mut echo = world.start("--net=lan:IP=10.9.0.77", "echo ready; exec nc -ll -p 8000 -e /bin/cat");
        echo.wait_for_line("ready");
        let mut stream = connect("10.9.0.77:8000");
        let mut writer = stream.try_clone().unwrap();
        let chunks = 0..effort(1 << 30, 1 << 28) / CHUNK_BYTES;
        std::thread::scope(|scope| {
            let sent = chunks.clone();
            scope.spawn(move || {
                sent.for_each(|number| writer.write_all(&chunk(number)).unwrap());
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut received = vec![0; CHUNK_BYTES as usize];
            for number in chunks {
                stream.read_exact(&mut received).unwrap();
                assert!(received == chunk(number), "part {number}");
            }
            assert_eq!(stream.read(&mut received).unwrap(), 0, "nothing else");
        });
        echo.signal(Signal::SIGTERM);
        echo.finish();
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
        world.configure("10-lan.conf", &both_versions());
        let socket = UdpSocket::bind("[::]:53").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        std::thread::spawn(move || answer_names(&socket));
        for server in ["10.9.0.1", "fd00:9::1"] {
            let script = format!("nslookup web.example.com {server}");
            let found = world.sh("--net=lan", &script).success().text();
            assert!(found.contains("web.example.com") && found.contains("192.0.2.77"), "{found}");
        }
    });
}

/// Each is alone with the host, which forwards what is for another one.
#[test]
fn pods_at_the_ends_of_lines_talk() {
    World::run(|world| {
        world.configure("10-line.conf", &ptp("line", "10.7.0.0/24"));
        let mut server =
            world.start("--net=line", &format!("{ADDRESS}; exec nc -ll -p 8000 -e /bin/echo hello"));
        server.wait_for_line("10.7.0.2");
        let ask = "ping -c1 -W5 10.7.0.2 >&2; until nc -w5 10.7.0.2 8000; do sleep 0.1; done";
        assert_eq!(world.sh("--net=line", ask).success().text(), "hello\n");
        server.signal(Signal::SIGTERM);
        server.finish();
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
