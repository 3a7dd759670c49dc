//! Ports of the host that lead to pods by rkt's own rules, where the host has no plugin `portmap`.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::leftovers::wait_for;
use super::world::{World, both_versions, left};
use super::{assert_echoed, connect};
use crate::crash::{Points, Scenario, Victims};
use crate::harness::{Aci, BUSYBOX, Entry, Process, image, rkt, stage1};

/// Says again what it hears by TCP and by UDP.
const ECHO: &str = env!("CARGO_BIN_EXE_sender");
const PLUGIN: &str = "/usr/lib/cni/portmap";

/// A bridge that forwards ports, on a host without the CNI project's plugin for that. Packets of a pod to itself come back, too.
fn without_plugin(test: impl FnOnce(&World)) {
    World::run(|world| {
        world.hide(PLUGIN);
        let mut bridge = both_versions();
        bridge["hairpinMode"] = true.into();
        world.configure("10-lan.conflist", &forwarding(bridge));
        test(world);
    });
}

fn forwarding(plugin: Value) -> Value {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"name": "lan", "cniVersion": "1.0.0", "plugins": [plugin, portmap]})
}

fn echo() -> Aci {
    let ports = json!([{"name": "tcp", "protocol": "tcp", "port": 8000}, {"name": "udp", "protocol": "udp", "port": 8000}]);
    let app = json!({"exec": ["/echo", "echo"], "user": "0", "group": "0", "ports": ports});
    Aci::new(app, &[Entry::program("echo", &std::fs::read(ECHO).unwrap())])
}

fn start(world: &World, net: &str, ports: &[&str]) -> Process {
    let aci = echo();
    let mut command = world.command(net, &aci.path());
    let mut pod = Process::start(command.args(ports));
    pod.wait_for_line("ready");
    pod
}

/// A datagram to `address` comes back.
fn datagram(address: &str) {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    assert!(reaches(&UdpSocket::bind(any).unwrap(), address), "no datagram comes back from {address}");
}

/// Whether one of several datagrams comes back.
fn reaches(socket: &UdpSocket, address: &str) -> bool {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut packet = [0; 16];
    (0..20).any(|_| {
        // Refused is what was sent before.
        let _ = socket.send_to(b"hello", address);
        socket.recv_from(&mut packet).is_ok_and(|(length, _)| packet[..length] == *b"hello")
    })
}

#[test]
fn both_protocols_and_both_versions_of_ip() {
    without_plugin(|world| {
        let pod = start(world, "--net=lan:IP=10.9.0.77", &["--port=tcp:8080", "--port=udp:8080"]);
        for address in ["127.0.0.1:8080", "127.1.2.3:8080", "10.9.0.1:8080", "[fd00:9::1]:8080"] {
            assert_echoed(connect(address), &vec![7; 1 << 20]);
            datagram(address);
        }
        // Whoever is told "localhost" tries the other version at once.
        let begin = Instant::now();
        let refused = TcpStream::connect("[::1]:8080").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(begin.elapsed() < Duration::from_secs(5));
        // Other ports are nobody's.
        assert!(TcpStream::connect("127.0.0.1:8081").is_err());

        let aci = echo();
        let mut conflict = world.command("--net=lan", &aci.path());
        let conflict = world.finish(conflict.arg("--port=tcp:127.0.0.1:8080"));
        let uuid = world.host.pods()[0].file_name().unwrap().to_string_lossy().into_owned();
        assert!(conflict.exited(254).stderr.contains(&uuid));
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

/// Also by the pod itself, and by its neighbours.
#[test]
fn pods_reach_ports_of_the_host() {
    without_plugin(|world| {
        let aci = echo();
        let mut pod = world.command("--net=lan:IP=10.9.0.77", &aci.path());
        let script = "echo ready; /echo echo & until nc -w5 10.9.0.1 8080 </etc/hostname | grep -q rkt; do sleep 0.1; done; echo itself; wait";
        pod.args(["--port=tcp:8080", "--exec=/bin/sh", "--", "-c", script]);
        let mut pod = Process::start(&mut pod);
        pod.wait_for_line("itself");
        let ask =
            "for at in 10.9.0.1 fd00:9::1; do until echo hello | nc -w5 $at 8080; do sleep 0.1; done; done";
        assert_eq!(world.sh("--net=lan", ask).success().text(), "hello\nhello\n");
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

#[test]
fn at_one_address_of_the_host() {
    without_plugin(|world| {
        let pod = start(world, "--net=lan", &["--port=tcp:127.0.0.2:8081", "--port=udp:fd00:9::1:8081"]);
        assert_echoed(connect("127.0.0.2:8081"), b"hello");
        datagram("[fd00:9::1]:8081");
        assert!(TcpStream::connect("127.0.0.1:8081").is_err());
        assert!(TcpStream::connect("10.9.0.1:8081").is_err());
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

/// What nft tells of the table.
fn table(options: &[&str]) -> String {
    let mut command = Command::new("nft");
    let output = command.args(options).args(["list", "table", "inet", "rkt-ports"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Somebody else at the bridge, who is no pod.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let mut child = Command::new("unshare");
        child.args(["-n", "sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id();
        let commands = format!(
            "ip link add near type veth peer name eth0 netns {pid} && ip link set near master lan up && \
             nsenter -t {pid} -n sh -c 'ip link set eth0 up && ip addr add 10.9.0.200/24 dev eth0 && \
             echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet && \
             ip route add 192.0.2.0/24 via 10.9.0.1 && ip route add 127.0.0.0/8 via 10.9.0.1 src 10.9.0.200'"
        );
        assert!(Command::new("sh").args(["-c", &commands]).status().unwrap().success());
        Self(child)
    }

    /// Whether a connection is answered.
    fn reaches(&self, address: &str, port: &str) -> bool {
        let pid = self.0.id().to_string();
        let script = format!("echo hello | timeout 3 busybox nc -w2 {address} {port} | grep -q hello");
        Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-c", &script]).status().unwrap().success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        assert!(Command::new("ip").args(["link", "del", "near"]).status().unwrap().success());
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A flow of UDP goes where the rules lead now, and never to the address of a pod that is gone.
#[test]
fn a_flow_of_udp_goes_on_with_the_next_pod() {
    without_plugin(|world| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let reaches = || reaches(&socket, "10.9.0.1:8080");
        // There is the bridge, and no rule.
        world.sh("--net=lan", "true").success();
        socket.send_to(b"hello", "10.9.0.1:8080").unwrap();
        for ip in ["10.9.0.77", "10.9.0.78"] {
            let pod = start(world, &format!("--net=lan:IP={ip}"), &["--port=udp:8080"]);
            assert!(reaches(), "{ip}");
            pod.signal(Signal::SIGTERM);
            pod.finish();
        }
    });
}

/// What lets answers come back to the host's loopback lets nobody in.
#[test]
fn neighbours_do_not_reach_the_hosts_loopback() {
    without_plugin(|world| {
        let pod = start(world, "--net=lan", &["--port=tcp:8080"]);
        assert_echoed(connect("127.0.0.1:8080"), b"hello");
        let own = TcpListener::bind("127.0.0.1:9000").unwrap();
        std::thread::spawn(move || {
            for mut stream in own.incoming().flatten() {
                let _ = stream.write_all(b"hello\n");
            }
        });
        let neighbour = Neighbour::new();
        assert!(neighbour.reaches("10.9.0.1", "8080"));
        assert!(!neighbour.reaches("127.0.0.1", "9000"));
        assert!(!neighbour.reaches("127.0.0.1", "8080"));
        // Without the rule against it, it would.
        nft("flush chain inet rkt-ports received");
        assert!(neighbour.reaches("127.0.0.1", "9000"), "this test cannot fail");
        let other = start(world, "--net=lan", &["--port=tcp:8081"]);
        assert!(!neighbour.reaches("127.0.0.1", "9000"));
        pod.signal(Signal::SIGTERM);
        pod.finish();
        assert_echoed(connect("127.0.0.1:8081"), b"hello");
        // With the last pod goes what lets its answers come back.
        other.signal(Signal::SIGTERM);
        other.finish();
        assert!(!neighbour.reaches("127.0.0.1", "9000"));
        drop(neighbour);
    });
}

/// CHECK finds out, and whatever becomes of the pod, its rules go.
#[test]
fn rules_are_checked_and_collected() {
    without_plugin(|world| {
        let pod = start(world, "--net=lan", &["--port=tcp:8080"]);
        let uuid = world.host.uuid();
        let check = || world.finish(world.rkt().args(["status", "--check-networks", &uuid]));
        if stage1() == "nspawn" {
            assert_eq!(check().success().text(), "network-lan=ok\n");
        }
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        if stage1() == "nspawn" {
            let broken = check().exited(254).stderr;
            assert!(broken.contains("\"lan\"") && broken.contains("not as it was made"), "{broken}");
        }
        pod.signal(Signal::SIGTERM);
        pod.finish();

        let pod = start(world, "--net=lan", &["--port=tcp:8080"]);
        pod.signal(Signal::SIGKILL);
        pod.finish();
        assert!(left().iter().any(|what| what.contains("rkt-ports")), "{:?}", left());
        world.gc().success();
        assert_eq!(left(), Vec::<String>::new());
    });
}

/// rkt's own plugin by itself: its exit status, and what it prints.
fn plugin(verb: &str, container: &str, configuration: &Value) -> (bool, String) {
    let mut command = Command::new(rkt().with_file_name("cni/portmap"));
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", container).env("CNI_IFNAME", "eth0");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(configuration.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// What it is asked for: a port of the host that leads to an address.
fn asked(port: u16, address: &str) -> Value {
    json!({"cniVersion": "1.1.0", "name": "lan", "type": "portmap",
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": address}]},
        "runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}})
}

/// Garbage collection that leaves one container.
fn collection(valid: &str) -> Value {
    let valid = json!([{"containerID": valid, "ifname": "eth0"}]);
    json!({"cniVersion": "1.1.0", "name": "lan", "type": "portmap", "cni.dev/valid-attachments": valid})
}

const DONE: (bool, String) = (true, String::new());

/// rkt has DEL called for whatever is left, and so needs no GC; others may.
#[test]
fn the_plugin_collects_what_is_of_nobody() {
    World::run(|_| {
        let (one, two) = (asked(8081, "10.9.0.2/24"), asked(8082, "10.9.0.3/24"));
        for (container, asked) in [("one", &one), ("two", &two)] {
            // What is there is made again.
            for _ in 0..2 {
                let (success, result) = plugin("ADD", container, asked);
                assert!(success && result.contains("10.9.0."), "{result}");
            }
            assert_eq!(plugin("CHECK", container, asked), DONE);
        }
        let (success, changed) = plugin("CHECK", "one", &asked(8082, "10.9.0.2/24"));
        assert!(!success && changed.contains("nothing leads from tcp port 8082"), "{changed}");
        let gc = collection("two");
        assert_eq!(plugin("GC", "", &gc), DONE);
        assert!(!plugin("CHECK", "one", &one).0);
        assert_eq!(plugin("CHECK", "two", &two), DONE);
        nft("flush chain inet rkt-ports received");
        let (success, changed) = plugin("CHECK", "two", &two);
        assert!(!success && changed.contains("no rule \\\"loopback takes answers only"), "{changed}");
        assert_eq!(left(), ["table inet rkt-ports"]);
        for _ in 0..2 {
            assert_eq!(plugin("DEL", "two", &two), DONE);
        }
        assert_eq!(plugin("STATUS", "", &gc), DONE);
        let (success, versions) = plugin("VERSION", "", &json!({"cniVersion": "1.0.0"}));
        assert!(success && versions.contains("\"0.1.0\"") && versions.contains("\"1.1.0\""), "{versions}");
        let (success, error) = plugin("ADD", "one", &json!({"cniVersion": "1.0.0", "name": "lan"}));
        assert!(!success && error.contains("\"code\":7"), "{error}");
    });
}

/// systemd starts again what was killed, and nobody has collected it.
#[test]
fn the_port_of_a_pod_that_was_killed_leads_to_the_next() {
    without_plugin(|world| {
        let ports = ["--port=tcp:8080"];
        for address in ["10.9.0.77", "10.9.0.78"] {
            let pod = start(world, &format!("--net=lan:IP={address}"), &ports);
            assert_echoed(connect("127.0.0.1:8080"), b"hello");
            pod.signal(Signal::SIGKILL);
            pod.finish();
        }
        assert!(!left().is_empty());
        world.gc().success();
    });
}

/// Whoever comes second is told who has it, and takes nothing away when it goes.
#[test]
fn two_that_want_one_port() {
    World::run(|_| {
        let (one, two) = (asked(8081, "10.9.0.2/24"), asked(8081, "10.9.0.3/24"));
        assert!(plugin("ADD", "one", &one).0);
        let (success, error) = plugin("ADD", "two", &two);
        assert!(!success && error.contains("tcp port 8081 is taken by lan/one/eth0"), "{error}");
        assert_eq!(plugin("DEL", "two", &two), DONE);
        assert_eq!(plugin("CHECK", "one", &one), DONE);
        // What had another port has it no more when it gets a new one.
        assert!(plugin("ADD", "one", &asked(8082, "10.9.0.2/24")).0);
        assert!(plugin("ADD", "two", &two).0);
        for (container, asked) in [("one", &one), ("two", &two)] {
            assert_eq!(plugin("DEL", container, asked), DONE);
        }
    });
}

/// What several do at once is done one after the other.
#[test]
fn many_at_once() {
    World::run(|_| {
        // Threads are in the namespaces of the one that makes them.
        let added = std::thread::scope(|scope| {
            let add = |pod: u16| {
                let (container, address) = (format!("pod-{pod}"), format!("10.9.0.{pod}/24"));
                let own = asked(9000 + pod, &address);
                for _ in 0..3 {
                    assert!(plugin("ADD", &container, &own).0);
                    assert_eq!(plugin("DEL", &container, &own), DONE);
                }
                plugin("ADD", &container, &asked(8081, &address)).0
            };
            let threads: Vec<_> = (2..10).map(|pod| scope.spawn(move || add(pod))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|added| *added).count()
        });
        assert_eq!(added, 1, "one port is for one");
        assert_eq!(plugin("GC", "", &collection("nobody")), DONE);
    });
}

/// Of whatever a kill leaves, of the plugin or of nft, DEL makes what there was before.
#[test]
fn a_plugin_that_is_killed_at_any_point() {
    World::run(|_| {
        let (other, own) = (asked(8081, "10.9.0.2/24"), asked(8082, "10.9.0.3/24"));
        assert!(plugin("ADD", "other", &other).0);
        let before = table(&[]);
        let mut input = tempfile::NamedTempFile::new().unwrap();
        input.write_all(own.to_string().as_bytes()).unwrap();
        for verb in ["ADD", "DEL"] {
            let begin = || {
                if verb == "DEL" {
                    assert!(plugin("ADD", "own", &own).0);
                }
                let mut command = Command::new("env");
                command.args([&format!("CNI_COMMAND={verb}"), "CNI_CONTAINERID=own", "CNI_IFNAME=eth0"]);
                command.args(["sh", "-c", "exec \"$0\" <\"$1\""]).arg(rkt().with_file_name("cni/portmap"));
                command.arg(input.path());
                ((), command)
            };
            Scenario { name: verb, victims: Victims::All, points: Points::All }.crash(begin, |(), when| {
                println!("{when}");
                assert_eq!(plugin("CHECK", "other", &other), DONE, "{when}");
                assert_eq!(plugin("DEL", "own", &own), DONE, "{when}");
                assert_eq!(table(&[]), before, "{when}");
            });
        }
        assert_eq!(plugin("DEL", "other", &other), DONE);
    });
}

/// Neither a rule nor the record of a port stays.
#[test]
fn a_parent_of_a_pod_with_a_port_that_is_killed_at_any_point() {
    without_plugin(|world| {
        let aci = echo();
        let begin = || {
            let mut command = world.command("--net=lan", &aci.path());
            command.args(["--port=tcp:8080", "--exec=/bin/true"]);
            ((), command)
        };
        let points = if stage1() == "nspawn" { Points::All } else { Points::Some(6) };
        let scenario = Scenario { name: "run --port, its parent", victims: Victims::First, points };
        scenario.crash(begin, |(), when| {
            println!("{when}");
            wait_for(|| {
                world.gc().success();
                left().is_empty() && world.host.pods().is_empty()
            });
            let records = world.host.path().join("ports");
            assert!(std::fs::read_dir(records).into_iter().flatten().next().is_none(), "{when}");
        });
    });
}

/// More than the kernel has room for hooks. They cost packets nothing.
#[test]
fn thousands_of_pods() {
    const PODS: usize = 2000;
    without_plugin(|world| {
        let pod = start(world, "--net=lan:IP=10.9.0.77", &["--port=tcp:8080"]);
        let uuid = world.host.uuid();
        let rules = || table(&["-t"]);
        let before = rules();
        // In one transaction, since one by one they would take a minute.
        let others: String = (0..PODS)
            .map(|number| {
                let (address, owner) =
                    (format!("10.10.{}.{}", number / 256, number % 256), format!("lan/pod-{number}/eth0"));
                let command = "create element inet rkt-ports";
                format!(
                    "{command} everywhere4 {{ tcp . {} comment \"{owner}\" : {address} . 80 }}\n\
                     {command} loopback4 {{ {address} comment \"{owner}\" }}\n\
                     {command} network4 {{ {address} . 10.10.0.0/16 comment \"{owner}\" }}\n",
                    10_000 + number
                )
            })
            .collect();
        nft(&others);
        let next = start(world, "--net=lan:IP=10.9.0.78", &["--port=tcp:8081"]);
        assert_eq!(rules(), before);
        for address in ["127.0.0.1:8080", "127.0.0.1:8081"] {
            assert_echoed(connect(address), b"hello");
        }
        let last = asked(9999 + u16::try_from(PODS).unwrap(), "10.10.7.207/16");
        assert_eq!(plugin("CHECK", &format!("pod-{}", PODS - 1), &last), DONE);
        next.signal(Signal::SIGTERM);
        next.finish();
        assert_eq!(plugin("GC", "", &collection(&uuid)), DONE);
        assert!(!plugin("CHECK", &format!("pod-{}", PODS - 1), &last).0);
        assert_echoed(connect("127.0.0.1:8080"), b"hello");
        pod.signal(Signal::SIGTERM);
        pod.finish();
    });
}

#[test]
fn a_host_that_has_neither_says_so() {
    without_plugin(|world| {
        let doctor = || world.finish(world.rkt().arg("doctor")).text();
        assert!(doctor().contains("by rkt's own"), "{}", doctor());
        for place in ["/usr/sbin/nft", "/sbin/nft"] {
            if std::path::Path::new(place).is_file() {
                world.hide(place);
            }
        }
        let told = doctor();
        assert!(told.contains("ports are led to pods by nft") && told.contains("nftables"), "{told}");
        let aci = echo();
        let mut command = world.command("--net=lan", &aci.path());
        let finished = world.finish(command.arg("--port=tcp:8080")).exited(254);
        assert!(
            finished.stderr.contains("nft") && finished.stderr.contains("Debian: nftables"),
            "{}",
            finished.stderr
        );
        world.gc().success();
        // Who wants no port needs none of it.
        let mut without = world.command("--net=lan", &image(BUSYBOX));
        world.finish(without.arg("--exec=/bin/true")).success();
    });
}
