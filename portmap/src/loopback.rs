//! Packets with addresses of 127.0.0.0/8 pass those interfaces that lead to pods which this host's programs reach by them, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::element::{Clients, Element};
use crate::error::Error;
use crate::route::Routes;

const ROUTES: &str = "/proc/net/route";
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
const SETTING: &str = "route_localnet";

/// Lets them pass where pods are that have these elements; to be called when the rules are there that let in answers only.
pub fn open(elements: &[Element]) -> Result<(), Error> {
    let routes = routes()?;
    let routes = Routes::parse(&routes);
    interfaces(&routes, pods(elements.iter().copied())).iter().try_for_each(|interface| set(interface, "1"))
}

/// Lets them pass no longer where pods were that had what is removed, unless others are there that have what is kept; to be called before
/// the rules go.
pub fn close(removed: &[Element], kept: impl Iterator<Item = Element> + Clone) -> Result<(), Error> {
    let routes = routes()?;
    let routes = Routes::parse(&routes);
    let interfaces = interfaces(&routes, pods(removed.iter().copied()));
    let unused = interfaces.iter().filter(|interface| !routes.may_lead(interface, pods(kept.clone())));
    unused.copied().try_for_each(|interface| set(interface, "0"))
}

fn routes() -> Result<String, Error> {
    fs::read_to_string(ROUTES).map_err(|source| Error::Setting(ROUTES.into(), source))
}

/// Those that this host's loopback leads to.
fn pods(elements: impl Iterator<Item = Element>) -> impl Iterator<Item = Ipv4Addr> {
    elements.filter_map(|element| match element {
        Element::Masquerade { pod: IpAddr::V4(pod), clients: Clients::Loopback } => Some(pod),
        _ => None,
    })
}

fn interfaces<'a>(routes: &Routes<'a>, pods: impl Iterator<Item = Ipv4Addr>) -> BTreeSet<&'a str> {
    pods.filter_map(|pod| routes.interface_to(pod)).collect()
}

fn set(interface: &str, value: &str) -> Result<(), Error> {
    let path = Path::new(SETTINGS).join(interface).join(SETTING);
    match fs::write(&path, value) {
        // It has gone meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| Error::Setting(path, source)),
    }
}
