//! What pods have in the table's maps and sets, as data, as text for nft, and as the kernel has it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use net::{IpNetwork, nftables};
use pod::ports::{PortMapping, Protocol};

/// An element of a map or a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// What leads from a port of the host to a pod.
    Lead {
        /// Whose port.
        protocol: Protocol,
        /// Of the host; at every address of the pod's version of IP, if absent.
        at: Option<IpAddr>,
        /// At these.
        port: u16,
        /// In the pod.
        to: SocketAddr,
    },
    /// Whom a pod takes for this host, so that its answers come back here.
    Masquerade {
        /// Its address.
        pod: IpAddr,
        /// Who is meant.
        clients: Clients,
    },
}

/// Who uses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clients {
    /// Programs of this host, by its loopback.
    Loopback,
    /// Who is in a network.
    Network(IpNetwork),
    /// All.
    Everybody,
}

/// A map or a set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    kind: Kind,
    v6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Everywhere,
    At,
    Loopback,
    Network,
    Everybody,
}

impl Set {
    /// All that the table has.
    pub const ALL: [Self; 9] = [
        Self { kind: Kind::Everywhere, v6: false },
        Self { kind: Kind::Everywhere, v6: true },
        Self { kind: Kind::At, v6: false },
        Self { kind: Kind::At, v6: true },
        Self { kind: Kind::Loopback, v6: false },
        Self { kind: Kind::Network, v6: false },
        Self { kind: Kind::Network, v6: true },
        Self { kind: Kind::Everybody, v6: false },
        Self { kind: Kind::Everybody, v6: true },
    ];
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Everywhere => "everywhere",
            Kind::At => "at",
            Kind::Loopback => "loopback",
            Kind::Network => "network",
            Kind::Everybody => "everybody",
        };
        write!(f, "{name}{}", if self.v6 { 6 } else { 4 })
    }
}

impl Element {
    /// Where it is.
    pub fn set(&self) -> Set {
        let (kind, ip) = match self {
            Self::Lead { at: None, to, .. } => (Kind::Everywhere, to.ip()),
            Self::Lead { at: Some(_), to, .. } => (Kind::At, to.ip()),
            Self::Masquerade { pod, clients: Clients::Loopback } => (Kind::Loopback, *pod),
            Self::Masquerade { pod, clients: Clients::Network(_) } => (Kind::Network, *pod),
            Self::Masquerade { pod, clients: Clients::Everybody } => (Kind::Everybody, *pod),
        };
        Set { kind, v6: ip.is_ipv6() }
    }

    /// What nft finds it by.
    pub fn key(&self) -> String {
        match self {
            Self::Lead { protocol, at: None, port, .. } => format!("{protocol} . {port}"),
            Self::Lead { protocol, at: Some(at), port, .. } => format!("{at} . {protocol} . {port}"),
            Self::Masquerade { pod, clients: Clients::Network(network) } => format!("{pod} . {network}"),
            Self::Masquerade { pod, .. } => pod.to_string(),
        }
    }

    /// Where nft is to lead it, in a map.
    pub fn data(&self) -> Option<String> {
        match self {
            Self::Lead { to, .. } => Some(format!("{} . {}", to.ip(), to.port())),
            Self::Masquerade { .. } => None,
        }
    }

    /// Whether the table has room for one of the two only.
    pub fn is_in_place_of(&self, other: &Self) -> bool {
        self.set() == other.set() && self.key() == other.key()
    }

    /// Whether no two pods can have both: what leads from one port, or two of one address.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Masquerade { pod, .. }, Self::Masquerade { pod: other, .. }) => pod == other,
            (Self::Lead { to, .. }, Self::Lead { to: other_to, .. }) => {
                let (one, other) = (self.mapping(), other.mapping());
                let overlap = one.zip(other).is_some_and(|(one, other)| one.conflicts_with(&other));
                overlap && to.is_ipv6() == other_to.is_ipv6()
            }
            _ => false,
        }
    }

    /// Of what leads somewhere.
    pub fn mapping(&self) -> Option<PortMapping> {
        match *self {
            Self::Lead { protocol, at, port, to } => {
                Some(PortMapping { host_port: port, container_port: to.port(), protocol, host_ip: at })
            }
            Self::Masquerade { .. } => None,
        }
    }

    /// What the kernel has in a set; none, if it is nothing of ours.
    pub fn parse(set: Set, element: &nftables::Element) -> Option<Self> {
        let (mut key, mut data, v6) = (Fields(&element.key), Fields(&element.data), set.v6);
        if matches!(set.kind, Kind::Everywhere | Kind::At) {
            let at = if set.kind == Kind::At { Some(key.address(v6)?) } else { None };
            let (protocol, port) = (key.protocol()?, key.number()?);
            let to = SocketAddr::new(data.address(v6)?, data.number()?);
            return Some(Self::Lead { protocol, at, port, to });
        }
        let pod = key.address(v6)?;
        let clients = match set.kind {
            Kind::Loopback => Clients::Loopback,
            Kind::Network => Clients::Network(network(key.address(v6)?, &element.last, v6)?),
            _ => Clients::Everybody,
        };
        Some(Self::Masquerade { pod, clients })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lead { protocol, at: None, port, to } => write!(f, "{protocol} port {port} to {to}"),
            Self::Lead { protocol, at: Some(at), port, to } => {
                write!(f, "{protocol} port {port} of {at} to {to}")
            }
            Self::Masquerade { pod, clients: Clients::Loopback } => {
                write!(f, "this host's loopback to {pod}")
            }
            Self::Masquerade { pod, clients: Clients::Network(network) } => write!(f, "{network} to {pod}"),
            Self::Masquerade { pod, clients: Clients::Everybody } => write!(f, "everybody to {pod}"),
        }
    }
}

/// That begins with an address and ends with the one in the last key.
fn network(first: IpAddr, last: &[u8], v6: bool) -> Option<IpNetwork> {
    let mut fields = Fields(last);
    fields.address(v6)?;
    let prefix = match (first, fields.address(v6)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => return None,
    };
    IpNetwork::new(first, u8::try_from(prefix).ok()?)
}

/// The parts of a key or of data, each in as many words of four bytes as it needs.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn address(&mut self, v6: bool) -> Option<IpAddr> {
        if v6 {
            self.take().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into())
        } else {
            self.take().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into())
        }
    }

    fn protocol(&mut self) -> Option<Protocol> {
        match self.take()? {
            [6, 0, 0, 0] => Some(Protocol::Tcp),
            [17, 0, 0, 0] => Some(Protocol::Udp),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<u16> {
        self.take().map(|[high, low, _, _]| u16::from_be_bytes([high, low]))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn lead(protocol: Protocol, at: Option<&str>, port: u16, to: &str) -> Element {
        Element::Lead { protocol, at: at.map(|at| at.parse().unwrap()), port, to: to.parse().unwrap() }
    }

    pub fn masquerade(pod: &str, clients: Clients) -> Element {
        Element::Masquerade { pod: pod.parse().unwrap(), clients }
    }

    fn kernel(key: &[&[u8]], last: &[&[u8]], data: &[&[u8]]) -> nftables::Element {
        nftables::Element {
            key: key.concat(),
            last: last.concat(),
            data: data.concat(),
            comment: "somebody".into(),
        }
    }

    #[test]
    fn as_the_kernel_has_them() {
        let v6 = "fd00:9::2".parse::<Ipv6Addr>().unwrap().octets();
        let end = "fd00:9::ffff:ffff:ffff:ffff".parse::<Ipv6Addr>().unwrap().octets();
        let start = "fd00:9::".parse::<Ipv6Addr>().unwrap().octets();
        let (pod, port): (&[u8], &[u8]) = (&[10, 9, 0, 2], &[0, 80, 0, 0]);
        let (tcp, udp): (&[u8], &[u8]) = (&[6, 0, 0, 0], &[17, 0, 0, 0]);
        let host: &[u8] = &[0x1f, 0x90, 0, 0];
        let network = |text: &str| Clients::Network(text.parse().unwrap());
        for (element, set, key, data, kernel) in [
            (
                lead(Protocol::Tcp, None, 8080, "10.9.0.2:80"),
                "everywhere4",
                "tcp . 8080",
                Some("10.9.0.2 . 80"),
                kernel(&[tcp, host], &[], &[pod, port]),
            ),
            (
                lead(Protocol::Udp, Some("fd00:9::2"), 8080, "[fd00:9::2]:80"),
                "at6",
                "fd00:9::2 . udp . 8080",
                Some("fd00:9::2 . 80"),
                kernel(&[&v6, udp, host], &[], &[&v6, port]),
            ),
            (
                masquerade("10.9.0.2", Clients::Loopback),
                "loopback4",
                "10.9.0.2",
                None,
                kernel(&[pod], &[], &[]),
            ),
            (
                masquerade("10.9.0.2", network("10.9.0.0/23")),
                "network4",
                "10.9.0.2 . 10.9.0.0/23",
                None,
                kernel(&[pod, &[10, 9, 0, 0]], &[pod, &[10, 9, 1, 255]], &[]),
            ),
            (
                masquerade("fd00:9::2", network("fd00:9::/64")),
                "network6",
                "fd00:9::2 . fd00:9::/64",
                None,
                kernel(&[&v6, &start], &[&v6, &end], &[]),
            ),
            (
                masquerade("fd00:9::2", Clients::Everybody),
                "everybody6",
                "fd00:9::2",
                None,
                kernel(&[&v6], &[], &[]),
            ),
        ] {
            assert_eq!(element.set().to_string(), set);
            assert_eq!((element.key().as_str(), element.data().as_deref()), (key, data));
            assert!(Set::ALL.contains(&element.set()));
            assert_eq!(Element::parse(element.set(), &kernel), Some(element));
            for cut in 0..kernel.key.len() {
                let cut = nftables::Element { key: kernel.key[..cut].to_vec(), ..kernel.clone() };
                assert_eq!(Element::parse(element.set(), &cut), None);
            }
        }
        // Neither TCP nor UDP.
        let sctp = kernel(&[&[132, 0, 0, 0], host], &[], &[pod, port]);
        assert_eq!(Element::parse(Set { kind: Kind::Everywhere, v6: false }, &sctp), None);
    }

    #[test]
    fn one_port_is_one_pods() {
        let all = lead(Protocol::Tcp, None, 8080, "10.9.0.2:80");
        assert!(all.excludes(&lead(Protocol::Tcp, Some("192.0.2.7"), 8080, "10.9.0.3:90")));
        assert!(!all.excludes(&lead(Protocol::Tcp, None, 8081, "10.9.0.3:90")));
        assert!(!all.excludes(&lead(Protocol::Udp, None, 8080, "10.9.0.3:90")));
        assert!(!all.excludes(&lead(Protocol::Tcp, None, 8080, "[fd00:9::2]:80")));
        assert!(!all.excludes(&masquerade("10.9.0.2", Clients::Loopback)));
        let one = lead(Protocol::Tcp, Some("192.0.2.7"), 8080, "10.9.0.2:80");
        assert!(!one.excludes(&lead(Protocol::Tcp, Some("192.0.2.8"), 8080, "10.9.0.3:80")));
        let masqueraded = masquerade("10.9.0.2", Clients::Loopback);
        assert!(masqueraded.excludes(&masquerade("10.9.0.2", Clients::Everybody)));
    }
}
