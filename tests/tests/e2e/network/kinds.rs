//! Other kinds of networks, and many pods.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use super::ADDRESS;
use super::world::{World, bridge};

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
