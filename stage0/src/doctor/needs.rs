//! Programs that plugins of the CNI project execute, and fail at ADD without. No verb of CNI tells of them before: STATUS, where a plugin knows
//! it at all, does not look for them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use net::cni::PluginConfig;
use serde_json::Value;

/// Programs of which one is enough.
type OneOf = &'static [&'static str];

const IPTABLES: OneOf = &["iptables"];
const NFT: OneOf = &["nft"];
/// What a plugin chooses from if its configuration does not say.
const EITHER: OneOf = &["iptables", "nft"];
/// A firewalld that is there is asked by D-Bus.
const FIREWALL: OneOf = &["iptables", "firewalld"];

/// Where administrators' programs are, which not every user's PATH has.
const OF_ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What a plugin needs. Those that are new enough (`knows_nftables`) have settings for what they do it by.
pub fn needed(plugin: &PluginConfig, knows_nftables: bool) -> Vec<OneOf> {
    let is_set = |name| plugin.setting(name).and_then(Value::as_bool) == Some(true);
    let by = |setting| match plugin.setting(setting).and_then(Value::as_str) {
        _ if !knows_nftables => IPTABLES,
        Some("iptables") => IPTABLES,
        Some("nftables") => NFT,
        _ => EITHER,
    };
    match plugin.program.as_str() {
        "portmap" => vec![by("backend")],
        "bridge" | "ptp" => {
            let masquerade = is_set("ipMasq").then(|| by("ipMasqBackend"));
            masquerade.into_iter().chain(is_set("macspoofchk").then_some(NFT)).collect()
        }
        "firewall" => match plugin.setting("backend").and_then(Value::as_str) {
            Some("firewalld") => Vec::new(),
            Some("iptables") => vec![IPTABLES],
            _ => vec![FIREWALL],
        },
        _ => Vec::new(),
    }
}

/// What is not there, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which of the programs.
    pub what: String,
    /// For the administrator.
    pub remedy: String,
}

/// Looks for programs as plugins do, in the directories of `path`.
pub fn look_for(programs: OneOf, path: Option<&OsStr>) -> Option<Missing> {
    let directories: Vec<PathBuf> = path.map(std::env::split_paths).into_iter().flatten().collect();
    if programs.iter().any(|program| directories.iter().any(|directory| is_program(&directory.join(program))))
    {
        return None;
    }
    let is_in =
        |directory: &str| programs.iter().any(|program| is_program(&Path::new(directory).join(program)));
    let remedy = match OF_ADMINISTRATORS.into_iter().find(|directory| is_in(directory)) {
        Some(directory) => format!("add {directory} to PATH"),
        None => {
            let packages: Vec<&str> = programs.iter().map(|program| package(program)).collect();
            format!("apt-get install {}", packages.join(", or "))
        }
    };
    Some(Missing { what: format!("{}, which is not in PATH", programs.join(" or ")), remedy })
}

fn package(program: &str) -> &str {
    if program == "nft" { "nftables" } else { program }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use net::cni::NetworkConfig;

    use super::*;

    fn of(plugin: &str, knows_nftables: bool) -> Vec<OneOf> {
        let list = format!(r#"{{"cniVersion":"1.0.0","name":"lan","plugins":[{plugin}]}}"#);
        let network = NetworkConfig::parse_list(list.as_bytes()).unwrap();
        needed(&network.plugins[0], knows_nftables)
    }

    #[test]
    fn what_plugins_execute() {
        for (plugin, old, new) in [
            (r#"{"type":"portmap"}"#, vec![IPTABLES], vec![EITHER]),
            (r#"{"type":"portmap","backend":"nftables"}"#, vec![IPTABLES], vec![NFT]),
            (r#"{"type":"bridge"}"#, vec![], vec![]),
            (r#"{"type":"bridge","ipMasq":true}"#, vec![IPTABLES], vec![EITHER]),
            (r#"{"type":"bridge","ipMasq":true,"macspoofchk":true}"#, vec![IPTABLES, NFT], vec![EITHER, NFT]),
            (r#"{"type":"ptp","ipMasq":true,"ipMasqBackend":"iptables"}"#, vec![IPTABLES], vec![IPTABLES]),
            (r#"{"type":"ptp","ipMasq":false}"#, vec![], vec![]),
            (r#"{"type":"firewall"}"#, vec![FIREWALL], vec![FIREWALL]),
            (r#"{"type":"firewall","backend":"firewalld"}"#, vec![], vec![]),
            (r#"{"type":"firewall","backend":"iptables"}"#, vec![IPTABLES], vec![IPTABLES]),
            (r#"{"type":"macvlan","ipMasq":true}"#, vec![], vec![]),
        ] {
            assert_eq!((of(plugin, false), of(plugin, true)), (old, new), "{plugin}");
        }
    }

    #[test]
    fn where_programs_are_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = Some(directory.path().as_os_str());
        let missing = look_for(&["no-such", "nft-or-so"], path).unwrap();
        assert_eq!(missing.what, "no-such or nft-or-so, which is not in PATH");
        assert_eq!(missing.remedy, "apt-get install no-such, or nft-or-so");
        let program = directory.path().join("nft-or-so");
        fs::write(&program, "").unwrap();
        assert!(look_for(&["nft-or-so"], path).is_some());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(look_for(&["no-such", "nft-or-so"], path), None);
        assert!(look_for(&["nft-or-so"], None).is_some());
    }
}
