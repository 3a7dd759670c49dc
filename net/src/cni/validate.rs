//! Whether networks could be had, without attaching anything: what libcni's `ValidateNetworkList` and `GetStatusNetworkList` are for. Nobody
//! attaches a pod by them: that would take a process more for each plugin, and ADD says the same.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::NetworkConfig;
use super::error::{Error, Failure};
use super::invoke::{Verb, invoke};
use super::request;
use super::runtime::Runtime;
use super::version::SpecVersion;

/// By what plugins are known that are older than VERSION: they speak 0.1.0 (libcni, `GetVersionInfo`).
const OLDER_THAN_VERSIONS: &str = "unknown CNI_COMMAND: VERSION";

impl Runtime<'_> {
    /// Whether each program that the network needs is there and speaks the version that it is spoken to in, and whether each plugin
    /// says that it is ready (since 1.1.0).
    pub fn validate(&self, network: &NetworkConfig) -> Result<(), Error> {
        network.programs().try_for_each(|program| self.speaks(program, network))?;
        self.status(network)
    }

    /// VERSION, whose answer is to have the network's.
    fn speaks(&self, program: &str, network: &NetworkConfig) -> Result<(), Error> {
        let (path, spoken) = self.spoken(program, network)?;
        if spoken.iter().any(|version| version == network.version.as_str()) {
            return Ok(());
        }
        let (network, version) = (network.name.to_string(), network.version);
        Err(Error::OtherVersion { network, plugin: path, version, spoken: spoken.join(", ") })
    }

    /// Where a plugin of a network is, and the versions that it says it speaks.
    pub fn spoken(&self, program: &str, network: &NetworkConfig) -> Result<(PathBuf, Vec<String>), Error> {
        let path = self.plugins().find(program)?;
        let spoken = self.versions(&path).map_err(|source| Error::Asked {
            network: network.name.to_string(),
            plugin: path.clone(),
            verb: Verb::Version.in_words(),
            source: Box::new(source),
        })?;
        Ok((path, spoken))
    }

    fn versions(&self, plugin: &Path) -> Result<Vec<String>, Failure> {
        let mut asked = Map::new();
        asked.insert("cniVersion".into(), SpecVersion::NEWEST.as_str().into());
        let parameters = self.parameters(Verb::Version, "", Path::new(""), "", "");
        let answer = match invoke(plugin, &parameters, asked, self.patience()) {
            Err(Failure::Reported { message, .. }) if message.contains(OLDER_THAN_VERSIONS) => {
                json!({"supportedVersions": [SpecVersion::V0_1_0.as_str()]})
            }
            answer => answer?.unwrap_or_default(),
        };
        let versions = answer.get("supportedVersions").and_then(Value::as_array);
        let versions = versions.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        versions.ok_or_else(|| Failure::Garbage {
            reason: "it has no \"supportedVersions\"".into(),
            output: String::new(),
        })
    }

    /// STATUS: whether the plugins could attach somebody now.
    fn status(&self, network: &NetworkConfig) -> Result<(), Error> {
        if network.version < SpecVersion::V1_1_0 {
            return Ok(());
        }
        network.plugins.iter().try_for_each(|plugin| {
            let path: PathBuf = self.plugins().find(&plugin.program)?;
            let parameters = self.parameters(Verb::Status, "", Path::new(""), "", "");
            let called = invoke(&path, &parameters, request::for_network(plugin, network), self.patience());
            called.map(drop).map_err(|source| Error::Asked {
                network: network.name.to_string(),
                plugin: path,
                verb: Verb::Status.in_words(),
                source: Box::new(source),
            })
        })
    }
}
