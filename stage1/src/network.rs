//! The pod's network, which CNI plugins make before its apps start and undo after they have ended.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use ::net::cni::{Cache, DEFAULT_DIRECTORY, Dns, SearchPath};
use ::net::{InterfaceName, PodNetwork, Wishes, namespace, net_info, pod_network, resolv_conf};
use ::pod::abi::ResolvFrom;
use ::pod::net::Net;
use ::pod::ports;

use crate::error::report;
use crate::pod::Pod;
use crate::signals::Signals;
use crate::{Error, metadata};

/// Where an administrator's configuration is unless stage0 says otherwise.
const LOCAL_CONFIG: &str = "/etc/rkt";

/// The networks that a pod is attached to. It is detached with this value; what fails then is left to `gc`.
#[derive(Debug)]
pub struct Network {
    attached: PodNetwork,
}

impl Network {
    /// Attaches the pod to the networks that it asks for, if any, and notes what they say of name servers. `bandwidth` is for
    /// plugins to keep to. They are killed once a signal says that nobody wants the pod any more
    /// ([`Error::is_interruption`]); after any error everything is undone.
    pub fn set_up(
        pod: &mut Pod,
        bandwidth: Option<NonZeroU64>,
        signals: &Signals,
    ) -> Result<Option<Self>, Error> {
        if matches!(pod.arguments.net, Net::None | Net::Host) {
            if pod.arguments.net == Net::Host {
                Wishes { bandwidth, ..Wishes::default() }.check_for_hosts_network()?;
            }
            metadata::locate(pod, &[])?;
            return Ok(None);
        }
        let ports = ports::mappings(&pod.manifest)
            .map_err(|source| Error::Pod { what: "cannot forward ports".into(), source })?;
        let dns = wanted_names(pod);
        let wishes = Wishes { ports: &ports, dns: dns.as_ref(), bandwidth };
        let local_config = pod.arguments.local_config.as_deref().unwrap_or(Path::new(LOCAL_CONFIG));
        let plugins = plugins(local_config, pod);
        let id = pod.arguments.uuid.to_string();
        let planned = pod_network::plan(&pod.arguments.net, local_config, plugins, &id, wishes)?;
        let attached = PodNetwork::create(&pod.directory.network(), planned, pod.network_namespace.take())?;
        let network = Self { attached };
        let results = network.attached.attach(cache(), &|| signals.interrupted())?;
        net_info::write(&pod.directory.net_info(), &network.attached.describe(&results))?;
        metadata::locate(pod, &results)?;
        let dns = results.iter().map(|result| &result.dns).find(|dns| !dns.is_empty());
        if pod.arguments.names.resolv == ResolvFrom::Default {
            pod.resolv_conf = dns.map(resolv_conf::text);
        }
        Ok(Some(network))
    }

    /// The interfaces in the namespace, in order.
    pub fn interfaces(&self) -> Vec<InterfaceName> {
        self.attached.interfaces().cloned().collect()
    }

    /// Does something in the network namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        Ok(namespace::within(&self.attached.namespace(), work)?)
    }

    /// The network namespace.
    pub fn namespace(&self) -> Result<File, Error> {
        Ok(namespace::open(&self.attached.namespace())?)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.attached.detach(cache()).unwrap_or_else(|source| report(&Error::NetworkLeft(source)));
    }
}

/// Detaches what a pod that did not end by itself is still attached to; `directory` is the pod's, and absolute.
pub fn clean_up(directory: &::pod::abi::PodDirectory) -> Result<(), Error> {
    let left = PodNetwork::open(&directory.network());
    left.and_then(|left| left.map_or(Ok(()), |left| left.detach(cache()))).map_err(Error::NetworkLeft)
}

/// What the user says of names, for plugins that want to know.
fn wanted_names(pod: &Pod) -> Option<Dns> {
    let from_user = pod.arguments.names.resolv == ResolvFrom::Stage0;
    pod.resolv_conf.as_deref().filter(|_| from_user).map(resolv_conf::parse)
}

/// Where plugins are: rkt's own beside this stage1, which the pod's directory has a link to.
fn plugins(local_config: &Path, pod: &Pod) -> SearchPath {
    let stage1 = fs::canonicalize(pod.directory.stage1_rootfs().join("init")).ok();
    let stage1s: Option<PathBuf> = stage1.and_then(|path| Some(path.parent()?.to_owned()));
    SearchPath::of_host(std::env::var_os("CNI_PATH").as_deref(), local_config, stage1s.as_deref())
}

fn cache() -> Cache {
    Cache::new(DEFAULT_DIRECTORY)
}
