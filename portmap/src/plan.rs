//! What leads ports of the host to a pod; computed, without a look at anything.

use std::net::{IpAddr, SocketAddr};

use net::IpNetwork;
use pod::ports::PortMapping;

use crate::element::{Clients, Element};
use crate::error::Error;

/// Whose source address becomes this host's, so that the pod's answers come back here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// Nobody's: this host's loopback and the pod's own network do not reach the ports.
    None,
    /// What the pod could not answer otherwise: what comes from this host's loopback, and from the pod's own network.
    Needed,
    /// Everybody's.
    All,
}

/// What is to lead where.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// At least one.
    pub ports: &'a [PortMapping],
    /// The pod's addresses, with their networks; one of each version of IP is used.
    pub addresses: &'a [IpNetwork],
    /// How clients appear to the pod.
    pub masquerade: Masquerade,
}

impl Forwarding<'_> {
    /// All that the pod is to have in the table.
    pub fn elements(&self) -> Result<Vec<Element>, Error> {
        let pods = [false, true]
            .map(|v6| self.addresses.iter().copied().find(|network| network.address().is_ipv6() == v6));
        let mut elements = Vec::new();
        for port in self.ports {
            let pods = pods.iter().flatten().map(IpNetwork::address);
            let leads: Vec<Element> = pods.filter_map(|pod| lead(port, pod)).collect();
            if leads.is_empty() {
                return Err(Error::Nowhere(*port));
            }
            // Of two that lead from one port the first counts.
            let is_new = |lead: &Element| !elements.iter().any(|one: &Element| one.is_in_place_of(lead));
            let leads: Vec<Element> = leads.into_iter().filter(is_new).collect();
            elements.extend(leads);
        }
        elements.extend(pods.iter().flatten().flat_map(|pod| self.masquerades(*pod)));
        Ok(elements)
    }

    fn masquerades(&self, network: IpNetwork) -> Vec<Element> {
        let pod = network.address();
        let loopback = (pod.is_ipv4() && self.ports.iter().any(is_at_loopback)).then_some(Clients::Loopback);
        let others = match self.masquerade {
            Masquerade::None => return Vec::new(),
            Masquerade::Needed => Clients::Network(network.network()),
            Masquerade::All => Clients::Everybody,
        };
        loopback.into_iter().chain([others]).map(|clients| Element::Masquerade { pod, clients }).collect()
    }
}

/// From a port to the pod, unless they are of two versions of IP.
fn lead(port: &PortMapping, pod: IpAddr) -> Option<Element> {
    let same_version = port.host_ip.is_none_or(|ip| ip.is_ipv6() == pod.is_ipv6());
    same_version.then(|| Element::Lead {
        protocol: port.protocol,
        at: port.host_ip.filter(|ip| !ip.is_unspecified()),
        port: port.host_port,
        to: SocketAddr::new(pod, port.container_port),
    })
}

/// Whether this host's programs reach a port by its IPv4 loopback.
fn is_at_loopback(port: &PortMapping) -> bool {
    match port.host_ip {
        None => true,
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(IpAddr::V6(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(json: serde_json::Value) -> PortMapping {
        serde_json::from_value(json).unwrap()
    }

    fn everywhere() -> PortMapping {
        port(serde_json::json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}))
    }

    fn at(ip: &str) -> PortMapping {
        port(serde_json::json!({"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": ip}))
    }

    fn texts(
        ports: &[PortMapping],
        addresses: &[&str],
        masquerade: Masquerade,
    ) -> Result<Vec<String>, Error> {
        let addresses: Vec<IpNetwork> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let elements = Forwarding { ports, addresses: &addresses, masquerade }.elements()?;
        Ok(elements.iter().map(ToString::to_string).collect())
    }

    const V4: &str = "10.9.0.77/24";
    const V6: &str = "fd00:9::2/64";
    const LOOPBACK: &str = "this host's loopback to 10.9.0.77";

    #[test]
    fn both_versions_of_ip() {
        let expected = [
            "tcp port 8080 to 10.9.0.77:80",
            "tcp port 8080 to [fd00:9::2]:80",
            LOOPBACK,
            "10.9.0.0/24 to 10.9.0.77",
            "fd00:9::/64 to fd00:9::2",
        ];
        // A second address of a version is not needed.
        assert_eq!(texts(&[everywhere()], &[V4, V6, "10.8.0.2/16"], Masquerade::Needed).unwrap(), expected);
    }

    #[test]
    fn at_an_address_of_the_host() {
        let v4 = texts(&[at("192.0.2.7")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(v4, ["udp port 53 of 192.0.2.7 to 10.9.0.77:5353"]);
        let v6 = texts(&[at("2001:db8::7")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(v6, ["udp port 53 of 2001:db8::7 to [fd00:9::2]:5353"]);
        let any = texts(&[at("0.0.0.0")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(any, ["udp port 53 to 10.9.0.77:5353"]);
        for (ip, address) in [("2001:db8::7", V4), ("192.0.2.7", V6), ("0.0.0.0", V6)] {
            let error =
                texts(&[everywhere(), at(ip)], &[address], Masquerade::Needed).unwrap_err().to_string();
            assert!(error.contains(&format!("udp port 53 of {ip}")), "{error}");
        }
        assert!(texts(&[everywhere()], &[], Masquerade::None).is_err());
    }

    #[test]
    fn a_port_that_is_asked_for_twice_leads_to_one() {
        let other = port(serde_json::json!({"hostPort": 8080, "containerPort": 81, "protocol": "tcp"}));
        let elements = texts(&[everywhere(), other, at("127.0.0.1")], &[V4], Masquerade::None).unwrap();
        assert_eq!(elements, ["tcp port 8080 to 10.9.0.77:80", "udp port 53 of 127.0.0.1 to 10.9.0.77:5353"]);
    }

    #[test]
    fn loopback_is_left_alone_where_nothing_needs_it() {
        let reached = |ports: &[PortMapping], address, masquerade| {
            texts(ports, &[address], masquerade).unwrap().contains(&LOOPBACK.to_owned())
        };
        assert!(reached(&[at("192.0.2.7"), at("127.0.0.2")], V4, Masquerade::Needed));
        assert!(reached(&[everywhere()], V4, Masquerade::All));
        assert!(!reached(&[everywhere()], V4, Masquerade::None));
        assert!(!reached(&[at("192.0.2.7")], V4, Masquerade::Needed));
        assert!(!reached(&[everywhere()], V6, Masquerade::Needed));
    }

    #[test]
    fn everybody_may_be_masqueraded() {
        let elements = texts(&[everywhere()], &[V4], Masquerade::All).unwrap();
        assert_eq!(elements[1..], [LOOPBACK, "everybody to 10.9.0.77"]);
    }
}
