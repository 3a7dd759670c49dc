//! One network's configuration (CNI spec, "Section 1: Network configuration format").

use std::collections::BTreeSet;

use pod::types::NetworkName;
use serde_json::{Map, Value};

use super::error::ConfigError;
use super::version::SpecVersion;

/// A network: plugins that are called one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Its name.
    pub name: NetworkName,
    /// The version that its plugins are spoken to in.
    pub version: SpecVersion,
    /// Whether CHECK is not to be called.
    pub disable_check: bool,
    /// Whether GC is not to be called.
    pub disable_gc: bool,
    /// At least one.
    pub plugins: Vec<PluginConfig>,
    /// The list as it was given.
    list: Map<String, Value>,
}

/// One plugin of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// The program's name, one component of a path.
    pub program: String,
    /// What it wants to be told at run time.
    pub capabilities: BTreeSet<String>,
    /// The program that it gets addresses from, if any.
    pub ipam: Option<String>,
    /// The configuration as it was given.
    pub(super) json: Map<String, Value>,
}

impl NetworkConfig {
    /// Parses a `.conflist`: a network with its plugins.
    pub fn parse_list(json: &[u8]) -> Result<Self, ConfigError> {
        Self::from_list(object(serde_json::from_slice(json)?)?)
    }

    /// Parses a `.conf`: a network of a single plugin, from which a list is made as libcni makes it.
    pub fn parse_single(json: &[u8]) -> Result<Self, ConfigError> {
        let plugin = object(serde_json::from_slice(json)?)?;
        if plugin.contains_key("plugins") {
            return Err(ConfigError::Invalid("\"plugins\" belongs in a file that ends in .conflist".into()));
        }
        let mut list = Map::new();
        for key in ["name", "cniVersion"] {
            if let Some(value) = plugin.get(key) {
                list.insert(key.into(), value.clone());
            }
        }
        list.insert("plugins".into(), Value::Array(vec![Value::Object(plugin)]));
        Self::from_list(list)
    }

    /// The directory, beside the list's file, with further plugins of the list; none if it wants none.
    pub(super) fn plugin_directory(list: &Map<String, Value>) -> Result<Option<NetworkName>, ConfigError> {
        let name = text(list, "name")?.ok_or(ConfigError::Missing("name"))?;
        let name = name.parse().map_err(ConfigError::Name)?;
        Ok(Some(name).filter(|_| !matches!(list.get("loadOnlyInlinedPlugins"), Some(Value::Bool(true)))))
    }

    /// Adds a plugin to a list.
    pub(super) fn add_plugin(list: &mut Map<String, Value>, plugin: Value) -> Result<(), ConfigError> {
        match list.entry("plugins").or_insert(Value::Array(Vec::new())) {
            Value::Array(plugins) => plugins.push(plugin),
            _ => return Err(ConfigError::Invalid("\"plugins\" of the list is not an array".into())),
        }
        Ok(())
    }

    /// From a list that was parsed as JSON already.
    pub fn from_list(list: Map<String, Value>) -> Result<Self, ConfigError> {
        let name = text(&list, "name")?.ok_or(ConfigError::Missing("name"))?;
        let plugins = match list.get("plugins") {
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
            Some(Value::Array(_)) | None => return Err(ConfigError::Missing("plugins")),
            Some(_) => return Err(ConfigError::Invalid("\"plugins\" is not an array".into())),
        };
        Ok(Self {
            name: name.parse().map_err(ConfigError::Name)?,
            version: version(&list)?,
            disable_check: flag(&list, "disableCheck")?,
            disable_gc: flag(&list, "disableGC")?,
            plugins: plugins.iter().cloned().map(PluginConfig::parse).collect::<Result<_, _>>()?,
            list,
        })
    }

    /// The list as it was given, to be kept.
    pub fn to_json(&self) -> &Map<String, Value> {
        &self.list
    }

    /// Whether one of its plugins wants to be told of `capability`.
    pub fn takes(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.capabilities.contains(capability))
    }

    /// The programs that it needs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.plugins
            .iter()
            .flat_map(|plugin| [Some(&plugin.program), plugin.ipam.as_ref()])
            .flatten()
            .map(String::as_str)
    }
}

impl PluginConfig {
    /// What the configuration says of something that is the plugin's own.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.json.get(name)
    }

    fn parse(json: Value) -> Result<Self, ConfigError> {
        let json = object(json)?;
        let ipam = match json.get("ipam") {
            Some(Value::Object(ipam)) => program(ipam)?,
            None | Some(Value::Null) => None,
            Some(_) => return Err(ConfigError::Invalid("\"ipam\" is not an object".into())),
        };
        Ok(Self {
            program: program(&json)?.ok_or(ConfigError::Missing("type"))?,
            capabilities: capabilities(&json)?,
            ipam,
            json,
        })
    }
}

/// The highest of `cniVersions` that is spoken here, or `cniVersion`, or 0.1.0 (CNI spec 1.1).
fn version(list: &Map<String, Value>) -> Result<SpecVersion, ConfigError> {
    if let Some(versions) = list.get("cniVersions") {
        let spoken =
            versions.as_array().into_iter().flatten().filter_map(|version| version.as_str()?.parse().ok());
        if let Some(highest) = spoken.max() {
            return Ok(highest);
        }
    }
    match text(list, "cniVersion")? {
        Some(version) => Ok(version.parse()?),
        None => Ok(SpecVersion::V0_1_0),
    }
}

fn program(json: &Map<String, Value>) -> Result<Option<String>, ConfigError> {
    let Some(name) = text(json, "type")? else { return Ok(None) };
    if name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(ConfigError::Invalid(format!(
            "\"type\" is \"{name}\", which is not the name of a program"
        )));
    }
    Ok(Some(name.to_owned()))
}

fn capabilities(json: &Map<String, Value>) -> Result<BTreeSet<String>, ConfigError> {
    let given = match json.get("capabilities") {
        None | Some(Value::Null) => return Ok(BTreeSet::new()),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(ConfigError::Invalid("\"capabilities\" is not an object".into())),
    };
    given.keys().filter_map(|name| flag(given, name).map(|on| on.then(|| name.clone())).transpose()).collect()
}

fn object(value: Value) -> Result<Map<String, Value>, ConfigError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(ConfigError::Invalid(format!("{other} stands where an object should be"))),
    }
}

/// A string; one that is empty is as good as absent.
fn text<'a>(json: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ConfigError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(ConfigError::Invalid(format!("\"{key}\" is not a string"))),
    }
}

fn flag(json: &Map<String, Value>, key: &str) -> Result<bool, ConfigError> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ConfigError::Invalid(format!("\"{key}\" is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list() {
        let config = NetworkConfig::parse_list(
            br#"{"cniVersion":"1.0.0","name":"web","disableCheck":true,"plugins":[
            {"type":"bridge","ipam":{"type":"host-local"}},
            {"type":"portmap","capabilities":{"portMappings":true,"x":false}}]}"#,
        )
        .unwrap();
        assert_eq!((config.name.as_str(), config.version), ("web", SpecVersion::V1_0_0));
        assert!(config.disable_check && !config.disable_gc);
        assert!(config.takes("portMappings") && !config.takes("x"));
        assert_eq!(config.programs().collect::<Vec<_>>(), ["bridge", "host-local", "portmap"]);
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let config = NetworkConfig::parse_single(br#"{"name":"a","type":"ptp","mtu":1400}"#).unwrap();
        assert_eq!(config.version, SpecVersion::V0_1_0);
        let again = NetworkConfig::from_list(config.to_json().clone()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.plugins[0].json["mtu"], 1400);
    }

    #[test]
    fn the_highest_version_that_is_spoken() {
        let version = |versions: &str| {
            let json = format!(r#"{{"name":"a",{versions}"plugins":[{{"type":"x"}}]}}"#);
            NetworkConfig::parse_list(json.as_bytes()).map(|config| config.version)
        };
        assert_eq!(version(r#""cniVersions":["0.4.0","9.0.0","1.0.0"],"#).unwrap(), SpecVersion::V1_0_0);
        assert_eq!(version(r#""cniVersions":["9.0.0"],"cniVersion":"0.3.1","#).unwrap(), SpecVersion::V0_3_1);
        assert!(version(r#""cniVersion":"9.0.0","#).unwrap_err().to_string().contains("9.0.0"));
    }

    #[test]
    fn refused() {
        for (json, expected) in [
            ("[]", "object"),
            ("{", "JSON"),
            ("{}", "\"name\""),
            (r#"{"name":"a/b","plugins":[{"type":"x"}]}"#, "name of the network"),
            (r#"{"name":"a"}"#, "\"plugins\""),
            (r#"{"name":"a","plugins":[]}"#, "\"plugins\""),
            (r#"{"name":"a","plugins":[{}]}"#, "\"type\""),
            (r#"{"name":"a","plugins":[{"type":"../x"}]}"#, "name of a program"),
            (r#"{"name":"a","plugins":[{"type":"x","capabilities":{"y":1}}]}"#, "neither true nor false"),
            (r#"{"name":"a","plugins":[{"type":"x","ipam":7}]}"#, "\"ipam\""),
        ] {
            let error = NetworkConfig::parse_list(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let error = NetworkConfig::parse_single(br#"{"name":"a","plugins":[]}"#).unwrap_err();
        assert!(error.to_string().contains(".conflist"), "{error}");
    }
}
