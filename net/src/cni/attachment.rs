//! A container's attachment to a network.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::NetworkConfig;
use super::error::ConfigError;
use crate::InterfaceName;

/// An argument by which plugins are told to ignore those that are for others of the list (CNI conventions).
const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

/// Everything that plugins are told, but for the network namespace and earlier results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Attachment {
    /// The network.
    pub network: NetworkConfig,
    /// Whose; unique on the host.
    pub container_id: String,
    /// The interface in the container.
    pub interface: InterfaceName,
    /// `CNI_ARGS`.
    pub arguments: Vec<(String, String)>,
    /// By capability; each plugin gets those that it has.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// An attachment with these arguments. Arguments that a plugin does not know are another's.
    pub fn new(
        network: NetworkConfig,
        container_id: &str,
        interface: InterfaceName,
        mut arguments: Vec<(String, String)>,
    ) -> Self {
        if !arguments.iter().any(|(key, _)| key == IGNORE_UNKNOWN) {
            arguments.insert(0, (IGNORE_UNKNOWN.to_owned(), "1".to_owned()));
        }
        let container_id = container_id.to_owned();
        Self { network, container_id, interface, arguments, capabilities: Map::new() }
    }

    /// The value of `CNI_ARGS`.
    pub(crate) fn arguments_text(&self) -> String {
        let pairs: Vec<String> = self.arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }
}

/// As it is kept on disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    network: Map<String, Value>,
    container_id: String,
    interface: InterfaceName,
    arguments: Vec<(String, String)>,
    capabilities: Map<String, Value>,
}

impl TryFrom<Raw> for Attachment {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        Ok(Self {
            network: NetworkConfig::from_list(raw.network)?,
            container_id: raw.container_id,
            interface: raw.interface,
            arguments: raw.arguments,
            capabilities: raw.capabilities,
        })
    }
}

impl From<Attachment> for Raw {
    fn from(attachment: Attachment) -> Self {
        Self {
            network: attachment.network.to_json().clone(),
            container_id: attachment.container_id,
            interface: attachment.interface,
            arguments: attachment.arguments,
            capabilities: attachment.capabilities,
        }
    }
}
