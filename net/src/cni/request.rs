//! What a plugin reads on standard input (CNI spec, "Section 3: Execution of Network Configurations", "Deriving
//! request configuration from plugin configuration").

use serde_json::{Map, Value, json};

use super::attachment::Attachment;
use super::config::{NetworkConfig, PluginConfig};

/// The configuration of one plugin for one attachment.
pub fn for_attachment(
    plugin: &PluginConfig,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut request = derive(plugin, &attachment.network);
    let wanted = attachment.capabilities.iter().filter(|(name, _)| plugin.capabilities.contains(*name));
    let wanted: Map<String, Value> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !wanted.is_empty() {
        request.insert("runtimeConfig".into(), Value::Object(wanted));
    }
    if let Some(previous) = previous {
        request.insert("prevResult".into(), previous.clone());
    }
    request
}

/// The configuration of one plugin for GC, which keeps the attachments (container and interface) given.
pub fn for_gc(
    plugin: &PluginConfig,
    network: &NetworkConfig,
    valid: &[(String, String)],
) -> Map<String, Value> {
    let valid: Vec<Value> =
        valid.iter().map(|(id, interface)| json!({ "containerID": id, "ifname": interface })).collect();
    let mut request = derive(plugin, network);
    request.insert("cni.dev/valid-attachments".into(), Value::Array(valid));
    request
}

/// The configuration of one plugin for what is about nobody's attachment.
pub fn for_network(plugin: &PluginConfig, network: &NetworkConfig) -> Map<String, Value> {
    derive(plugin, network)
}

fn derive(plugin: &PluginConfig, network: &NetworkConfig) -> Map<String, Value> {
    let mut request = plugin.json.clone();
    request.remove("capabilities");
    request.insert("name".into(), network.name.as_str().into());
    request.insert("cniVersion".into(), network.version.as_str().into());
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_get_the_capabilities_that_they_have() {
        let network = NetworkConfig::parse_list(
            br#"{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"x","name":"other","keep":1},
            {"type":"portmap","capabilities":{"portMappings":true,"mac":false}}]}"#,
        )
        .unwrap();
        let mut attachment = Attachment::new(network, "id", "eth0".parse().unwrap(), Vec::new());
        attachment.capabilities = json!({"portMappings": [1], "mac": "x"}).as_object().unwrap().clone();
        let [first, second] = [0, 1].map(|index| {
            Value::Object(for_attachment(&attachment.network.plugins[index], &attachment, None))
        });
        assert_eq!(first, json!({"type": "x", "name": "a", "cniVersion": "1.0.0", "keep": 1}));
        assert_eq!(
            second,
            json!({"type": "portmap", "name": "a", "cniVersion": "1.0.0", "runtimeConfig": {"portMappings": [1]}})
        );
        let previous = json!({"ips": []});
        let third = for_attachment(&attachment.network.plugins[0], &attachment, Some(&previous));
        assert_eq!(third["prevResult"], previous);
    }

    #[test]
    fn gc_names_what_is_to_stay() {
        let network = NetworkConfig::parse_list(br#"{"name":"a","plugins":[{"type":"x"}]}"#).unwrap();
        let request = for_gc(&network.plugins[0], &network, &[("id".into(), "eth0".into())]);
        assert_eq!(request["cni.dev/valid-attachments"], json!([{"containerID": "id", "ifname": "eth0"}]));
    }
}
