//! What users tell plugins beside their configuration: names, ranges of addresses, a rate.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::world::{World, bridge};
use super::{ADDRESS, connect};
use crate::harness::{Aci, BUSYBOX, Finished, Process, stage1};

/// Keeps what it is told at ADD, and passes on what the plugin before has told.
const RECORDER: &str = r#"
config=$(cat)
[ "$CNI_COMMAND" = ADD ] || exit 0
echo "$config" >"$(dirname "$0")/told"
echo "$config" | sed 's/.*"prevResult":\(.*\),"runtimeConfig".*/\1/; t; s/.*"prevResult":\({.*}\).*}/\1/'"#;

/// A bridge, with a plugin behind it that has all of these capabilities.
fn recorded(world: &World, capabilities: &[&str]) {
    world.plugin("recorder", RECORDER);
    let capabilities: serde_json::Map<String, Value> =
        capabilities.iter().map(|name| ((*name).to_owned(), true.into())).collect();
    let plugins = [bridge("lan", "10.9.0.0/24"), json!({"type": "recorder", "capabilities": capabilities})];
    world.configure("10-lan.conflist", &json!({"name": "lan", "cniVersion": "0.4.0", "plugins": plugins}));
}

/// What the plugin was told.
fn told(world: &World) -> Value {
    let told: Value = serde_json::from_slice(&fs::read(world.net_d().join("told")).unwrap()).unwrap();
    told["runtimeConfig"].clone()
}

fn with_flags(world: &World, net: &str, flags: &[&str]) -> Finished {
    let mut command = world.command(net, BUSYBOX);
    world.finish(command.args(flags).args(["--exec=/bin/true"]))
}

#[test]
fn names_of_the_command_line() {
    World::run(|world| {
        recorded(world, &["dns"]);
        let flags = ["--dns=192.0.2.53,2001:db8::53", "--dns-search=a.example.com", "--dns-opt=ndots:2"];
        with_flags(world, "--net=lan", &flags).success();
        let expected = json!({"dns": {"servers": ["192.0.2.53", "2001:db8::53"], "searches": ["a.example.com"], "options": ["ndots:2"]}});
        assert_eq!(told(world), expected);
        for flags in [&[][..], &["--dns=host"], &["--dns=none"]] {
            with_flags(world, "--net=lan", flags).success();
            assert_eq!(told(world), Value::Null, "{flags:?}");
        }
    });
}

#[test]
fn ranges_of_addresses() {
    World::run(|world| {
        // Debian's host-local takes them in place of its own.
        let mut config = bridge("lan", "10.9.0.0/24");
        config["ipam"] = json!({"type": "host-local"});
        config["isGateway"] = false.into();
        config["capabilities"] = json!({"ipRanges": true});
        world.configure("10-lan.conf", &config);
        let address = |net: &str| world.sh(net, ADDRESS).success().text();
        assert_eq!(address("--net=lan:ipRanges=10.9.0.0/24@10.9.0.50-10.9.0.60"), "10.9.0.50\n");
        let both = "--net=lan:ipRanges=10.9.1.0/25+fd00:9::/64";
        let text = world.sh(both, "ip -o addr show eth0 | grep -v fe80 | awk '{print $4}'").success().text();
        assert_eq!(text, "10.9.1.2/25\nfd00:9::2/64\n");

        world.configure("20-other.conf", &bridge("other", "10.8.0.0/24"));
        for (net, expected) in [
            ("--net=other:ipRanges=10.8.0.0/25", "\"other\" takes no ipRanges"),
            ("--net=lan:ipRanges=10.9.0.7", "SUBNET@FIRST-LAST"),
            ("--net=lan:ipRanges=10.9.0.7/24", "which is 10.9.0.0/24"),
        ] {
            let finished = world.finish(world.command(net, BUSYBOX).arg("--exec=/bin/true"));
            assert!(matches!(finished.code, 2 | 254), "{net}: {}", finished.code);
            assert!(finished.stderr.contains(expected), "{net}: {}", finished.stderr);
        }
    });
}

/// An image whose app may move so much a second.
fn limited(limit: &str, script: &str) -> Aci {
    let isolators =
        json!([{ "name": "resource/network-bandwidth", "value": { "default": true, "limit": limit } }]);
    let exec = ["/bin/sh", "-c", script];
    Aci::new(json!({ "exec": exec, "user": "0", "group": "0", "isolators": isolators }), &[])
}

/// A bridge with Debian's plugin `bandwidth`.
fn with_bandwidth() -> Value {
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    json!({"name": "lan", "cniVersion": "1.0.0", "plugins": [bridge("lan", "10.9.0.0/24"), bandwidth]})
}

/// Two MiB at one a second take no less than that in each direction, but for the first tenth of a second's and one request. A VM's card
/// keeps to it by itself.
#[test]
fn a_pod_moves_no_more_than_its_bandwidth() {
    const BYTES: usize = 2 << 20;
    World::run(|world| {
        match stage1().as_str() {
            "kvm" => world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24")),
            _ => world.configure("10-lan.conflist", &with_bandwidth()),
        }
        let answer = format!("cat >/dev/null; echo; exec head -c {BYTES} /dev/zero");
        let script = format!("echo ready; exec nc -ll -p 8000 -e /bin/sh -c '{answer}'");
        let aci = limited("1Mi", &script);
        let mut pod = Process::start(&mut world.command("--net=lan:IP=10.9.0.77", &aci.path()));
        pod.wait_for_line("ready");
        let mut stream = connect("10.9.0.77:8000");
        let begin = Instant::now();
        stream.write_all(&vec![0; BYTES]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let to_pod = begin.elapsed();
        let received = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        let from_pod = begin.elapsed() - to_pod;
        assert_eq!(received, BYTES as u64);
        for took in [to_pod, from_pod] {
            assert!(took >= Duration::from_millis(1500), "{to_pod:?} to the pod, {from_pod:?} from it");
        }
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

#[test]
fn a_rate_that_nobody_keeps_to_is_an_error() {
    if stage1() == "kvm" {
        return;
    }
    World::run(|world| {
        recorded(world, &["bandwidth"]);
        world.configure("20-other.conf", &bridge("other", "10.8.0.0/24"));
        let aci = limited("10M", "exit 0");
        let run = |net: &str| world.finish(&mut world.command(net, &aci.path()));
        run("--net=lan").success();
        let expected = json!({"bandwidth": {"ingressRate": 80_000_000, "ingressBurst": 8_000_000,
            "egressRate": 80_000_000, "egressBurst": 8_000_000}});
        assert_eq!(told(world), expected);
        // Without a network there is nothing to keep.
        run("--net=none").success();
        for (net, expected) in [
            ("--net=other", "\"other\" keeps no pod to its resource/network-bandwidth"),
            ("--net=lan,other", "2 networks"),
            ("--net=host", "--net=host is not"),
        ] {
            let finished = run(net).exited(254);
            assert!(finished.stderr.contains(expected), "{net}: {}", finished.stderr);
        }
        assert_eq!(world.host.pods().len(), 2, "the others were never made");
    });
}
