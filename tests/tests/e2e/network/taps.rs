//! Plugins that make a tap, which is a machine's as it is: no other interface stands between.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use super::world::World;
use super::{assert_echoed, connect};
use crate::harness::stage1;

/// Makes a tap with addresses, as the CNI project's `tap` does, and a bridge in the pod's namespace that leads from there to the host.
/// It takes the tap's flags by its configuration.
const PLUGIN: &str = r#"
flags=$(sed -n 's/.*"flags":"\([a-z_]*\)".*/\1/p')
inside() { nsenter --net="$CNI_NETNS" "$@"; }
ip link del line 2>/dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
{
    set -e
    ip link add line type veth peer name inner netns "$CNI_NETNS"
    ip addr add 10.9.0.1/24 dev line
    ip link set line up
    inside ip tuntap add "$CNI_IFNAME" mode tap $flags
    inside ip link set "$CNI_IFNAME" address 02:00:00:00:09:77 mtu 1400 up
    inside ip addr add 10.9.0.77/24 dev "$CNI_IFNAME"
    inside ip -6 addr add fd00:9::77/64 dev "$CNI_IFNAME" nodad
    inside ip route add default via 10.9.0.1 dev "$CNI_IFNAME"
    inside ip link add bridge type bridge
    inside ip link set inner master bridge up
    inside ip link set "$CNI_IFNAME" master bridge
    inside ip link set bridge up
} >&2
echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.9.0.77/24"}]}'"#;

fn with_flags(world: &World, flags: &str) {
    world.plugin("tap", PLUGIN);
    let config = json!({"cniVersion": "0.4.0", "name": "line", "type": "tap", "flags": flags});
    world.configure("10-line.conf", &config);
}

/// What `ip` prints in the namespace of the only pod.
fn ip_in_pod(world: &World, arguments: &str) -> String {
    let namespace = format!("--net={}", world.host.pods()[0].join("net/namespace").display());
    let output =
        Command::new("nsenter").arg(namespace).arg("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plugins_tap_is_the_machines() {
    if stage1() != "kvm" {
        return;
    }
    for flags in ["", "multi_queue"] {
        World::run(|world| {
            with_flags(world, flags);
            let look = "cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address; ip -o addr show eth0 | awk '{print $4}'";
            let script = format!(
                "{look}; ip route; ping -c1 -W5 10.9.0.1 >&2; echo ready; exec nc -ll -p 8000 -e /bin/cat"
            );
            let mut pod = world.start("--net=line", &script);
            for expected in ["1400", "02:00:00:00:09:77", "10.9.0.77/24", "fd00:9::77/64"] {
                pod.wait_for_line(expected);
            }
            pod.wait_for_line("default via 10.9.0.1 dev eth0 ");
            pod.wait_for_line("ready");
            assert_echoed(connect("10.9.0.77:8000"), &vec![7; 1 << 20]);
            let links = ip_in_pod(world, "-o link");
            assert!(links.contains("eth0") && !links.contains("tap0"), "{links}");
            assert!(links.contains("fe:00:00:00:09:77"), "the host's end has another address: {links}");
            assert!(!ip_in_pod(world, "addr show dev eth0").contains("10.9.0.77"), "the guest has it");
            assert!(!ip_in_pod(world, "-d link show dev eth0").contains("qdisc ingress"));
            pod.signal(Signal::SIGTERM);
            pod.finish();
        });
    }
}

/// Nobody has the other end in namespaces, but that is the plugin's matter.
#[test]
fn a_plugins_tap_is_the_pods() {
    if stage1() != "nspawn" {
        return;
    }
    World::run(|world| {
        with_flags(world, "multi_queue");
        let script = "ip -4 -o addr show eth0 | awk '{print $4}'; cat /sys/class/net/eth0/tun_flags";
        let text = world.sh("--net=line", script).success().text();
        assert!(text.starts_with("10.9.0.77/24\n0x"), "{text}");
    });
}
