//! What the plugin is asked for: the environment and the configuration (CNI spec, "Section 2: Execution Protocol").

use std::collections::HashSet;

use net::InterfaceName;
use net::cni::{SpecVersion, Verb};
use pod::ports::PortMapping;
use pod::types::{NetworkName, is_cni_identifier};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;
use crate::owner::Owner;

/// A call of the plugin.
#[derive(Debug)]
pub struct Call {
    /// What to do.
    pub verb: Verb,
    /// Whose, which not every verb needs.
    container: Option<String>,
    interface: Option<InterfaceName>,
    /// How.
    pub configuration: Configuration,
    /// The version that is spoken.
    pub version: SpecVersion,
}

/// The configuration of this plugin, as far as it is known here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    name: Option<NetworkName>,
    cni_version: Option<String>,
    /// The result of the plugin before.
    pub prev_result: Option<Value>,
    /// Whether this host's loopback and the pod itself reach the ports.
    #[serde(default = "yes")]
    pub snat: bool,
    /// Whether the pod is to take every client for this host.
    #[serde(default)]
    pub masq_all: bool,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid: Vec<Valid>,
    external_set_mark_chain: Option<Value>,
    mark_masq_bit: Option<Value>,
    #[serde(rename = "conditionsV4")]
    conditions_v4: Option<Value>,
    #[serde(rename = "conditionsV6")]
    conditions_v6: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
}

/// An attachment that GC is to leave.
#[derive(Debug, Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    #[serde(rename = "ifname")]
    interface: String,
}

fn yes() -> bool {
    true
}

impl Call {
    /// The call that these variables and this standard input are.
    pub fn of(variable: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<Self, Error> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let command = variable("CNI_COMMAND").ok_or(Error::Parameter("CNI_COMMAND"))?;
        let verb = Verb::of_command(&command).ok_or(Error::Verb(command))?;
        let configuration: Configuration = serde_json::from_slice(input).map_err(Error::Configuration)?;
        let version = match (&configuration.cni_version, verb) {
            // Which versions are spoken may be asked in any.
            (_, Verb::Version) => SpecVersion::NEWEST,
            (Some(version), _) => version.parse()?,
            (None, _) => SpecVersion::V0_1_0,
        };
        if verb != Verb::Version {
            configuration.check()?;
        }
        let interface = variable("CNI_IFNAME").map(|name| name.parse()).transpose();
        let interface = interface.map_err(|_| Error::Parameter("CNI_IFNAME"))?;
        let container = variable("CNI_CONTAINERID");
        if container.as_deref().is_some_and(|id| !is_cni_identifier(id)) {
            return Err(Error::Parameter("CNI_CONTAINERID"));
        }
        Ok(Self { verb, container, interface, configuration, version })
    }

    /// The attachment that this is about.
    pub fn owner(&self) -> Result<Owner, Error> {
        let container = self.container.as_deref().ok_or(Error::Parameter("CNI_CONTAINERID"))?;
        let interface = self.interface()?;
        Ok(Owner::new(self.network()?, container, interface.as_str()))
    }

    /// The pod's interface.
    pub fn interface(&self) -> Result<&InterfaceName, Error> {
        self.interface.as_ref().ok_or(Error::Parameter("CNI_IFNAME"))
    }

    /// The network's name.
    pub fn network(&self) -> Result<&NetworkName, Error> {
        self.configuration.name.as_ref().ok_or(Error::Parameter("the configuration's name"))
    }
}

impl Configuration {
    /// The ports that are to be led to the pod.
    pub fn ports(&self) -> &[PortMapping] {
        self.runtime_config.port_mappings.as_deref().unwrap_or_default()
    }

    /// The attachments that GC is to leave.
    pub fn valid(&self, network: &NetworkName) -> HashSet<Owner> {
        self.valid.iter().map(|valid| Owner::new(network, &valid.container, &valid.interface)).collect()
    }

    /// Refuses what would be left out otherwise.
    fn check(&self) -> Result<(), Error> {
        let for_iptables = [
            (&self.external_set_mark_chain, "externalSetMarkChain"),
            (&self.mark_masq_bit, "markMasqBit"),
            (&self.conditions_v4, "conditionsV4"),
            (&self.conditions_v6, "conditionsV6"),
        ];
        let given = for_iptables.into_iter().find(|(value, _)| value.is_some());
        given.map_or(Ok(()), |(_, name)| Err(Error::ForIptables(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: &str, id: &str, input: &str) -> Result<Call, Error> {
        let variables = [("CNI_COMMAND", verb), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")];
        let variable =
            |name: &str| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        Call::of(variable, input.as_bytes())
    }

    #[test]
    fn what_rkt_asks_for() {
        let json = r#"{"cniVersion":"1.0.0","name":"lan","type":"portmap","snat":false,"prevResult":{},
            "runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"::1"}]}}"#;
        let call = call("ADD", "pod-1", json).unwrap();
        assert_eq!((call.verb, call.version), (Verb::Add, SpecVersion::V1_0_0));
        assert_eq!(call.owner().unwrap().to_string(), "lan/pod-1/eth0");
        assert!(!call.configuration.snat && !call.configuration.masq_all);
        assert_eq!(call.configuration.ports()[0].to_string(), "udp port 8080 of ::1");
    }

    #[test]
    fn little_is_enough() {
        let call = call("DEL", "pod", r#"{"name":"lan"}"#).unwrap();
        assert!(call.configuration.ports().is_empty() && call.configuration.snat);
        assert_eq!(call.version, SpecVersion::V0_1_0);
    }

    #[test]
    fn refused() {
        for (verb, id, json, code) in [
            ("FLY", "a", "{}", 4),
            ("", "a", "{}", 4),
            ("ADD", "../a", "{}", 4),
            ("ADD", "a;b", "{}", 4),
            ("ADD", "a", "{", 6),
            ("ADD", "a", r#"{"name":"a b"}"#, 6),
            ("ADD", "a", r#"{"runtimeConfig":{"portMappings":[{"hostPort":1}]}}"#, 6),
            ("ADD", "a", r#"{"cniVersion":"7.0.0"}"#, 1),
            ("ADD", "a", r#"{"conditionsV4":["-s","192.0.2.0/24"]}"#, 2),
        ] {
            let error = call(verb, id, json).unwrap_err().to_json();
            assert_eq!(error["code"], code, "{error}");
        }
        assert!(call("VERSION", "", r#"{"cniVersion":"7.0.0"}"#).is_ok());
        assert!(call("ADD", "a", "{}").unwrap().owner().is_err());
    }
}
