//! What networks between pods and the world need.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use net::cni::PLUGIN_DIRECTORIES;
use net::redirect;
use vmm::virtio::net::tap::TUN_DEVICE;
use vmm::virtio::net::vhost::{self, VHOST_DEVICE};

use super::{Need, Row};

pub fn rows() -> Vec<Row> {
    vec![plugins(), tap(), redirection(), vhost()]
}

fn plugins() -> Row {
    let found: Vec<String> =
        PLUGIN_DIRECTORIES.iter().filter_map(|directory| plugins_in(directory)).collect();
    if found.is_empty() {
        let remedy = "apt-get install containernetworking-plugins";
        return Row::missing("CNI plugins", Need::Optional, "none found", remedy);
    }
    Row::ok("CNI plugins", Need::Optional, found.join("; "))
}

/// A directory's programs, or nothing.
fn plugins_in(directory: &str) -> Option<String> {
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
    (!names.is_empty()).then(|| format!("{directory}: {}", names.join(" ")))
}

fn tap() -> Row {
    match File::options().read(true).write(true).open(TUN_DEVICE) {
        Ok(_) => Row::ok("tap devices", Need::Optional, TUN_DEVICE),
        Err(error) => {
            let found = format!("{TUN_DEVICE}: {error}");
            Row::missing("tap devices", Need::Optional, found, "modprobe tun, as root")
        }
    }
}

fn redirection() -> Row {
    let name = "networks of VMs";
    match redirect::check() {
        Ok(()) => Row::ok(name, Need::Optional, "packets can be redirected"),
        Err(error) => {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let remedy = "modprobe -a sch_ingress cls_u32 act_mirred, as root";
            Row::missing(name, Need::Optional, cause, remedy)
        }
    }
}

/// Nobody lacks it: without it the VMM moves the packets.
fn vhost() -> Row {
    let name = "packets of VMs";
    match vhost::open() {
        Ok(Some(_)) => Row::ok(name, Need::Optional, format!("moved by the host's kernel: {VHOST_DEVICE}")),
        Ok(None) => Row::ok(name, Need::Optional, format!("moved by the VMM: there is no {VHOST_DEVICE}")),
        Err(error) => {
            let remedy = "allow the use of the device, or take the module vhost_net from this host";
            Row::missing(name, Need::Optional, format!("{VHOST_DEVICE}: {error}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_are_plugins() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        assert_eq!(plugins_in(path), None);
        fs::write(directory.path().join("README"), "").unwrap();
        assert_eq!(plugins_in(path), None);
        for name in ["ptp", "bridge"] {
            let file = directory.path().join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(plugins_in(path), Some(format!("{path}: bridge ptp")));
    }
}
