//! The pod and the metadata service, with which rkt has registered it (`--mds-register`).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ::metadata::{Places, client};
use ::net::cni::CniResult;
use ::pod::abi::PodDirectory;
use ::pod::metadata::{Registration, url};
use ::pod::net::Net;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use uuid::Uuid;

use crate::Error;
use crate::error::report;
use crate::pod::Pod;

/// How the service knows the pod, if it does.
pub(crate) fn read(directory: &PodDirectory) -> Result<Option<Registration>, Error> {
    let path = directory.mds_registered();
    let json = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Error::file("read", &path))?,
    };
    let parsed = serde_json::from_slice(&json);
    parsed.map(Some).map_err(|error| Error::file("understand", &path)(error.into()))
}

/// Finds out where the apps reach the service: at the host's end of a network, which is the gateway of one of the pod's
/// addresses (as upstream has it), or in the host's own network.
pub(crate) fn locate(pod: &mut Pod, results: &[CniResult]) -> Result<(), Error> {
    let Some(Registration { token, port }) = &pod.metadata else { return Ok(()) };
    let host = match pod.arguments.net {
        Net::Host => Some(Ipv4Addr::LOCALHOST.into()),
        _ => gateway(results, &addresses()?),
    };
    pod.metadata_url = Some(url(host.ok_or(Error::NoMetadata)?, *port, token));
    Ok(())
}

/// The first gateway that is this host; of IPv4, if there is one.
fn gateway(results: &[CniResult], host: &[IpAddr]) -> Option<IpAddr> {
    let all = results.iter().flat_map(|result| &result.addresses).filter_map(|address| address.gateway);
    let mut own: Vec<IpAddr> = all.filter(|gateway| host.contains(gateway)).collect();
    own.sort_by_key(IpAddr::is_ipv6);
    own.first().copied()
}

/// All addresses of this host.
fn addresses() -> Result<Vec<IpAddr>, Error> {
    let failed = |source: Errno| Error::System { action: "list the host's addresses", source };
    let interfaces = getifaddrs().map_err(failed)?;
    let addresses = interfaces.filter_map(|interface| interface.address).filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    Ok(addresses.collect())
}

/// The pod's registration, which ends with this value; what fails then is left to `gc`.
#[derive(Debug)]
pub struct Registered {
    uuid: Uuid,
    marker: PathBuf,
}

impl Registered {
    /// That of this pod, if it has one.
    pub fn of(pod: &Pod) -> Option<Self> {
        let marker = pod.directory.mds_registered();
        pod.metadata.as_ref().map(|_| Self { uuid: pod.arguments.uuid, marker })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let ended = client::forget(&Places::default(), self.uuid, &self.marker);
        ended.map_err(Error::Unregistered).unwrap_or_else(|error| report(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::net::cni::SpecVersion;
    use serde_json::json;

    #[test]
    fn a_gateway_that_is_this_host() {
        let result = |gateways: &[(&str, &str)]| {
            let ips: Vec<_> = gateways
                .iter()
                .map(|(address, gateway)| json!({"address": address, "gateway": gateway}))
                .collect();
            CniResult::parse(&json!({"cniVersion": "1.0.0", "ips": ips}), SpecVersion::V1_0_0).unwrap()
        };
        let of_router = result(&[("192.0.2.7/24", "192.0.2.1")]);
        let of_host = result(&[("fd00::7/64", "fd00::1"), ("198.51.100.7/24", "198.51.100.1")]);
        let host = ["127.0.0.1", "198.51.100.1", "fd00::1"].map(|address| address.parse().unwrap());
        let found = gateway(&[of_router.clone(), of_host], &host);
        assert_eq!(found, Some("198.51.100.1".parse().unwrap()));
        assert_eq!(gateway(&[of_router], &host), None);
        let only_6 = result(&[("fd00::7/64", "fd00::1")]);
        assert_eq!(gateway(&[only_6], &host), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn this_host_has_a_loopback() {
        assert!(addresses().unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
