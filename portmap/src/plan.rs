//! The rules that lead ports of the host to a pod; computed, without a look at anything.

use std::net::{IpAddr, Ipv4Addr};

use net::IpNetwork;
use pod::ports::PortMapping;

use crate::error::Error;
use crate::table::{Chain, Rule};

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
    /// Where what comes in by this version of IP goes.
    fn pod(&self, v6: bool) -> Option<IpNetwork> {
        self.addresses.iter().copied().find(|network| network.address().is_ipv6() == v6)
    }

    /// Whether packets with addresses of this host's IPv4 loopback are to leave it.
    pub fn uses_loopback(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(pod) = self.pod(false)?.address() else { return None };
        let reaches = |port: &PortMapping| match port.host_ip {
            None => true,
            Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified(),
            Some(IpAddr::V6(_)) => false,
        };
        (self.masquerade != Masquerade::None && self.ports.iter().any(reaches)).then_some(pod)
    }

    /// All rules, in order.
    pub fn rules(&self) -> Result<Vec<Rule>, Error> {
        let mut rules = Vec::new();
        for port in self.ports {
            let versions =
                [false, true].into_iter().filter(|v6| port.host_ip.is_none_or(|ip| ip.is_ipv6() == *v6));
            let led: Vec<Rule> =
                versions.filter_map(|v6| Some(lead(port, self.pod(v6)?.address()))).collect();
            if led.is_empty() {
                return Err(Error::Nowhere(*port));
            }
            rules.extend(led);
        }
        rules.extend(hooks());
        let pods = [false, true].into_iter().filter_map(|v6| self.pod(v6));
        rules.extend(pods.flat_map(|pod| self.masquerades(pod)));
        if self.uses_loopback().is_some() {
            rules.push(loopback_guard());
        }
        Ok(rules)
    }

    fn masquerades(&self, pod: IpNetwork) -> Vec<Rule> {
        let (ip, address) = (keyword(pod.address()), pod.address());
        let rule = |from: String, who: &str| Rule {
            chain: Chain::Leaving,
            text: format!("ct status dnat {ip} daddr {address} {from}masquerade"),
            remark: format!("{who} to {address}"),
        };
        let network = format!("{ip} saddr {} ", pod.network());
        let own = rule(network, "the pod's own network");
        match (self.masquerade, address) {
            (Masquerade::None, _) => Vec::new(),
            (Masquerade::All, _) => vec![rule(String::new(), "everybody")],
            (Masquerade::Needed, IpAddr::V4(_)) => {
                vec![rule("ip saddr 127.0.0.0/8 ".into(), "this host's loopback"), own]
            }
            (Masquerade::Needed, IpAddr::V6(_)) => vec![own],
        }
    }
}

/// From a port to the pod.
fn lead(port: &PortMapping, pod: IpAddr) -> Rule {
    let PortMapping { host_port, container_port, protocol, host_ip } = port;
    let at = match host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => format!("{} daddr {ip}", keyword(ip)),
        None => format!("meta nfproto ipv{}", if pod.is_ipv6() { 6 } else { 4 }),
    };
    let to = std::net::SocketAddr::new(pod, *container_port);
    Rule {
        chain: Chain::Ports,
        text: format!("{at} {protocol} dport {host_port} dnat {} to {to}", keyword(pod)),
        remark: format!("{port} to {to}"),
    }
}

/// What is for an address of this host looks whether its port leads to the pod.
fn hooks() -> [Rule; 4] {
    let rule = |chain, text: &str, remark: &str| Rule { chain, text: text.into(), remark: remark.into() };
    let local = "fib daddr type local goto ports";
    [
        // No network has a host's loopback at its other end.
        rule(Chain::Arriving, "ip daddr 127.0.0.0/8 return", "nobody else's loopback"),
        rule(Chain::Arriving, local, "from elsewhere to this host"),
        // The kernel takes no answer for ::1 from another interface, whatever it says. Refused at once, clients try 127.0.0.1.
        rule(Chain::Sent, "ip6 daddr ::1 return", "no IPv6 loopback"),
        rule(Chain::Sent, local, "from this host to itself"),
    ]
}

/// A kernel that lets packets for 127.0.0.1 out takes them from there, too (`route_localnet`): only answers may come.
fn loopback_guard() -> Rule {
    Rule {
        chain: Chain::Received,
        text: "iiftype != loopback ip daddr 127.0.0.0/8 ct state != { established, related } drop".into(),
        remark: "loopback takes answers only".into(),
    }
}

fn keyword(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "ip6" } else { "ip" }
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
        let rules = Forwarding { ports, addresses: &addresses, masquerade }.rules()?;
        let telling = |rule: &&Rule| !matches!(rule.chain, Chain::Arriving | Chain::Sent);
        Ok(rules.iter().filter(telling).map(|rule| rule.text.clone()).collect())
    }

    const V4: &str = "10.9.0.77/24";
    const V6: &str = "fd00:9::2/64";
    const GUARD: &str = "iiftype != loopback ip daddr 127.0.0.0/8 ct state != { established, related } drop";

    #[test]
    fn both_versions_of_ip() {
        let expected = [
            "meta nfproto ipv4 tcp dport 8080 dnat ip to 10.9.0.77:80",
            "meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd00:9::2]:80",
            "ct status dnat ip daddr 10.9.0.77 ip saddr 127.0.0.0/8 masquerade",
            "ct status dnat ip daddr 10.9.0.77 ip saddr 10.9.0.0/24 masquerade",
            "ct status dnat ip6 daddr fd00:9::2 ip6 saddr fd00:9::/64 masquerade",
            GUARD,
        ];
        // A second address of a version is not needed.
        assert_eq!(texts(&[everywhere()], &[V4, V6, "10.8.0.2/16"], Masquerade::Needed).unwrap(), expected);
    }

    #[test]
    fn at_an_address_of_the_host() {
        let v4 = texts(&[at("192.0.2.7")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(v4, ["ip daddr 192.0.2.7 udp dport 53 dnat ip to 10.9.0.77:5353"]);
        let v6 = texts(&[at("2001:db8::7")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(v6, ["ip6 daddr 2001:db8::7 udp dport 53 dnat ip6 to [fd00:9::2]:5353"]);
        let any = texts(&[at("0.0.0.0")], &[V4, V6], Masquerade::None).unwrap();
        assert_eq!(any, ["meta nfproto ipv4 udp dport 53 dnat ip to 10.9.0.77:5353"]);
        for (ip, address) in [("2001:db8::7", V4), ("192.0.2.7", V6), ("0.0.0.0", V6)] {
            let error =
                texts(&[everywhere(), at(ip)], &[address], Masquerade::Needed).unwrap_err().to_string();
            assert!(error.contains(&format!("udp port 53 of {ip}")), "{error}");
        }
        assert!(texts(&[everywhere()], &[], Masquerade::None).is_err());
    }

    #[test]
    fn loopback_is_left_alone_where_nothing_needs_it() {
        let guarded = |ports: &[PortMapping], address, masquerade| {
            texts(ports, &[address], masquerade).unwrap().contains(&GUARD.to_owned())
        };
        assert!(guarded(&[at("192.0.2.7"), at("127.0.0.2")], V4, Masquerade::Needed));
        assert!(guarded(&[everywhere()], V4, Masquerade::All));
        assert!(!guarded(&[everywhere()], V4, Masquerade::None));
        assert!(!guarded(&[at("192.0.2.7")], V4, Masquerade::Needed));
        assert!(!guarded(&[everywhere()], V6, Masquerade::Needed));
    }

    #[test]
    fn everybody_may_be_masqueraded() {
        let rules = texts(&[everywhere()], &[V4], Masquerade::All).unwrap();
        assert_eq!(rules[1..], ["ct status dnat ip daddr 10.9.0.77 masquerade", GUARD]);
    }

    #[test]
    fn no_two_rules_have_one_remark() {
        let both = [everywhere(), at("127.0.0.1")];
        let addresses = [V4, V6].map(|address| address.parse().unwrap());
        let forwarding = Forwarding { ports: &both, addresses: &addresses, masquerade: Masquerade::Needed };
        let rules = forwarding.rules().unwrap();
        let remarks: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.remark).collect();
        assert_eq!(remarks.len(), rules.len());
        // NFTNL_UDATA_COMMENT_MAXLEN
        assert!(remarks.iter().all(|remark| remark.len() < 128 && !remark.contains('"')));
    }
}
