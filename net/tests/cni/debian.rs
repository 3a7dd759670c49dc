//! Debian's plugins, unmodified.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use net::cni::{CniResult, Selected};
use net::{PodNetwork, Wishes};
use pod::ports::{PortMapping, Protocol};
use serde_json::{Value, json};

use crate::world::{World, attachment, inside, interfaces, text};

pub fn bridge(world: &World, subnet: &str) -> Value {
    json!({"name": "lan", "cniVersion": "0.4.0", "plugins": [
        {"type": "bridge", "bridge": "lan0", "isGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "subnet": subnet, "dataDir": world.path("leases"), "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": true}}
    ]})
}

pub fn ptp(world: &World) -> Value {
    json!({"name": "line", "cniVersion": "1.0.0", "plugins": [{"type": "ptp", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "10.7.0.0/24", "dataDir": world.path("leases")}}]})
}

pub struct Attached {
    network: PodNetwork,
    result: CniResult,
}

impl Attached {
    pub fn new(
        world: &World,
        config: &Value,
        id: &str,
        arguments: &[(&str, &str)],
        ports: &[PortMapping],
    ) -> Self {
        let one = attachment(config, id, arguments);
        let selected = vec![Selected { config: one.network, arguments: one.arguments, ip_ranges: None }];
        let attachments = Wishes { ports, ..Wishes::default() }.attachments(selected, id).unwrap();
        let directory = world.path("pods").join(id);
        let network = PodNetwork::create(&directory, world.planned(attachments), None).unwrap();
        let mut results = match network.attach(world.cache(), &|| false) {
            Ok(results) => results,
            Err(error) => panic!("{}", text(&error)),
        };
        Self { network, result: results.remove(0) }
    }

    fn ip(&self) -> IpAddr {
        self.result.addresses[0].network.address()
    }

    pub fn namespace(&self) -> PathBuf {
        self.network.namespace()
    }

    pub fn detach(self, world: &World) {
        self.network.detach(world.cache()).unwrap_or_else(|error| panic!("{}", text(&error)));
    }
}

/// Answers one connection in `server`'s namespace, and returns what comes of connecting to `target` by `connect`.
fn greeting(server: &Attached, port: u16, connect: impl FnOnce() -> TcpStream) -> String {
    let address = SocketAddr::new(server.ip(), port);
    let listener = inside(&server.namespace(), || TcpListener::bind(address).unwrap());
    let answering = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let mut text = String::new();
    connect().read_to_string(&mut text).unwrap();
    answering.join().unwrap();
    text
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap()
}

#[test]
fn two_pods_on_a_bridge_talk() {
    let world = World::new();
    let config = bridge(&world, "10.5.0.0/24");
    let [one, two] = ["one", "two"].map(|id| Attached::new(&world, &config, id, &[], &[]));
    assert!(inside(&one.namespace(), interfaces).contains(&"eth0".to_owned()));
    let address = SocketAddr::new(two.ip(), 80);
    let client = one.namespace();
    assert_eq!(greeting(&two, 80, || inside(&client, || connect(address))), "hello");
    assert_eq!(world.cached(), ["lan-one-eth0", "lan-two-eth0"]);
    one.detach(&world);
    two.detach(&world);
    assert_eq!(interfaces(), ["lo", "lan0"]);
    assert!(world.leases("lan").is_empty() && world.cached().is_empty());
}

#[test]
fn a_port_of_the_host_leads_to_the_pod() {
    let world = World::new();
    let port = PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
    let pod = Attached::new(&world, &bridge(&world, "10.5.0.0/24"), "one", &[], &[port]);
    let gateway = pod.result.addresses[0].gateway.unwrap();
    assert_eq!(greeting(&pod, 80, || connect(SocketAddr::new(gateway, 8080))), "hello");
    pod.detach(&world);
}

#[test]
fn point_to_point_with_a_wanted_address() {
    let world = World::new();
    let pod = Attached::new(&world, &ptp(&world), "one", &[("IP", "10.7.0.77")], &[]);
    assert_eq!(pod.ip().to_string(), "10.7.0.77");
    assert_eq!(greeting(&pod, 80, || connect("10.7.0.77:80".parse().unwrap())), "hello");
    let taken = attachment(&ptp(&world), "two", &[("IP", "10.7.0.77")]);
    let namespace = world.path("other");
    net::namespace::create(&namespace, None).unwrap();
    let error = text(&world.runtime().add(&taken, &namespace).unwrap_err());
    assert!(error.contains("10.7.0.77"), "{error}");
    world.runtime().delete(&taken, Some(&namespace)).unwrap();
    net::namespace::remove(&namespace).unwrap();
    assert_eq!(world.leases("line"), ["10.7.0.77"], "the other's is still there");
    world.runtime().check(&attachment(&ptp(&world), "one", &[]), &pod.namespace()).unwrap();
    pod.detach(&world);
    assert_eq!(interfaces(), ["lo"]);
}

#[test]
fn a_plugin_that_fails_half_way_leaves_nothing() {
    let world = World::new();
    world.script("bad", "[ $CNI_COMMAND = DEL ] || exit 1");
    let mut config = bridge(&world, "10.5.0.0/24");
    config["plugins"][1]["type"] = "bad".into();
    let attachments = vec![attachment(&config, "one", &[])];
    let network = PodNetwork::create(&world.path("pods/one"), world.planned(attachments), None).unwrap();
    network.attach(world.cache(), &|| false).unwrap_err();
    assert_eq!(world.leases("lan").len(), 1, "there is something to undo");
    network.detach(world.cache()).unwrap();
    assert_eq!(interfaces(), ["lo", "lan0"]);
    assert!(world.leases("lan").is_empty() && world.cached().is_empty());
}

#[test]
fn leases_do_not_run_out() {
    let world = World::new();
    let config = bridge(&world, "10.5.0.0/28");
    for id in 0..20 {
        Attached::new(&world, &config, &format!("pod-{id}"), &[], &[]).detach(&world);
    }
    assert!(world.leases("lan").is_empty());
}

/// As after a crash of the machine: the namespace is gone, its file and everything on disk is not.
#[test]
fn what_a_crash_has_left_is_undone() {
    let world = World::new();
    let pod = Attached::new(&world, &ptp(&world), "one", &[], &[]);
    nix::mount::umount2(&pod.namespace(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!((world.leases("line").len(), world.cached().len()), (1, 1));
    let network = PodNetwork::open(&world.path("pods/one")).unwrap().unwrap();
    network.detach(world.cache()).unwrap();
    assert!(world.leases("line").is_empty() && world.cached().is_empty());
}

#[test]
fn debians_plugins_speak_what_they_are_configured_for() {
    let world = World::new();
    let network = attachment(&bridge(&world, "10.9.0.0/24"), "pod", &[]).network;
    world.runtime().validate(&network).unwrap();
}
