//! Networks by CNI plugins, in network namespaces that the tests make themselves: what a test takes for the host is none.

mod capabilities;
mod kinds;
mod leftovers;
mod many;
mod metadata;
mod parts;
mod port_forward;
mod ports;
mod rules;
mod servers;
mod taps;
mod vhost;
mod world;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Process, image, stage1};
use world::{World, bridge, ptp};

/// Prints the pod's first IPv4 address.
const ADDRESS: &str = "ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'";

/// A connection to a pod, which may need a moment to listen.
fn connect(address: &str) -> TcpStream {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "nobody listens at {address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Says this to what says all again that it hears, and then that this was all, while it listens.
fn assert_echoed(mut stream: TcpStream, sent: &[u8]) {
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut received).unwrap();
    });
    assert!(received == sent, "{} bytes of {}, or others", received.len(), sent.len());
}

#[test]
fn the_default_network() {
    World::run(|world| {
        let script = format!(
            "{ADDRESS}; ip route | grep -c '^default via 172.16.28.1 dev eth0'; ping -c1 -W5 172.16.28.1 >&2"
        );
        let text = world.sh("--net", &script).success().text();
        assert!(text.starts_with("172.16.28.") && text.ends_with("\n1\n"), "{text}");
        let restricted =
            world.sh("--net=default-restricted", &format!("{ADDRESS}; ip route")).success().text();
        assert!(restricted.starts_with("172.31.") && !restricted.contains("default"), "{restricted}");
    });
}

#[test]
fn pods_of_one_bridge_talk_and_one_of_another_does_not() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        world.configure("20-other.conf", &bridge("other", "10.8.0.0/24"));
        let serve = "echo ready; exec nc -ll -p 8000 -e /bin/echo hello";
        let mut server = world.start("--net=lan:IP=10.9.0.77", serve);
        server.wait_for_line("ready");
        let ask = "ping -c1 -W5 10.9.0.77 >&2 && until nc -w5 10.9.0.77 8000; do sleep 0.1; done";
        assert_eq!(world.sh("--net=lan", ask).success().text(), "hello\n");
        world.sh("--net=other", "! ping -c1 -W1 10.9.0.77").success();
        let list = world.finish(world.rkt().arg("list")).success().text();
        assert!(list.contains("lan:ip4=10.9.0.77"), "{list}");
        let taken = world.sh("--net=lan:IP=10.9.0.77", "true").exited(254);
        assert!(taken.stderr.contains("10.9.0.77") && taken.stderr.contains("\"lan\""), "{}", taken.stderr);
        server.signal(Signal::SIGTERM);
        server.finish();
    });
}

#[test]
fn several_networks_in_the_order_of_their_files() {
    World::run(|world| {
        world.configure("10-line.conf", &ptp("line", "10.7.0.0/24"));
        world.configure("05-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let script = "ip -4 -o addr show | awk '{print $2, $4}'";
        let expected = "lo 127.0.0.1/8\neth0 10.9.0.2/24\neth1 10.7.0.2/24\n";
        assert_eq!(world.sh("--net=line,lan", script).success().text(), expected);
        let all = world.sh("--net=all", script).success().text();
        assert!(
            all.contains("eth0 10.9.") && all.contains("eth1 10.7.") && all.contains("eth2 172.16.28."),
            "{all}"
        );
    });
}

/// It is the same for a VM, whose part of it is not the plugins'.
#[test]
fn networks_are_checked() {
    if stage1() == "kvm" {
        return;
    }
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let mut old = ptp("old", "10.7.0.0/24");
        old["cniVersion"] = "0.3.1".into();
        world.configure("20-old.conf", &old);
        let mut pod = world.start("--net=lan,old", "echo ready; sleep 1000");
        pod.wait_for_line("ready");
        let uuid = world.host.uuid();
        let check = || world.finish(world.rkt().args(["status", "--check-networks", &uuid]));
        assert_eq!(check().success().text(), "network-lan=ok\nnetwork-old=unchecked\n");
        let namespace = format!("--net={}", world.host.pods()[0].join("net/namespace").display());
        let flush = ["ip", "addr", "flush", "dev", "eth0"];
        assert!(Command::new("nsenter").arg(namespace).args(flush).status().unwrap().success());
        let broken = check().exited(254);
        assert!(
            broken.stderr.contains("\"lan\"") && broken.stderr.contains("check eth0"),
            "{}",
            broken.stderr
        );
        pod.signal(Signal::SIGTERM);
        pod.finish();
        let ended = check().exited(254);
        assert!(ended.stderr.contains("not running"), "{}", ended.stderr);
    });
}

#[test]
fn an_administrators_default_replaces_the_built_in_one() {
    World::run(|world| {
        world.configure("10-mine.conf", &ptp("default", "10.7.0.0/24"));
        assert_eq!(world.sh("--net", ADDRESS).success().text(), "10.7.0.2\n");
    });
}

#[test]
fn name_servers_of_the_network() {
    World::run(|world| {
        let mut config = ptp("line", "10.7.0.0/24");
        config["dns"] = serde_json::json!({"nameservers": ["192.0.2.53"], "search": ["example.com"]});
        world.configure("10-line.conf", &config);
        let script = "grep -v '^#' /etc/resolv.conf | grep .";
        let expected = "search example.com\nnameserver 192.0.2.53\n";
        assert_eq!(world.sh("--net=line", script).success().text(), expected);
        let mut read_only = world.command("--net=line", BUSYBOX);
        read_only.args(["--readonly-rootfs", "--exec=/bin/sh", "--", "-c", script]);
        assert_eq!(world.finish(&mut read_only).success().text(), expected);
        world.sh("--net=default", "! cat /etc/resolv.conf").success();
    });
}

/// Its root may do with the pod's interfaces what root does, and nothing with those outside.
#[test]
fn a_pod_with_users_of_its_own() {
    if stage1() == "kvm" {
        return;
    }
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let serve = "ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu; echo ready; exec nc -ll -p 80 -e /bin/echo hello";
        let run = |net: &str, flags: &[&str], script: &str| {
            let mut command = world.rkt();
            command.args(["run", "--stage1=nspawn", "--private-users", net, &image(BUSYBOX)]).args(flags);
            command.args(["--exec=/bin/sh", "--", "-c", script]);
            Process::start(&mut command)
        };
        let admin = ["--caps-retain=CAP_NET_ADMIN,CAP_NET_BIND_SERVICE,CAP_NET_RAW"];
        let mut server = run("--net=lan:IP=10.9.0.77", &admin, serve);
        server.wait_for_line("1400");
        server.wait_for_line("ready");
        let ask = "ping -c1 -W5 10.9.0.1 >&2; until nc -w5 10.9.0.77 80; do sleep 0.1; done; ip link set eth0 mtu 1400 || id -u";
        assert_eq!(run("--net=lan", &[], ask).finish().success().text(), "hello\n0\n");
        server.signal(Signal::SIGTERM);
        server.finish();
    });
}

#[test]
fn what_cannot_be_had_is_said_before_anything_is_made() {
    World::run(|world| {
        world.configure("10-lan.conf", &serde_json::json!({"name": "lan", "type": "no-such-plugin"}));
        let finished = world.sh("--net=lan", "true").exited(254);
        assert!(finished.stderr.contains("no-such-plugin"), "{}", finished.stderr);
        let finished = world.sh("--net=wan,default", "true").exited(254);
        assert!(finished.stderr.contains("networks not found: wan"), "{}", finished.stderr);
        world.configure("20-bad.conf", &serde_json::json!({"name": "bad"}));
        let finished = world.sh("--net=default", "true").exited(254);
        assert!(finished.stderr.contains("20-bad.conf"), "{}", finished.stderr);
        assert!(world.host.pods().is_empty());
        std::fs::remove_file(world.net_d().join("20-bad.conf")).unwrap();
    });
}

#[test]
fn the_doctor_asks_the_plugins_of_every_network() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        world.configure("20-none.conf", &serde_json::json!({"name": "none", "type": "no-such-plugin"}));
        world.plugin("old", r#"echo '{"cniVersion":"0.2.0","supportedVersions":["0.1.0","0.2.0"]}'"#);
        let old = serde_json::json!({"cniVersion": "1.0.0", "name": "old", "type": "old"});
        world.configure("30-old.conf", &old);
        let output = world.finish(world.rkt().args(["doctor", "--format=json"])).text();
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        let row = |name: &str| {
            let mut rows = report["rows"].as_array().unwrap().iter();
            rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {output}")).clone()
        };
        assert_eq!(row("network lan")["found"], "version 0.4.0 by bridge, host-local");
        for (name, expected) in [
            ("network none", "no-such-plugin"),
            ("network old", "does not speak the configuration's version 1.0.0, but 0.1.0, 0.2.0"),
        ] {
            let row = row(name);
            assert!(row["ok"] == false && row["found"].as_str().unwrap().contains(expected), "{row}");
        }
        assert_eq!(row("ports of pods")["found"], "by /usr/lib/cni/portmap");
    });
}

/// Plugins that would fail at ADD only.
#[test]
fn the_doctor_looks_for_what_plugins_execute() {
    World::run(|world| {
        let plain = bridge("plain", "10.8.0.0/24");
        let mut masquerading = bridge("lan", "10.9.0.0/24");
        masquerading["ipMasq"] = true.into();
        world.configure("10-plain.conf", &plain);
        world.configure("20-lan.conf", &masquerading);
        let doctor = |path: &str| world.finish(world.rkt().env("PATH", path).arg("doctor")).text();
        assert!(!doctor("/usr/sbin").contains("not in PATH"));
        let told = doctor("/nowhere");
        for plugin in ["bridge", "ptp", "portmap"] {
            let needs = format!("/usr/lib/cni/{plugin} needs iptables");
            assert!(told.contains(&needs) && told.contains("add /usr/sbin to PATH"), "{told}");
        }
        assert!(told.contains("version 0.4.0 by bridge, host-local"), "{told}");
    });
}
