//! What rkt knows of pods' networks before they start and after they are gone; in between it is the stage1's business.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use net::cni::{self, Cache, Configuration, DEFAULT_DIRECTORY, Runtime, SYSTEM_CONFIG, SearchPath};
use net::{Wishes, pod_network, redirect};
use pod::net::Net;
use uuid::Uuid;
use vmm::virtio::net::tap::TUN_DEVICE;

use crate::pods::{Place, Pods};
use crate::stage1;

/// Why a network cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nowhere to forward them to.
    #[error("--port needs a network that the host reaches: --net=default or another, not --net={0}")]
    NoNetwork(Net),
    /// No tap can be made.
    #[error(
        "a VM's network needs {TUN_DEVICE}, which cannot be opened: load the module tun, or use --stage1=nspawn"
    )]
    NoTap(#[source] io::Error),
}

/// Whether the networks are configured and their plugins installed, and can do what the pod wants of them.
pub fn check(net: &Net, local_config: &Path, wishes: Wishes<'_>) -> Result<(), Box<dyn Error>> {
    match net {
        Net::None | Net::Host if !wishes.ports.is_empty() => Err(Refused::NoNetwork(net.clone()).into()),
        Net::None => Ok(()),
        Net::Host => Ok(wishes.check_for_hosts_network()?),
        net => Ok(pod_network::plan(net, local_config, plugins(local_config), "", wishes).map(drop)?),
    }
}

/// Where CNI plugins are.
pub fn plugins(local_config: &Path) -> SearchPath {
    let stage1s = stage1::directory();
    SearchPath::of_host(std::env::var_os("CNI_PATH").as_deref(), local_config, stage1s.as_deref())
}

/// Whether this host can attach a VM to a network; what it lacks is said before plugins make anything.
pub fn check_for_vm() -> Result<(), Box<dyn Error>> {
    File::options().read(true).write(true).open(TUN_DEVICE).map_err(Refused::NoTap)?;
    Ok(redirect::check()?)
}

/// Detaches what is left of pods that are not there any more, and lets plugins collect their garbage. Returns what went
/// wrong.
pub fn collect(pods: &Pods, local_config: &Path) -> Result<Vec<cni::Error>, cni::Error> {
    let Ok(root) = fs::canonicalize(pods.root()) else { return Ok(Vec::new()) };
    let is_garbage = |cached: &cni::Cached| {
        let pod = pod_network::pod_of(cached, &root).and_then(|id| id.parse().ok());
        pod.is_some_and(|uuid: Uuid| Place::ALL.iter().all(|place| !pods.path(*place, uuid).exists()))
    };
    let runtime = Runtime::new(plugins(local_config), Cache::new(DEFAULT_DIRECTORY));
    // A configuration that is wrong keeps nobody from collecting what the cache knows by itself.
    match Configuration::load(&[Path::new(SYSTEM_CONFIG), local_config]) {
        Ok(configuration) => runtime.collect(&configuration.networks(), &is_garbage),
        Err(error) => {
            let mut errors = runtime.collect(&[], &is_garbage)?;
            errors.push(error);
            Ok(errors)
        }
    }
}
