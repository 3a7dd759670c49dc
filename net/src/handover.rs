//! What a guest takes over from the interfaces that plugins have made in a network namespace.
//!
//! It is read from the kernel, not from the plugins' results: some plugins set other routes than they tell of (ptp's go through
//! the gateway, also to the address's own network), and chained ones may change what was made before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeader, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};
use pod::guest_network::{Interface, InterfaceName, IpNetwork, Route};

use crate::Error;
use crate::netlink::{Netlink, Told, attributes};
use crate::plan::{Link, Tap};

/// An interface of this network namespace, and what the guest's is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The kernel's number of the one here.
    pub index: u32,
    /// What it is, if the plugin has made a tap: then it is a machine's as it is, and nothing has to be joined to it.
    pub tap: Option<Tap>,
    /// The guest's.
    pub interface: Interface,
}

/// What a guest takes over from these interfaces of this network namespace.
pub fn read(names: &[InterfaceName]) -> Result<Vec<Handover>, Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let addresses = netlink.dump("list addresses", libc::RTM_GETADDR, &AddressMessage::default())?;
    let routes = netlink.dump("list routes", libc::RTM_GETROUTE, &RouteMessage::default())?;
    names.iter().map(|name| handover(name, &links, &addresses, &routes)).collect()
}

fn handover(
    name: &InterfaceName,
    links: &[Link],
    addresses: &[KernelAddress],
    routes: &[KernelRoute],
) -> Result<Handover, Error> {
    let link = links.iter().find(|link| link.name == name.as_str());
    let link = link.ok_or_else(|| Error::NoEthernet(name.clone()))?;
    let mac = link.mac.ok_or_else(|| Error::NoEthernet(name.clone()))?;
    let addresses = addresses.iter().filter(|address| address.interface == link.index);
    let routes = routes.iter().filter(|route| route.interface == link.index);
    let mut routes: Vec<Route> = routes.map(|route| route.route.clone()).collect();
    // A gateway is reached by a route, which has to be there first.
    routes.sort_by_key(|route| route.gateway.is_some());
    let interface = Interface {
        mac,
        name: name.clone(),
        mtu: link.mtu,
        no_arp: link.no_arp,
        addresses: addresses.map(|address| address.network).collect(),
        routes,
    };
    Ok(Handover { index: link.index, tap: link.tap, interface })
}

/// An address that somebody has given to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelAddress {
    interface: u32,
    network: IpNetwork,
}

/// Bytes of an address message before its attributes (`struct ifaddrmsg`).
const ADDRESS_HEADER_BYTES: usize = 8;

impl Told for KernelAddress {
    /// Not wanted are addresses that the guest's kernel gives itself: those of the link, and from a router's advertisement.
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = AddressHeader::parse(payload)?;
        if header.scope == AddressScope::Link || !header.flags.contains(AddressHeaderFlags::Permanent) {
            return Ok(None);
        }
        let (mut local, mut address) = (None, None);
        for attribute in attributes(payload, ADDRESS_HEADER_BYTES) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFA_LOCAL => local = ip_address(attribute.value()),
                libc::IFA_ADDRESS => address = ip_address(attribute.value()),
                _ => {}
            }
        }
        // Where both are there, the other one is the neighbour's.
        let network = local.or(address).and_then(|address| IpNetwork::new(address, header.prefix_len));
        Ok(network.map(|network| Self { interface: header.index, network }))
    }
}

/// A route that somebody has made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelRoute {
    interface: u32,
    route: Route,
}

/// Bytes of a route message before its attributes (`struct rtmsg`).
const ROUTE_HEADER_BYTES: usize = 12;

impl Told for KernelRoute {
    /// Not wanted are routes that the guest's kernel makes itself: to its own addresses, to those of links, and from a
    /// router's advertisement.
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = RouteHeader::parse(payload)?;
        let made = header.table == RouteHeader::RT_TABLE_MAIN
            && header.kind == RouteType::Unicast
            && header.protocol != RouteProtocol::Ra;
        let everywhere = match header.address_family {
            AddressFamily::Inet if made => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 if made => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => return Ok(None),
        };
        let (mut destination, mut gateway, mut interface) = (Some(everywhere), None, None);
        for attribute in attributes(payload, ROUTE_HEADER_BYTES) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::RTA_DST => destination = ip_address(attribute.value()),
                libc::RTA_GATEWAY => gateway = ip_address(attribute.value()),
                libc::RTA_OIF => interface = attribute.value().try_into().ok().map(u32::from_ne_bytes),
                _ => {}
            }
        }
        let destination = destination.filter(|destination| !is_of_link(destination));
        let destination =
            destination.and_then(|address| IpNetwork::new(address, header.destination_prefix_length));
        let both = destination.zip(interface);
        Ok(both.map(|(destination, interface)| Self { interface, route: Route { destination, gateway } }))
    }
}

fn is_of_link(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::address::AddressAttribute;
    use netlink_packet_route::route::RouteAttribute;
    use pod::guest_network::MacAddress;

    use super::*;

    const ETH0: u32 = 7;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn told<T: Told>(message: &dyn Emitable) -> Option<T> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        T::parse(&bytes).unwrap()
    }

    fn address_message(address: &str, prefix: u8) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = ETH0;
        message.header.prefix_len = prefix;
        message.header.flags = AddressHeaderFlags::Permanent;
        message.attributes.push(AddressAttribute::Address(ip(address)));
        message
    }

    fn route_message(destination: Option<&str>, prefix: u8, gateway: Option<&str>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(ETH0));
        message.attributes.extend(destination.map(|to| RouteAttribute::Destination(ip(to).into())));
        message.attributes.extend(gateway.map(|to| RouteAttribute::Gateway(ip(to).into())));
        message
    }

    fn route(message: &RouteMessage) -> Option<Route> {
        told::<KernelRoute>(message).map(|route| route.route)
    }

    #[test]
    fn addresses_that_somebody_gave() {
        let given = |message: &AddressMessage| {
            told::<KernelAddress>(message).map(|address| address.network.to_string())
        };
        let mut message = address_message("192.0.2.1", 24);
        assert_eq!(given(&message).as_deref(), Some("192.0.2.1/24"));
        message.attributes.push(AddressAttribute::Local(ip("192.0.2.5")));
        assert_eq!(given(&message).as_deref(), Some("192.0.2.5/24"), "the other one is the neighbour's");
        message.header.flags = AddressHeaderFlags::empty();
        assert_eq!(given(&message), None, "for a time");
        let mut message = address_message("fe80::1", 64);
        message.header.scope = AddressScope::Link;
        assert_eq!(given(&message), None, "the link's");
    }

    #[test]
    fn routes_that_somebody_made() {
        let found = route(&route_message(None, 0, Some("192.0.2.1"))).unwrap();
        assert_eq!(
            (found.destination.to_string(), found.gateway),
            ("0.0.0.0/0".into(), Some(ip("192.0.2.1")))
        );
        let mut local = route_message(Some("192.0.2.5"), 32, None);
        local.header.kind = RouteType::Local;
        let mut table = route_message(Some("192.0.2.0"), 24, None);
        table.header.table = 100;
        let mut advertised = route_message(None, 0, Some("192.0.2.1"));
        advertised.header.protocol = RouteProtocol::Ra;
        let mut link = route_message(Some("fe80::"), 64, None);
        link.header.address_family = AddressFamily::Inet6;
        for message in [local, table, advertised, link] {
            assert_eq!(route(&message), None, "{message:?}");
        }
    }

    #[test]
    fn a_guest_gets_what_is_its_interfaces_own() {
        let links: Vec<Link> = [("eth0", ETH0), ("eth1", 8)]
            .map(|(name, index)| Link {
                index,
                name: name.into(),
                mac: Some(MacAddress([2, 0, 0, 0, 0, index as u8])),
                mtu: Some(1400),
                no_arp: false,
                tap: (name == "eth1").then_some(Tap { multi_queue: true }),
            })
            .into();
        let addresses: Vec<KernelAddress> = [("192.0.2.5/24", ETH0), ("198.51.100.5/24", 8)]
            .map(|(network, interface)| KernelAddress { interface, network: network.parse().unwrap() })
            .into();
        let routes: Vec<KernelRoute> = [(None, 0, Some("192.0.2.1")), (Some("192.0.2.0"), 24, None)]
            .map(|(to, prefix, gateway)| told(&route_message(to, prefix, gateway)).unwrap())
            .into();
        let found = |name: &str| handover(&name.parse().unwrap(), &links, &addresses, &routes);
        let Handover { index, tap, interface } = found("eth0").unwrap();
        assert_eq!((index, tap, interface.mac.0[5], interface.mtu), (ETH0, None, 7, Some(1400)));
        assert_eq!(interface.addresses, ["192.0.2.5/24".parse().unwrap()]);
        let destinations: Vec<String> =
            interface.routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(destinations, ["192.0.2.0/24", "0.0.0.0/0"], "the way to the gateway comes first");
        assert_eq!(found("eth1").unwrap().tap, Some(Tap { multi_queue: true }));
        assert!(matches!(found("eth2"), Err(Error::NoEthernet(_))));
    }
}
