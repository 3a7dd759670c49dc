//! What a running pod tells of its networks in its directory, in upstream's form: an array in `net-info.json`.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::IpNetwork;
use crate::cni::{Attachment, CniResult, Error};

/// One network of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetInfo {
    /// The network.
    pub net_name: String,
    /// The interface in the pod.
    pub if_name: String,
    /// The pod's address; its first one, if it has several of a kind, and IPv4 before IPv6.
    pub ip: Option<IpAddr>,
    /// The mask of the address's network.
    pub mask: Option<IpAddr>,
    /// Arguments of the plugins.
    pub args: String,
}

impl NetInfo {
    /// An attachment and what came of it.
    pub fn new(attachment: &Attachment, result: &CniResult) -> Self {
        let mut networks: Vec<IpNetwork> = result.addresses.iter().map(|address| address.network).collect();
        networks.sort_by_key(|network| network.address().is_ipv6());
        let first = networks.first();
        Self {
            net_name: attachment.network.name.to_string(),
            if_name: attachment.interface.to_string(),
            ip: first.map(IpNetwork::address),
            mask: first.map(mask),
            args: attachment.arguments_text(),
        }
    }
}

impl fmt::Display for NetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip @ IpAddr::V4(_)) => write!(f, "{}:ip4={ip}", self.net_name),
            Some(ip @ IpAddr::V6(_)) => write!(f, "{}:ip6={ip}", self.net_name),
            None => f.write_str(&self.net_name),
        }
    }
}

fn mask(network: &IpNetwork) -> IpAddr {
    let prefix = u32::from(network.prefix());
    match network.address() {
        IpAddr::V4(_) => Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into(),
    }
}

/// Writes the file.
pub fn write(path: &Path, networks: &[NetInfo]) -> Result<(), Error> {
    let json = serde_json::to_vec(networks).map_err(|error| Error::io("write", path)(error.into()))?;
    fs::write(path, json).map_err(Error::io("write", path))
}

/// Reads the file; a pod without one, or with one that nobody can read, tells of no network.
pub fn read(path: &Path) -> Vec<NetInfo> {
    fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::{Address, NetworkConfig};

    fn info(addresses: &[&str]) -> NetInfo {
        let network = NetworkConfig::parse_list(br#"{"name":"lan","plugins":[{"type":"x"}]}"#).unwrap();
        let attachment = Attachment::new(network, "pod", "eth0".parse().unwrap(), Vec::new());
        let address =
            |text: &&str| Address { network: text.parse().unwrap(), gateway: None, interface: None };
        let addresses = addresses.iter().map(address).collect();
        NetInfo::new(&attachment, &CniResult { addresses, ..CniResult::default() })
    }

    #[test]
    fn in_words() {
        assert_eq!(info(&["2001:db8::5/64", "192.0.2.5/24"]).to_string(), "lan:ip4=192.0.2.5");
        assert_eq!(info(&["2001:db8::5/64"]).to_string(), "lan:ip6=2001:db8::5");
        assert_eq!(info(&[]).to_string(), "lan");
    }

    #[test]
    fn masks() {
        let mask = |address| info(&[address]).mask.unwrap().to_string();
        assert_eq!(mask("192.0.2.5/26"), "255.255.255.192");
        assert_eq!(mask("192.0.2.5/0"), "0.0.0.0");
        assert_eq!(mask("2001:db8::5/64"), "ffff:ffff:ffff:ffff::");
    }

    #[test]
    fn what_is_written_is_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("net-info.json");
        assert!(read(&path).is_empty());
        let networks = [info(&["192.0.2.5/24"]), info(&[])];
        write(&path, &networks).unwrap();
        assert_eq!(read(&path), networks);
    }
}
