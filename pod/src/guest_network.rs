//! What a guest's network is to be; sent to it as it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The interfaces of a guest. Loopback is not among them: it is always up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// In the order in which they are set up.
    pub interfaces: Vec<Interface>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// By which it is found.
    pub mac: MacAddress,
    /// What it is to be called.
    pub name: InterfaceName,
    /// The largest packet in bytes; the driver's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it asks for no neighbours' Ethernet addresses: whoever has the frames next looks no further than at their packets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_arp: bool,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpNetwork>,
    /// The routes that go out here, those to the networks of its own addresses among them.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: IpNetwork,
    /// Through whom; neighbours if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// Implements serde's two traits by way of the text form.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

serde_as_text!(MacAddress);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
            .collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            Error::syntax(text, "a MAC address (six two-digit hexadecimal numbers, joined by colons)")
        })
    }
}

/// An interface's name, by the kernel's rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

serde_as_text!(InterfaceName);

/// The kernel's IFNAMSIZ without the closing zero.
const NAME_MAX: usize = 15;

impl InterfaceName {
    /// `eth0`, `eth1`, ...
    pub fn ethernet(index: usize) -> Self {
        Self(format!("eth{index}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        // '%' would make the kernel choose a number.
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(allowed);
        match fits && !matches!(text, "." | "..") {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::syntax(
                text,
                "an interface's name (1 to 15 characters, no space, '/', ':' or '%')",
            )),
        }
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

serde_as_text!(IpNetwork);

impl IpNetwork {
    /// None if an address of this kind has fewer bits than `prefix`.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix })
    }

    /// The address, whose host part is kept.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of its bits are the network's.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The network by its first address.
    pub fn network(&self) -> Self {
        let prefix = u32::from(self.prefix);
        let address = match self.address {
            IpAddr::V4(ip) => (ip & Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0))).into(),
            IpAddr::V6(ip) => (ip & Ipv6Addr::from(u128::MAX.checked_shl(128 - prefix).unwrap_or(0))).into(),
        };
        Self { address, ..*self }
    }

    /// Whether an address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let there = Self { address, ..*self };
        address.is_ipv4() == self.address.is_ipv4() && there.network() == self.network()
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNetwork {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('/')
            .and_then(|(address, prefix)| {
                let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
                Self::new(address, prefix)
            })
            .ok_or_else(|| Error::syntax(text, "an address with its prefix's length, such as 192.0.2.5/24"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_and_nonsense_does_not() {
        for text in ["192.0.2.5/24", "0.0.0.0/0", "2001:db8::5/128"] {
            assert_eq!(text.parse::<IpNetwork>().unwrap().to_string(), text);
        }
        for bad in ["192.0.2.5", "192.0.2.5/33", "2001:db8::/129", "192.0.2/24", "/0"] {
            assert!(bad.parse::<IpNetwork>().is_err(), "{bad}");
        }
        assert_eq!("02:00:0a:ff:00:01".parse::<MacAddress>().unwrap().to_string(), "02:00:0a:ff:00:01");
        for bad in ["", "02:00:0a:ff:00", "02:00:0a:ff:00:01:02", "2:0:a:f:0:1", "0g:00:00:00:00:00"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap().network().to_string();
        for (text, first) in [
            ("192.0.2.77/26", "192.0.2.64/26"),
            ("192.0.2.77/32", "192.0.2.77/32"),
            ("192.0.2.77/0", "0.0.0.0/0"),
            ("2001:db8::5/64", "2001:db8::/64"),
            ("2001:db8::5/0", "::/0"),
        ] {
            assert_eq!(network(text), first);
        }
        let lan: IpNetwork = "192.0.2.1/26".parse().unwrap();
        for (address, inside) in [("192.0.2.63", true), ("192.0.2.64", false), ("::1", false)] {
            assert_eq!(lan.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn names_are_what_the_kernel_takes() {
        for good in ["eth0", "a", "veth-12_x.300"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "eth 0", "eth%d", "a:b", "sixteen-letters-"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
    }
}
