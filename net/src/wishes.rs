//! What a pod wants of its networks, and what each network's plugins are told of that beside their configuration (CNI conventions,
//! "Well-known Capabilities").

use std::num::NonZeroU64;

use pod::ports::PortMapping;
use serde_json::{Map, Value, json};

use crate::InterfaceName;
use crate::cni::{Attachment, Dns, Error, Selected};

const PORT_MAPPINGS: &str = "portMappings";
const IPS: &str = "ips";
const MAC: &str = "mac";
const IP_RANGES: &str = "ipRanges";
const DNS: &str = "dns";
const BANDWIDTH: &str = "bandwidth";

/// The least that may pass at once: more than a packet of any network, or none of them would ever pass.
const LEAST_BURST_BYTES: u64 = 64 << 10;
/// What the plugin takes at most: the kernel counts it in 32 bits.
const LARGEST_BURST_BYTES: u64 = u32::MAX as u64 - 1;
/// A tenth of a second's may pass at once, as by the cards of VMs.
const BURSTS_PER_SECOND: u64 = 10;

/// What a pod wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    /// Ports of the host that lead to it.
    pub ports: &'a [PortMapping],
    /// How it is to find names, if somebody says so.
    pub dns: Option<&'a Dns>,
    /// The bytes a second that its network moves in each direction, if the plugins are to see to that.
    pub bandwidth: Option<NonZeroU64>,
}

impl Wishes<'_> {
    /// The attachments of a pod: `eth0`, `eth1`, ... in order. What no network can be told is an error.
    pub fn attachments(&self, selected: Vec<Selected>, container_id: &str) -> Result<Vec<Attachment>, Error> {
        let mut attachments = Vec::new();
        for (index, selected) in selected.into_iter().enumerate() {
            let capabilities = self.capabilities(&selected)?;
            let Selected { config, arguments, .. } = selected;
            let attachment = Attachment::new(config, container_id, InterfaceName::ethernet(index), arguments);
            attachments.push(Attachment { capabilities, ..attachment });
        }
        self.forward(&mut attachments)?;
        self.limit(&mut attachments)?;
        Ok(attachments)
    }

    /// Whether the host's network can do all of it. Who has none at all keeps to every rate.
    pub fn check_for_hosts_network(&self) -> Result<(), Error> {
        if self.bandwidth.is_some() { Err(Error::HostsNetwork) } else { Ok(()) }
    }

    /// What one network is told, whatever the others are.
    fn capabilities(&self, selected: &Selected) -> Result<Map<String, Value>, Error> {
        // Arguments that some plugins take as a capability instead.
        let known = selected.arguments.iter().filter_map(|(name, value)| match name.as_str() {
            "IP" => Some((IPS.to_owned(), json!([value]))),
            "MAC" => Some((MAC.to_owned(), json!(value))),
            _ => None,
        });
        let mut capabilities: Map<String, Value> = known.collect();
        if let Some(ranges) = &selected.ip_ranges {
            let network = &selected.config;
            if !network.takes(IP_RANGES) {
                return Err(Error::NoIpRanges(network.name.to_string()));
            }
            capabilities.insert(IP_RANGES.into(), ranges.to_json());
        }
        if let Some(dns) = self.dns.filter(|_| selected.config.takes(DNS)) {
            let told = json!({"servers": dns.name_servers, "searches": dns.search, "options": dns.options});
            capabilities.insert(DNS.into(), told);
        }
        Ok(capabilities)
    }

    /// The first network that forwards ports does.
    fn forward(&self, attachments: &mut [Attachment]) -> Result<(), Error> {
        if self.ports.is_empty() {
            return Ok(());
        }
        let mut forwarding =
            attachments.iter_mut().filter(|attachment| attachment.network.takes(PORT_MAPPINGS));
        let first = forwarding.next().ok_or(Error::NoPorts)?;
        first.capabilities.insert(PORT_MAPPINGS.into(), json!(self.ports));
        Ok(())
    }

    /// A limit is the pod's; two networks, each with all of it, would be more.
    fn limit(&self, attachments: &mut [Attachment]) -> Result<(), Error> {
        let Some(rate) = self.bandwidth else { return Ok(()) };
        match attachments {
            [attachment] if attachment.network.takes(BANDWIDTH) => {
                attachment.capabilities.insert(BANDWIDTH.into(), bandwidth(rate.get()));
                Ok(())
            }
            [attachment] => Err(Error::NoBandwidth(attachment.network.name.to_string())),
            several => Err(Error::SharedBandwidth(several.len())),
        }
    }
}

/// In bits, as the plugin has it.
fn bandwidth(bytes: u64) -> Value {
    let rate = bytes.saturating_mul(8);
    let burst = (bytes / BURSTS_PER_SECOND).clamp(LEAST_BURST_BYTES, LARGEST_BURST_BYTES) * 8;
    json!({"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst})
}

#[cfg(test)]
mod tests {
    use pod::ports::Protocol;

    use super::*;
    use crate::cni::NetworkConfig;

    fn selected(name: &str, capabilities: &[&str], arguments: &[(&str, &str)]) -> Selected {
        let capabilities: Map<String, Value> =
            capabilities.iter().map(|name| ((*name).to_owned(), true.into())).collect();
        let list = json!({"name": name, "plugins": [{"type": "x", "capabilities": capabilities}]});
        let config = NetworkConfig::parse_list(list.to_string().as_bytes()).unwrap();
        let arguments =
            arguments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selected { config, arguments, ip_ranges: None }
    }

    fn told(wishes: Wishes<'_>, selected: Vec<Selected>) -> Result<Vec<Value>, String> {
        let attachments = wishes.attachments(selected, "pod").map_err(|error| error.to_string())?;
        Ok(attachments.into_iter().map(|attachment| Value::Object(attachment.capabilities)).collect())
    }

    const PORT: PortMapping =
        PortMapping { host_port: 8080, container_port: 80, protocol: Protocol::Tcp, host_ip: None };

    #[test]
    fn interfaces_and_what_plugins_are_told() {
        let three = || {
            vec![
                selected("a", &[], &[("IP", "192.0.2.7"), ("MAC", "02:00:00:00:00:01")]),
                selected("b", &[PORT_MAPPINGS], &[]),
                selected("c", &[PORT_MAPPINGS], &[]),
            ]
        };
        let wishes = Wishes { ports: &[PORT], ..Wishes::default() };
        let attachments = wishes.attachments(three(), "pod").unwrap();
        let names: Vec<&str> = attachments.iter().map(|a| a.interface.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1", "eth2"]);
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let expected = [json!({"ips": ["192.0.2.7"], "mac": "02:00:00:00:00:01"}), ports, json!({})];
        assert_eq!(told(wishes, three()).unwrap(), expected);
    }

    #[test]
    fn ports_need_a_network_that_forwards_them() {
        let wishes = Wishes { ports: &[PORT], ..Wishes::default() };
        let error = told(wishes, vec![selected("a", &[], &[])]).unwrap_err();
        assert!(error.contains("portMappings"), "{error}");
    }

    #[test]
    fn names_are_told_to_who_wants_to_know() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let dns = Dns {
            name_servers: words(&["192.0.2.53"]),
            domain: None,
            search: words(&["a.example.com"]),
            options: words(&["ndots:2"]),
        };
        let two = vec![selected("a", &[DNS], &[]), selected("b", &[], &[])];
        let expected = json!({"dns": {"servers": ["192.0.2.53"], "searches": ["a.example.com"], "options": ["ndots:2"]}});
        let wishes = Wishes { dns: Some(&dns), ..Wishes::default() };
        assert_eq!(told(wishes, two).unwrap(), [expected, json!({})]);
        assert_eq!(told(Wishes::default(), vec![selected("a", &[DNS], &[])]).unwrap(), [json!({})]);
    }

    #[test]
    fn ranges_need_a_network_that_takes_them() {
        let with_ranges = |capabilities: &[&str]| {
            let ip_ranges = Some("10.9.0.0/25".parse().unwrap());
            vec![Selected { ip_ranges, ..selected("lan", capabilities, &[]) }]
        };
        let expected = json!({"ipRanges": [[{"subnet": "10.9.0.0/25"}]]});
        assert_eq!(told(Wishes::default(), with_ranges(&[IP_RANGES])).unwrap(), [expected]);
        let error = told(Wishes::default(), with_ranges(&[])).unwrap_err();
        assert!(error.contains("\"lan\"") && error.contains("ipRanges"), "{error}");
    }

    #[test]
    fn one_network_keeps_the_pod_to_its_rate() {
        let wishes = |rate| Wishes { bandwidth: NonZeroU64::new(rate), ..Wishes::default() };
        let of = |rate| told(wishes(rate), vec![selected("a", &[BANDWIDTH], &[])]).unwrap().remove(0);
        let bits = |rate: u64, burst: u64| json!({"bandwidth": {"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst}});
        assert_eq!(of(10 << 20), bits(80 << 20, 8 << 20));
        assert_eq!(of(1024), bits(8192, 512 << 10), "a packet passes");
        assert_eq!(of(1 << 40), bits(8 << 40, 8 * (u64::from(u32::MAX) - 1)));
        let error = told(wishes(1024), vec![selected("lan", &[], &[])]).unwrap_err();
        assert!(error.contains("\"lan\"") && error.contains("--stage1=kvm"), "{error}");
        let two = vec![selected("a", &[BANDWIDTH], &[]), selected("b", &[BANDWIDTH], &[])];
        assert!(told(wishes(1024), two).unwrap_err().contains("2 networks"));
        assert!(
            wishes(1024).check_for_hosts_network().is_err() && wishes(0).check_for_hosts_network().is_ok()
        );
    }
}
