//! What plugins answer to ADD: one type for the results of every version (CNI spec, "Section 5: Result Types").

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::version::SpecVersion;
use crate::{IpNetwork, MacAddress, Route};

/// The outcome of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// On the host and in the container. Versions before 0.3.0 tell of none.
    pub interfaces: Vec<PluginInterface>,
    /// The container's addresses.
    pub addresses: Vec<Address>,
    /// The container's routes.
    pub routes: Vec<Route>,
    /// How the container finds names.
    pub dns: Dns,
}

/// An interface that a plugin has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInterface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; none if it has another kind of address or none.
    pub mac: Option<MacAddress>,
    /// Its largest packet in bytes, if the plugin tells (1.1.0).
    pub mtu: Option<u32>,
    /// The network namespace that it is in; the host's if absent.
    pub sandbox: Option<PathBuf>,
}

/// An address that a plugin has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// With its network.
    pub network: IpNetwork,
    /// Who forwards from there.
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    pub interface: Option<usize>,
}

/// How names are found; every word is one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Whom to ask.
    pub name_servers: Vec<String>,
    /// The domain that short names are of.
    pub domain: Option<String>,
    /// Domains to look in.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Parses a result; `spoken` is the version that the plugin was asked in, for results without a version.
    pub fn parse(result: &Value, spoken: SpecVersion) -> Result<Self, String> {
        if !result.is_object() {
            return Err("it is not an object".into());
        }
        let version = match result.get("cniVersion") {
            None | Some(Value::Null) => spoken,
            Some(Value::String(text)) if text.is_empty() => spoken,
            Some(Value::String(text)) => text.parse().map_err(|error| format!("{error}"))?,
            Some(other) => return Err(format!("its cniVersion is {other}")),
        };
        if version < SpecVersion::V0_3_0 {
            parse::<RawOld>(result)?.typed()
        } else {
            parse::<RawNew>(result)?.typed()
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(result: &Value) -> Result<T, String> {
    T::deserialize(result).map_err(|error| error.to_string())
}

/// 0.1.0 and 0.2.0.
#[derive(Deserialize)]
struct RawOld {
    ip4: Option<RawOldIp>,
    ip6: Option<RawOldIp>,
    dns: Option<RawDns>,
}

#[derive(Deserialize)]
struct RawOldIp {
    ip: String,
    gateway: Option<String>,
    routes: Option<Vec<RawRoute>>,
}

/// From 0.3.0 on.
#[derive(Deserialize)]
struct RawNew {
    interfaces: Option<Vec<RawInterface>>,
    ips: Option<Vec<RawIp>>,
    routes: Option<Vec<RawRoute>>,
    dns: Option<RawDns>,
}

#[derive(Deserialize)]
struct RawInterface {
    name: String,
    mac: Option<String>,
    mtu: Option<u32>,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct RawIp {
    address: String,
    gateway: Option<String>,
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawRoute {
    dst: String,
    gw: Option<String>,
}

#[derive(Default, Deserialize)]
struct RawDns {
    nameservers: Option<Vec<String>>,
    domain: Option<String>,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

impl RawOld {
    fn typed(self) -> Result<CniResult, String> {
        let mut result = CniResult { dns: self.dns.unwrap_or_default().typed()?, ..CniResult::default() };
        for ip in [self.ip4, self.ip6].into_iter().flatten() {
            result.addresses.push(address(&ip.ip, ip.gateway, None)?);
            for route in ip.routes.unwrap_or_default() {
                result.routes.push(route.typed()?);
            }
        }
        Ok(result)
    }
}

impl RawNew {
    fn typed(self) -> Result<CniResult, String> {
        let interfaces: Vec<PluginInterface> =
            self.interfaces.unwrap_or_default().into_iter().map(RawInterface::typed).collect();
        let addresses = self.ips.unwrap_or_default().into_iter().map(|ip| {
            let interface = ip.interface.and_then(|index| usize::try_from(index).ok());
            match interface {
                Some(index) if index >= interfaces.len() => Err(format!("it has no interface {index}")),
                _ => address(&ip.address, ip.gateway, interface),
            }
        });
        Ok(CniResult {
            addresses: addresses.collect::<Result<_, _>>()?,
            routes: self
                .routes
                .unwrap_or_default()
                .into_iter()
                .map(RawRoute::typed)
                .collect::<Result<_, _>>()?,
            dns: self.dns.unwrap_or_default().typed()?,
            interfaces,
        })
    }
}

impl RawInterface {
    fn typed(self) -> PluginInterface {
        PluginInterface {
            name: self.name,
            mac: self.mac.and_then(|mac| mac.parse().ok()),
            mtu: self.mtu,
            sandbox: some(self.sandbox).map(PathBuf::from),
        }
    }
}

impl RawRoute {
    fn typed(self) -> Result<Route, String> {
        let destination = self.dst.parse().map_err(|error| format!("route: {error}"))?;
        Ok(Route { destination, gateway: gateway(self.gw)? })
    }
}

impl RawDns {
    fn typed(self) -> Result<Dns, String> {
        let words = |words: Option<Vec<String>>| -> Result<Vec<String>, String> {
            words.unwrap_or_default().into_iter().map(word).collect()
        };
        Ok(Dns {
            name_servers: words(self.nameservers).map_err(of_dns)?,
            domain: some(self.domain).map(word).transpose().map_err(of_dns)?,
            search: words(self.search).map_err(of_dns)?,
            options: words(self.options).map_err(of_dns)?,
        })
    }
}

fn of_dns(text: String) -> String {
    format!("dns: {text:?} is not one word")
}

/// A line of resolv.conf must not become two.
fn word(text: String) -> Result<String, String> {
    let bad = text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control());
    if bad { Err(text) } else { Ok(text) }
}

fn address(text: &str, via: Option<String>, interface: Option<usize>) -> Result<Address, String> {
    let network = text.parse().map_err(|error| format!("address: {error}"))?;
    Ok(Address { network, gateway: gateway(via)?, interface })
}

fn gateway(text: Option<String>) -> Result<Option<IpAddr>, String> {
    let parse = |text: String| text.parse().map_err(|_| format!("gateway: {text:?} is not an address"));
    some(text).map(parse).transpose()
}

/// Programs in Go write what is absent as an empty string.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str, spoken: SpecVersion) -> Result<CniResult, String> {
        CniResult::parse(&serde_json::from_str(json).unwrap(), spoken)
    }

    const OLD: &str = r#"{"ip4":{"ip":"192.0.2.5/24","gateway":"192.0.2.1","routes":[{"dst":"0.0.0.0/0"}]},
        "ip6":{"ip":"2001:db8::5/64"},"dns":{"nameservers":["192.0.2.53"]}}"#;

    #[test]
    fn every_version_says_the_same() {
        let old = parsed(OLD, SpecVersion::V0_1_0).unwrap();
        assert_eq!((old.addresses.len(), old.routes.len()), (2, 1));
        assert_eq!(old.dns.name_servers, ["192.0.2.53"]);
        for (version, ip_version) in
            [("0.3.1", r#""version":"4","#), ("0.4.0", r#""version":"4","#), ("1.0.0", "")]
        {
            let json = format!(
                r#"{{"cniVersion":"{version}","ips":[{{{ip_version}"address":"192.0.2.5/24","gateway":"192.0.2.1"}},
                {{"address":"2001:db8::5/64","gateway":""}}],"routes":[{{"dst":"0.0.0.0/0"}}],
                "dns":{{"nameservers":["192.0.2.53"]}}}}"#
            );
            assert_eq!(parsed(&json, SpecVersion::V0_1_0).unwrap(), old, "{version}");
        }
    }

    #[test]
    fn interfaces() {
        let json = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"veth1","mac":"02:00:00:00:00:01"},
            {"name":"eth0","mac":"02:00:00:00:00:02","mtu":1400,"sandbox":"/ns"}],
            "ips":[{"address":"192.0.2.5/24","interface":1}]}"#;
        let result = parsed(json, SpecVersion::V0_1_0).unwrap();
        let [_, eth0] = &result.interfaces[..] else { panic!() };
        assert_eq!((eth0.mtu, eth0.sandbox.as_deref()), (Some(1400), Some(std::path::Path::new("/ns"))));
        assert_eq!(result.addresses[0].interface, Some(1));
        assert!(parsed(&json.replace("\"interface\":1", "\"interface\":2"), SpecVersion::V0_1_0).is_err());
    }

    #[test]
    fn refused() {
        for (json, expected) in [
            (r#"[]"#, "object"),
            (r#"{"cniVersion":"7.0.0"}"#, "7.0.0"),
            (r#"{"ips":[{"address":"192.0.2.5"}]}"#, "192.0.2.5"),
            (r#"{"ips":[{"address":"192.0.2.5/24","gateway":"x"}]}"#, "gateway"),
            (r#"{"routes":[{"dst":"all"}]}"#, "route"),
            (r#"{"dns":{"search":["a\nnameserver 192.0.2.66"]}}"#, "one word"),
        ] {
            let error = parsed(json, SpecVersion::V1_0_0).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
