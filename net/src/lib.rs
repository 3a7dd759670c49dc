//! Pod networking: CNI, network namespaces, and network interfaces by netlink.
//!
//! [`cni`] runs CNI plugins; [`PodNetwork`] is the network of a pod that has one, from the record on disk to the
//! namespace. [`resolv_conf`] is what its apps learn of it.
//!
//! A guest is attached by what plugins have made in the pod's namespace: it takes over their interfaces' addresses and routes
//! ([`handover`]), and the packets that come there ([`redirect`]), or the interface itself if it is a tap ([`line`]).
//!
//! [`configure`] gives a guest the interfaces that [`GuestNetwork`] describes; [`loopback_up`] is all that a pod without
//! a network needs. What is to be done is computed as a list of [`plan::Request`]s, which one small executor sends.

pub mod cni;
pub mod conntrack;
pub mod error;
pub mod handover;
pub mod line;
pub mod namespace;
pub mod net_info;
mod netfilter;
mod netlink;
pub mod nftables;
pub mod plan;
pub mod pod_network;
pub mod redirect;
pub mod resolv_conf;
pub mod wishes;

pub use error::Error;
pub use pod::guest_network::{GuestNetwork, Interface, InterfaceName, IpNetwork, MacAddress, Route};
pub use pod_network::PodNetwork;
pub use wishes::Wishes;

use netlink::Netlink;

/// Takes the loopback interface of this network namespace into operation; the kernel gives it its addresses.
pub fn loopback_up() -> Result<(), Error> {
    Netlink::open()?.execute(&plan::loopback_up())
}

/// Gives this network namespace's interfaces the names, addresses and routes of `network`.
pub fn configure(network: &GuestNetwork) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    plan::configure(network, &links)?.iter().try_for_each(|request| netlink.execute(request))
}
