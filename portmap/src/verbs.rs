//! The verbs (CNI spec, "Section 2: Execution Protocol").

use net::IpNetwork;
use net::cni::{CniResult, SpecVersion, Verb};
use pod::ports::{PortMapping, Protocol};
use serde_json::{Value, json};

use crate::element::Element;
use crate::error::Error;
use crate::nft::Nft;
use crate::plan::{Forwarding, Masquerade};
use crate::request::Call;
use crate::state::{self, Change, State};
use crate::{loopback, table};

/// Carries a call out; what is to be printed.
pub fn carry_out(call: &Call) -> Result<String, Error> {
    match call.verb {
        Verb::Add => add(call),
        Verb::Del => del(call),
        Verb::Check => check(call),
        Verb::Gc => gc(call),
        Verb::Status => find_nft()?.try_out(state::CREATION).map(|()| String::new()),
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
        let (owner, wanted, nft) = (call.owner()?, wanted(call)?, find_nft()?);
        let _lock = table::lock()?;
        let state = table::read()?;
        apply(&nft, &state, &state.replacement(&owner, &wanted)?, configuration.ports())?;
        loopback::open(&wanted)?;
    }
    Ok(previous.to_string())
}

fn del(call: &Call) -> Result<String, Error> {
    let ports = call.configuration.ports();
    if !ports.is_empty() {
        let owner = call.owner()?;
        remove(|state| state.removal(&owner), ports)?;
    }
    Ok(String::new())
}

fn gc(call: &Call) -> Result<String, Error> {
    let network = call.network()?;
    let valid = call.configuration.valid(network);
    remove(|state| state.collection(network, &valid), &[])?;
    Ok(String::new())
}

/// Takes away what there is. Where there is no nft, nothing has been made; DEL has to succeed after an ADD that failed for want of it.
fn remove(change: impl FnOnce(&State) -> Change, ports: &[PortMapping]) -> Result<(), Error> {
    let _lock = table::lock()?;
    let nft = match find_nft() {
        Err(Error::NoNft(_)) if !table::read().is_ok_and(|state| state.exists) => return Ok(()),
        found => found?,
    };
    let state = table::read()?;
    apply(&nft, &state, &change(&state), ports)
}

/// Changes the table. What was sent to ports of UDP, those that change and these, does not go on as before: they may have changed when
/// somebody was killed before this.
fn apply(nft: &Nft, state: &State, change: &Change, ports: &[PortMapping]) -> Result<(), Error> {
    let added = change.added.iter().map(|held| held.element);
    loopback::close(&change.removed, state.kept(change).chain(added.clone()))?;
    if let Some(script) = state.script(change) {
        nft.apply(&script)?;
    }
    let changed = change.removed.iter().copied().chain(added).filter_map(|element| element.mapping());
    let udp = changed.chain(ports.iter().copied()).filter(|port| port.protocol == Protocol::Udp);
    let ports: Vec<u16> = udp.map(|port| port.host_port).collect();
    if ports.is_empty() { Ok(()) } else { net::conntrack::forget_udp(&ports).map_err(Error::Flows) }
}

fn check(call: &Call) -> Result<String, Error> {
    if !call.configuration.ports().is_empty() {
        let state = table::read()?;
        if !state.exists {
            return Err(Error::Changed("it is not there".into()));
        }
        let own = state.of(&call.owner()?);
        if let Some(missing) = wanted(call)?.iter().find(|element| !own.contains(element)) {
            return Err(Error::Changed(format!("nothing leads from {missing}")));
        }
        let rules = table::remarks()?;
        if let Some(missing) = state::remarks().find(|remark| !rules.iter().any(|rule| rule == remark)) {
            return Err(Error::Changed(format!("there is no rule \"{missing}\"")));
        }
    }
    Ok(String::new())
}

/// All that the pod is to have.
fn wanted(call: &Call) -> Result<Vec<Element>, Error> {
    let configuration = &call.configuration;
    let masquerade = match (configuration.snat, configuration.masq_all) {
        (false, _) => Masquerade::None,
        (true, false) => Masquerade::Needed,
        (true, true) => Masquerade::All,
    };
    Forwarding { ports: configuration.ports(), addresses: &addresses(call)?, masquerade }.elements()
}

/// What the plugins before have given to the pod.
fn addresses(call: &Call) -> Result<Vec<IpNetwork>, Error> {
    let previous = call.configuration.prev_result.as_ref().ok_or(Error::First)?;
    let result = CniResult::parse(previous, call.version).map_err(Error::Previous)?;
    Ok(result.addresses.iter().map(|address| address.network).collect())
}

fn versions() -> Value {
    let spoken: Vec<&str> = SpecVersion::ALL.into_iter().map(SpecVersion::as_str).collect();
    json!({"cniVersion": SpecVersion::NEWEST.as_str(), "supportedVersions": spoken})
}
