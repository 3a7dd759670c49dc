//! What to ask the kernel for, computed without asking it anything.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::Error;
use pod::guest_network::{GuestNetwork, Interface, IpNetwork, MacAddress, Route};

/// One request to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// For errors: "add the address 192.0.2.5/24 to eth0".
    pub what: String,
    /// The message.
    pub message: Message,
    /// Netlink flags beyond "request" and "acknowledge".
    pub flags: u16,
}

/// The kinds of messages that are needed. The route crate's own type for all kinds would bring the code for all of
/// them into the guest's init.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Changes an interface; with `NLM_F_CREATE` makes one.
    Link(LinkMessage),
    /// Adds an address to an interface.
    Address(AddressMessage),
    /// Removes an address from an interface.
    NoAddress(AddressMessage),
    /// Adds a route.
    Route(RouteMessage),
}

/// An interface as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Its largest packet in bytes.
    pub mtu: Option<u32>,
    /// Whether its neighbours have no Ethernet addresses to ask for.
    pub no_arp: bool,
    /// What else it is, if it is a program's.
    pub tap: Option<Tap>,
}

/// An interface whose other end is a program's (linux/if_tun.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Whether it takes several programs, which have to ask for that.
    pub multi_queue: bool,
}

/// The loopback interface's number in every network namespace (the kernel's `LOOPBACK_IFINDEX`).
const LOOPBACK_INDEX: u32 = 1;

/// Takes loopback into operation.
pub fn loopback_up() -> Request {
    set_up(LOOPBACK_INDEX, "lo")
}

/// Sets the interfaces of `network` up, which are found by MAC address among `links` and not in operation yet.
pub fn configure(network: &GuestNetwork, links: &[Link]) -> Result<Vec<Request>, Error> {
    let found: Vec<(&Interface, &Link)> = network
        .interfaces
        .iter()
        .map(|interface| {
            let link = links.iter().find(|link| link.mac == Some(interface.mac));
            link.map(|link| (interface, link)).ok_or(Error::NoInterface(interface.mac))
        })
        .collect::<Result<_, _>>()?;
    let mut requests = names(&found);
    for (interface, link) in &found {
        requests.extend(interface.mtu.map(|mtu| set_mtu(link.index, &interface.name, mtu)));
        requests
            .extend(interface.addresses.iter().map(|address| add_address(link.index, interface, *address)));
        requests.extend(interface.no_arp.then(|| have_no_arp(link.index, &interface.name)));
        requests.push(set_up(link.index, &interface.name));
    }
    // A route needs the interface up, and may need another one's network.
    for (interface, link) in &found {
        requests.extend(interface.routes.iter().map(|route| add_route(link.index, interface, route)));
    }
    Ok(requests)
}

/// Renames: first what has a name that another is to have, out of the way; a name is free when it is given.
fn names(found: &[(&Interface, &Link)]) -> Vec<Request> {
    let renamed: Vec<_> =
        found.iter().filter(|(interface, link)| interface.name.as_str() != link.name).collect();
    let in_the_way = renamed
        .iter()
        .filter(|(_, link)| renamed.iter().any(|(interface, _)| interface.name.as_str() == link.name))
        .map(|(_, link)| rename(link.index, &link.name, &format!("rename{}", link.index)));
    let last =
        renamed.iter().map(|(interface, link)| rename(link.index, &link.name, interface.name.as_str()));
    in_the_way.chain(last).collect()
}

fn rename(index: u32, from: &str, to: &str) -> Request {
    let mut message = link(index);
    message.attributes.push(LinkAttribute::IfName(to.to_owned()));
    set_link(format!("rename the network interface {from} to {to}"), message)
}

pub(crate) fn set_mtu(index: u32, name: impl fmt::Display, mtu: u32) -> Request {
    let mut message = link(index);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    set_link(format!("set the MTU of {name} to {mtu}"), message)
}

pub(crate) fn set_mac(index: u32, name: impl fmt::Display, mac: MacAddress) -> Request {
    let mut message = link(index);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    set_link(format!("set the MAC address of {name} to {mac}"), message)
}

pub(crate) fn set_up(index: u32, name: impl fmt::Display) -> Request {
    set_flag(format!("take the network interface {name} into operation"), index, LinkFlags::Up)
}

pub(crate) fn receive_all_groups(index: u32, name: impl fmt::Display) -> Request {
    let what = format!("have the network interface {name} receive all multicast groups");
    set_flag(what, index, LinkFlags::Allmulti)
}

fn have_no_arp(index: u32, name: impl fmt::Display) -> Request {
    let what = format!("have the network interface {name} ask for no neighbours' addresses");
    set_flag(what, index, LinkFlags::Noarp)
}

fn set_flag(what: String, index: u32, flag: LinkFlags) -> Request {
    let mut message = link(index);
    message.header.flags = flag;
    message.header.change_mask = flag;
    set_link(what, message)
}

fn link(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn set_link(what: String, message: LinkMessage) -> Request {
    Request { what, message: Message::Link(message), flags: 0 }
}

fn add_address(index: u32, interface: &Interface, address: IpNetwork) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address.address());
    message.header.prefix_len = address.prefix();
    message.header.scope = AddressScope::Universe;
    // The routes are those of the description, and no others. Whoever gave the guest this address has made sure that it is
    // free; looking again would cost it a second.
    let mut flags = AddressFlags::Noprefixroute;
    if address.address().is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message.attributes.push(AddressAttribute::Local(address.address()));
    message.attributes.push(AddressAttribute::Address(address.address()));
    Request {
        what: format!("add the address {address} to {}", interface.name),
        message: Message::Address(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

pub(crate) fn remove_address(index: u32, name: impl fmt::Display, address: IpNetwork) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = family(address.address());
    message.header.prefix_len = address.prefix();
    message.attributes.push(AddressAttribute::Local(address.address()));
    Request {
        what: format!("remove the address {address} from {name}"),
        message: Message::NoAddress(message),
        flags: 0,
    }
}

fn add_route(index: u32, interface: &Interface, route: &Route) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.address());
    message.header.destination_prefix_length = route.destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.gateway {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    message.attributes.push(RouteAttribute::Destination(route.destination.address().into()));
    message.attributes.push(RouteAttribute::Oif(index));
    let mut what = format!("add the route to {} by {}", route.destination, interface.name);
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        what = format!("{what} through {gateway}");
    }
    // Two interfaces may lead to one network; the first is used.
    Request { what, message: Message::Route(message), flags: NLM_F_CREATE | NLM_F_APPEND }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Vec<Link> {
        (0..2)
            .map(|number| Link {
                index: 2 + u32::from(number),
                name: format!("eth{number}"),
                mac: Some(MacAddress([2, 0, 0, 0, 0, number])),
                mtu: None,
                no_arp: false,
                tap: None,
            })
            .collect()
    }

    fn interface(number: u8, name: &str) -> Interface {
        Interface {
            mac: MacAddress([2, 0, 0, 0, 0, number]),
            name: name.parse().unwrap(),
            mtu: None,
            no_arp: false,
            addresses: vec![format!("192.0.2.{number}/24").parse().unwrap()],
            routes: Vec::new(),
        }
    }

    fn what(network: &GuestNetwork) -> Vec<String> {
        configure(network, &links()).unwrap().into_iter().map(|request| request.what).collect()
    }

    #[test]
    fn routes_come_after_all_interfaces() {
        let mut first = interface(0, "eth0");
        first
            .routes
            .push(Route { destination: "0.0.0.0/0".parse().unwrap(), gateway: "192.0.2.9".parse().ok() });
        let network = GuestNetwork { interfaces: vec![first, interface(1, "eth1")] };
        assert_eq!(
            what(&network),
            [
                "add the address 192.0.2.0/24 to eth0",
                "take the network interface eth0 into operation",
                "add the address 192.0.2.1/24 to eth1",
                "take the network interface eth1 into operation",
                "add the route to 0.0.0.0/0 by eth0 through 192.0.2.9",
            ]
        );
    }

    #[test]
    fn an_interface_without_arp() {
        let interface = Interface { no_arp: true, addresses: Vec::new(), ..interface(0, "eth0") };
        assert_eq!(
            what(&GuestNetwork { interfaces: vec![interface] }),
            [
                "have the network interface eth0 ask for no neighbours' addresses",
                "take the network interface eth0 into operation",
            ]
        );
    }

    #[test]
    fn names_can_be_swapped() {
        let network = GuestNetwork { interfaces: vec![interface(0, "eth1"), interface(1, "eth0")] };
        let renames: Vec<_> = what(&network).into_iter().filter(|what| what.starts_with("rename")).collect();
        assert_eq!(
            renames,
            [
                "rename the network interface eth0 to rename2",
                "rename the network interface eth1 to rename3",
                "rename the network interface eth0 to eth1",
                "rename the network interface eth1 to eth0",
            ]
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let network = GuestNetwork { interfaces: vec![interface(7, "eth0")] };
        let error = configure(&network, &links()).unwrap_err();
        assert!(error.to_string().contains("02:00:00:00:00:07"), "{error}");
    }
}
