//! A guest takes over what plugins have made. What is a tap's other end in a VM is another interface here, in a network
//! namespace that stands for the guest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use net::{GuestNetwork, handover, redirect};
use serde_json::{Value, json};

use crate::debian::{Attached, bridge, ptp};
use crate::world::{World, inside};

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// What stands for a guest; its namespace is gone with it.
struct Guest {
    namespace: PathBuf,
    network: GuestNetwork,
}

impl Drop for Guest {
    fn drop(&mut self) {
        net::namespace::remove(&self.namespace).unwrap();
    }
}

/// Attaches a guest to a pod's network.
fn guest(world: &World, pod: &Attached, id: &str) -> Guest {
    let namespace = world.path(&format!("guest-{id}"));
    net::namespace::create(&namespace, None).unwrap();
    let taken_over = inside(&pod.namespace(), || {
        ip(&["link", "add", "tap0", "type", "veth", "peer", "name", "card"]);
        ip(&["link", "set", "card", "netns", namespace.to_str().unwrap()]);
        let taken_over = handover::read(&["eth0".parse().unwrap()]).unwrap().remove(0);
        redirect::join(&taken_over, "tap0").unwrap();
        taken_over.interface
    });
    let network = GuestNetwork { interfaces: vec![taken_over] };
    inside(&namespace, || {
        ip(&["link", "set", "card", "address", &network.interfaces[0].mac.to_string()]);
        net::configure(&network).unwrap();
    });
    Guest { namespace, network }
}

/// What comes of connecting to a guest that greets.
fn greeting(guest: &Guest, address: SocketAddr, connect: impl FnOnce() -> TcpStream) -> String {
    let listener = inside(&guest.namespace, || TcpListener::bind(address).unwrap());
    let answering = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let mut text = String::new();
    connect().read_to_string(&mut text).unwrap();
    answering.join().unwrap();
    text
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, Duration::from_secs(10))
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn routes(guest: &Guest) -> Vec<String> {
    let routes = guest.network.interfaces[0].routes.iter();
    routes
        .map(|route| match route.gateway {
            Some(gateway) => format!("{} via {gateway}", route.destination),
            None => route.destination.to_string(),
        })
        .collect()
}

#[test]
fn two_guests_on_a_bridge_talk() {
    let world = World::new();
    let mut config = bridge(&world, "10.5.0.0/24");
    config["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "fd00:5::/64"}]]);
    let pods = ["one", "two"].map(|id| Attached::new(&world, &config, id, &[], &[]));
    let [one, two] = [("one", &pods[0]), ("two", &pods[1])].map(|(id, pod)| guest(&world, pod, id));
    let addresses: Vec<String> =
        one.network.interfaces[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.5.0.2/24", "fd00:5::2/64"]);
    assert_eq!(routes(&one), ["10.5.0.0/24", "fd00:5::/64", "0.0.0.0/0 via 10.5.0.1"]);
    let addresses = ["10.5.0.2:80", "[fd00:5::2]:80"].map(|address| address.parse().unwrap());
    for address in addresses {
        assert_eq!(greeting(&one, address, || inside(&two.namespace, || connect(address))), "hello");
    }
    assert_eq!(greeting(&one, addresses[0], || connect(addresses[0])), "hello", "from the host");
    pods.into_iter().for_each(|pod| pod.detach(&world));
    let rules = Command::new("iptables").args(["-t", "nat", "-S", "POSTROUTING"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&rules).trim(), "-P POSTROUTING ACCEPT", "no translation is left");
}

/// The plugin's routes, not those that follow from the address: the gateway is the only neighbour.
#[test]
fn a_guest_at_the_end_of_a_line() {
    let world = World::new();
    let config: Value = ptp(&world);
    let pods = ["one", "two"].map(|id| Attached::new(&world, &config, id, &[], &[]));
    let [one, two] = [("one", &pods[0]), ("two", &pods[1])].map(|(id, pod)| guest(&world, pod, id));
    assert_eq!(one.network.interfaces[0].mtu, Some(1400));
    assert_eq!(routes(&one), ["10.7.0.1/32", "10.7.0.0/24 via 10.7.0.1"]);
    let address = "10.7.0.2:80".parse().unwrap();
    assert_eq!(greeting(&one, address, || connect(address)), "hello");
    // ptp has the host forward packets.
    assert_eq!(greeting(&one, address, || inside(&two.namespace, || connect(address))), "hello");
    pods.into_iter().for_each(|pod| pod.detach(&world));
}

#[test]
fn an_interface_that_is_not_there() {
    let _world = World::new();
    let error = handover::read(&["eth7".parse().unwrap()]).unwrap_err();
    assert!(error.to_string().contains("eth7"), "{error}");
    let error = handover::read(&["lo".parse().unwrap()]).unwrap();
    let error = redirect::join(&error[0], "tap0").unwrap_err();
    assert!(error.to_string().contains("tap0"), "{error}");
}

#[test]
fn this_kernel_can_redirect() {
    redirect::check().unwrap();
}
