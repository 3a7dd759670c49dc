//! The CNI plugins of this host, and the networks that are configured.

use std::fs;
use std::iter::successors;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use net::cni::{Cache, Configuration, DEFAULT_DIRECTORY, NetworkConfig, Runtime, SYSTEM_CONFIG, SearchPath};

use super::{Need, Row};
use crate::{network, stage1};

/// The plugin that forwards ports.
const PORTMAP: &str = "portmap";
/// What has the other plugin of the name lead ports to pods.
const IPTABLES: &str = "iptables";
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
    let is_own = stage1::directory().is_some_and(|own| path.starts_with(own));
    if !is_own {
        return Row::ok(name, Need::Optional, format!("by {} and {IPTABLES}", path.display()));
    }
    let ready = NetworkConfig::parse_list(STATUS_OF_PORTMAP).ok().map(|network| runtime.validate(&network));
    match ready {
        Some(Err(error)) => {
            let remedy = format!("apt-get install nftables, or containernetworking-plugins with {IPTABLES}");
            Row::missing(name, Need::Optional, whole(&error), remedy)
        }
        _ => Row::ok(name, Need::Optional, format!("by rkt's own {} and nftables", path.display())),
    }
}

/// A row for each network that an administrator has configured, and for the default one.
fn configured(local_config: &Path, runtime: &Runtime<'_>) -> Vec<Row> {
    match Configuration::load(&[Path::new(SYSTEM_CONFIG), local_config]) {
        Ok(configuration) => configuration.networks().iter().map(|network| row(network, runtime)).collect(),
        Err(error) => {
            let remedy = "mend the file, or take it away";
            vec![Row::missing("networks", Need::Optional, whole(&error), remedy)]
        }
    }
}

fn row(network: &NetworkConfig, runtime: &Runtime<'_>) -> Row {
    let name = format!("network {}", network.name);
    match runtime.validate(network) {
        Ok(()) => {
            let programs: Vec<&str> = network.programs().collect();
            let found = format!("version {} by {}", network.version, programs.join(", "));
            Row::ok(name, Need::Optional, found)
        }
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
