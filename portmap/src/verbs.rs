//! The verbs (CNI spec, "Section 2: Execution Protocol").

use net::IpNetwork;
use net::cni::{CniResult, SpecVersion, Verb};
use pod::ports::Protocol;
use serde_json::{Value, json};

use crate::error::Error;
use crate::nft::{Nft, let_loopback_pass};
use crate::plan::{Forwarding, Masquerade};
use crate::request::{Call, Configuration};
use crate::route::interface_to;
use crate::table::TableName;

/// The kernel's IPv4 routes.
const ROUTES: &str = "/proc/net/route";

/// Carries a call out; what is to be printed.
pub fn carry_out(call: &Call) -> Result<String, Error> {
    match call.verb {
        Verb::Add => add(call),
        Verb::Del => del(call),
        Verb::Check => check(call),
        Verb::Gc => gc(call),
        Verb::Status => find_nft()?.tables().map(|_| String::new()),
        Verb::Version => Ok(versions().to_string()),
    }
}

fn find_nft() -> Result<Nft, Error> {
    Nft::find(std::env::var_os("PATH").as_deref())
}

fn add(call: &Call) -> Result<String, Error> {
    let configuration = &call.configuration;
    let previous = configuration.prev_result.as_ref().ok_or(Error::First)?;
    if !configuration.ports().is_empty() {
        let (addresses, nft) = (addresses(call)?, find_nft()?);
        let forwarding = forwarding(configuration, &addresses);
        let script = call.table()?.creation(&forwarding.rules()?);
        if let Some(pod) = forwarding.uses_loopback() {
            let routes =
                std::fs::read_to_string(ROUTES).map_err(|source| Error::Setting(ROUTES.into(), source))?;
            interface_to(pod, &routes).map_or(Ok(()), let_loopback_pass)?;
        }
        nft.apply(&script)?;
        forget_flows(configuration)?;
    }
    Ok(previous.to_string())
}

/// Where there is no nft, nothing has been made; DEL has to succeed after an ADD that failed for want of it.
fn del(call: &Call) -> Result<String, Error> {
    if !call.configuration.ports().is_empty() {
        let table = call.table()?;
        match find_nft() {
            Err(Error::NoNft(_)) => {}
            found => {
                found?.apply(&table.removal())?;
                forget_flows(&call.configuration)?;
            }
        }
    }
    Ok(String::new())
}

/// What was sent to the ports of UDP before does not go on as before.
fn forget_flows(configuration: &Configuration) -> Result<(), Error> {
    let udp = configuration.ports().iter().filter(|port| port.protocol == Protocol::Udp);
    let ports: Vec<u16> = udp.map(|port| port.host_port).collect();
    if ports.is_empty() { Ok(()) } else { Ok(net::conntrack::forget_udp(&ports)?) }
}

fn check(call: &Call) -> Result<String, Error> {
    let configuration = &call.configuration;
    if !configuration.ports().is_empty() {
        let (addresses, table) = (addresses(call)?, call.table()?.to_string());
        let changed = |what: String| Error::Changed { table: table.clone(), what };
        let listing = match find_nft()?.table(&table) {
            Err(Error::Failed { said, .. }) => return Err(changed(said)),
            listing => listing?,
        };
        let rules = forwarding(configuration, &addresses).rules()?;
        if let Some(rule) = rules.iter().find(|rule| !rule.is_in(&listing)) {
            return Err(changed(format!("there is no rule \"{}\"", rule.remark)));
        }
    }
    Ok(String::new())
}

fn gc(call: &Call) -> Result<String, Error> {
    let network = call.network()?;
    let valid = call.configuration.valid(network);
    let nft = match find_nft() {
        Err(Error::NoNft(_)) => return Ok(String::new()),
        found => found?,
    };
    let left = TableName::listed(network, &nft.tables()?).into_iter().filter(|table| !valid.contains(table));
    let script: String = left.map(|table| table.removal()).collect();
    if !script.is_empty() {
        nft.apply(&script)?;
    }
    Ok(String::new())
}

/// What the plugins before have given to the pod.
fn addresses(call: &Call) -> Result<Vec<IpNetwork>, Error> {
    let previous = call.configuration.prev_result.as_ref().ok_or(Error::First)?;
    let result = CniResult::parse(previous, call.version).map_err(Error::Previous)?;
    Ok(result.addresses.iter().map(|address| address.network).collect())
}

fn forwarding<'a>(configuration: &'a Configuration, addresses: &'a [IpNetwork]) -> Forwarding<'a> {
    let masquerade = match (configuration.snat, configuration.masq_all) {
        (false, _) => Masquerade::None,
        (true, false) => Masquerade::Needed,
        (true, true) => Masquerade::All,
    };
    Forwarding { ports: configuration.ports(), addresses, masquerade }
}

fn versions() -> Value {
    let spoken: Vec<&str> = SpecVersion::ALL.into_iter().map(SpecVersion::as_str).collect();
    json!({"cniVersion": SpecVersion::NEWEST.as_str(), "supportedVersions": spoken})
}
