//! The CNI plugins of this host, and the networks that are configured.

use std::fs;
use std::iter::successors;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use net::cni::{
    Cache, Configuration, DEFAULT_DIRECTORY, NetworkConfig, Runtime, SYSTEM_CONFIG, SearchPath, SpecVersion,
};

use super::needs::{self, Missing};
use super::{Need, Row};
use crate::{network, stage1};

/// The plugin that forwards ports.
const PORTMAP: &str = "portmap";
/// The CNI project's plugins speak this version since they can do by nftables what they do by iptables.
const WITH_NFTABLES: SpecVersion = SpecVersion::V1_1_0;
/// By STATUS, which there is since this version, rkt's own plugin tells whether it has all that it needs.
const STATUS_OF_PORTMAP: &[u8] = br#"{"cniVersion":"1.1.0","name":"ports","plugins":[{"type":"portmap"}]}"#;
const INSTALL_PLUGINS: &str = "apt-get install containernetworking-plugins";

pub fn rows(local_config: &Path) -> Vec<Row> {
    let search = network::plugins(local_config);
    let runtime = Runtime::new(search.clone(), Cache::new(DEFAULT_DIRECTORY));
    let mut rows = vec![installed(&search), ports(&search, &runtime)];
    rows.extend(configured(local_config, &runtime));
    rows
}

fn installed(search: &SearchPath) -> Row {
    let own = stage1::directory();
    let others = search.directories().iter().filter(|path| own.as_deref() != path.parent());
    let found: Vec<String> = others.filter_map(|directory| plugins_in(directory)).collect();
    if found.is_empty() {
        return Row::missing("CNI plugins", Need::Optional, "none found", INSTALL_PLUGINS);
    }
    Row::ok("CNI plugins", Need::Optional, found.join("; "))
}

/// A directory's programs, or nothing.
fn plugins_in(directory: &Path) -> Option<String> {
    let is_program = |entry: &fs::DirEntry| {
        entry
            .metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let mut names: Vec<String> = fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter(is_program)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    (!names.is_empty()).then(|| format!("{}: {}", directory.display(), names.join(" ")))
}

/// What leads ports of the host to pods.
fn ports(search: &SearchPath, runtime: &Runtime<'_>) -> Row {
    let name = "ports of pods";
    let path = match search.find(PORTMAP) {
        Ok(path) => path,
        Err(error) => return Row::missing(name, Need::Optional, error.to_string(), INSTALL_PLUGINS),
    };
    let Ok(network) = NetworkConfig::parse_list(STATUS_OF_PORTMAP) else {
        return Row::ok(name, Need::Optional, path.display().to_string());
    };
    if !is_own(&path) {
        return match lacks(&network, runtime) {
            Ok(None) => Row::ok(name, Need::Optional, format!("by {}", path.display())),
            Ok(Some(Missing { what, remedy })) => Row::missing(name, Need::Optional, what, remedy),
            Err(error) => Row::missing(name, Need::Optional, whole(&error), INSTALL_PLUGINS),
        };
    }
    match runtime.validate(&network) {
        Err(error) => {
            let remedy = "apt-get install nftables, or containernetworking-plugins with iptables";
            Row::missing(name, Need::Optional, whole(&error), remedy)
        }
        Ok(()) => Row::ok(name, Need::Optional, format!("by rkt's own {} and nftables", path.display())),
    }
}

/// Whether a plugin is one of rkt's.
fn is_own(plugin: &Path) -> bool {
    stage1::directory().is_some_and(|own| plugin.starts_with(own))
}

/// What the first plugin of a network that lacks a program lacks. Of its own plugin rkt tells in the row of ports.
fn lacks(network: &NetworkConfig, runtime: &Runtime<'_>) -> Result<Option<Missing>, net::cni::Error> {
    let path = std::env::var_os("PATH");
    for plugin in &network.plugins {
        let (file, spoken) = runtime.spoken(&plugin.program, network)?;
        let knows_nftables = spoken.iter().any(|version| version == WITH_NFTABLES.as_str());
        let needed = if is_own(&file) { Vec::new() } else { needs::needed(plugin, knows_nftables) };
        let missing = needed.into_iter().find_map(|programs| needs::look_for(programs, path.as_deref()));
        if let Some(Missing { what, remedy }) = missing {
            return Ok(Some(Missing { what: format!("{} needs {what}", file.display()), remedy }));
        }
    }
    Ok(None)
}

/// A row for each network that an administrator has configured, and for the default one.
fn configured(local_config: &Path, runtime: &Runtime<'_>) -> Vec<Row> {
    match Configuration::load(&[Path::new(SYSTEM_CONFIG), local_config]) {
        Ok(configuration) => {
            configuration.networks_and_default().iter().map(|network| row(network, runtime)).collect()
        }
        Err(error) => {
            let remedy = "mend the file, or take it away";
            vec![Row::missing("networks", Need::Optional, whole(&error), remedy)]
        }
    }
}

fn row(network: &NetworkConfig, runtime: &Runtime<'_>) -> Row {
    let name = format!("network {}", network.name);
    match runtime.validate(network).and_then(|()| lacks(network, runtime)) {
        Ok(None) => {
            let programs: Vec<&str> = network.programs().collect();
            let found = format!("version {} by {}", network.version, programs.join(", "));
            Row::ok(name, Need::Optional, found)
        }
        Ok(Some(Missing { what, remedy })) => Row::missing(name, Need::Optional, what, remedy),
        Err(error) => {
            let remedy = "install what is missing, or change the network's configuration";
            Row::missing(name, Need::Optional, whole(&error), remedy)
        }
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let causes = successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_are_plugins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(plugins_in(path), None);
        fs::write(path.join("README"), "").unwrap();
        assert_eq!(plugins_in(path), None);
        for name in ["ptp", "bridge"] {
            let file = path.join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(plugins_in(path), Some(format!("{}: bridge ptp", path.display())));
    }
}
