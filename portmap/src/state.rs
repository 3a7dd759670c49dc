//! What all pods have in the table, and how it changes; computed, and text for nft, which carries out a script as a whole or not at all.

use std::collections::HashSet;
use std::fmt::Write;

use pod::types::NetworkName;

use crate::element::Element;
use crate::error::Error;
use crate::owner::Owner;

/// The table's name.
pub const TABLE: &str = "rkt-ports";
/// Makes the table, and puts the rules of this version in place of those that may be there. It leaves what pods have.
pub const CREATION: &str = include_str!("table.nft");

/// An element that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose it is.
    pub owner: Owner,
    /// What it is.
    pub element: Element,
}

/// What is in the table.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Whether there is a table.
    pub exists: bool,
    /// In no order.
    pub held: Vec<Held>,
}

impl State {
    /// What somebody has.
    pub fn of(&self, owner: &Owner) -> Vec<Element> {
        let own = self.held.iter().filter(|held| held.owner == *owner);
        own.map(|held| held.element).collect()
    }

    /// That `owner` has what is wanted and nothing else. A port that somebody else has is an error. An address is whose it was given last:
    /// two pods cannot have it, so the other one is gone, and has been killed with whoever was to say so.
    pub fn replacement(&self, owner: &Owner, wanted: &[Element]) -> Result<Change, Error> {
        let excluded = |held: &&Held| wanted.iter().any(|element| element.excludes(&held.element));
        let others: Vec<&Held> =
            self.held.iter().filter(|held| held.owner != *owner).filter(excluded).collect();
        let mut taken = others.iter().filter_map(|held| Some((held.element.mapping()?, &held.owner)));
        if let Some((port, owner)) = taken.next() {
            return Err(Error::Taken { port, owner: owner.clone() });
        }
        let own = self.of(owner);
        let unwanted = own.iter().filter(|element| !wanted.contains(element)).copied();
        let missing = wanted.iter().filter(|element| !own.contains(element));
        Ok(Change {
            makes_rules: true,
            removed: unwanted.chain(others.iter().map(|held| held.element)).collect(),
            added: missing.map(|element| Held { owner: owner.clone(), element: *element }).collect(),
        })
    }

    /// That `owner` has nothing.
    pub fn removal(&self, owner: &Owner) -> Change {
        Change { removed: self.of(owner), ..Change::default() }
    }

    /// That nobody of a network has anything but those who are valid.
    pub fn collection(&self, network: &NetworkName, valid: &HashSet<Owner>) -> Change {
        let is_valid = |held: &&Held| !held.owner.is_in(network) || valid.contains(&held.owner);
        let garbage = self.held.iter().filter(|held| !is_valid(held));
        Change { removed: garbage.map(|held| held.element).collect(), ..Change::default() }
    }

    /// What a change leaves.
    pub fn kept(&self, change: &Change) -> impl Iterator<Item = Element> + Clone {
        let removed: HashSet<Element> = change.removed.iter().copied().collect();
        self.held.iter().map(|held| held.element).filter(move |element| !removed.contains(element))
    }

    /// A change as a script; none, if there is nothing to be done. The table goes with the last element, since its hooks cost each packet
    /// something.
    pub fn script(&self, change: &Change) -> Option<String> {
        if !change.makes_rules && self.kept(change).next().is_none() {
            return self.exists.then(|| format!("delete table inet {TABLE}\n"));
        }
        let mut script = String::from(if change.makes_rules { CREATION } else { "" });
        for element in &change.removed {
            let (set, key) = (element.set(), element.key());
            // A String takes everything.
            let _ = writeln!(script, "delete element inet {TABLE} {set} {{ {key} }}");
        }
        for Held { owner, element } in &change.added {
            let (set, key) = (element.set(), element.key());
            let data = element.data().map(|data| format!(" : {data}")).unwrap_or_default();
            let _ =
                writeln!(script, "create element inet {TABLE} {set} {{ {key} comment \"{owner}\"{data} }}");
        }
        (!script.is_empty()).then_some(script)
    }
}

/// What changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether the table and its rules are to be there.
    makes_rules: bool,
    /// What is taken away at first.
    pub removed: Vec<Element>,
    /// What is put there.
    pub added: Vec<Held>,
}

/// The comments of all rules that the table is to have.
pub fn remarks() -> impl Iterator<Item = &'static str> {
    CREATION.split(" comment \"").skip(1).filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use net::IpNetwork;
    use pod::ports::Protocol;

    use super::*;
    use crate::element::Clients;
    use crate::element::tests::{lead, masquerade};

    fn owner(container: &str) -> Owner {
        Owner::new(&"lan".parse().unwrap(), container, "eth0")
    }

    fn web(port: u16, pod: &str) -> Vec<Element> {
        let network: IpNetwork = "10.9.0.0/24".parse().unwrap();
        vec![
            lead(Protocol::Tcp, None, port, &format!("{pod}:80")),
            masquerade(pod, Clients::Network(network)),
        ]
    }

    fn state(held: &[(&str, Vec<Element>)]) -> State {
        let held = held.iter().flat_map(|(container, elements)| {
            elements.iter().map(|element| Held { owner: owner(container), element: *element })
        });
        State { exists: true, held: held.collect() }
    }

    /// The commands after those that make the rules.
    fn commands(state: &State, change: &Change) -> Vec<String> {
        let script = state.script(change).unwrap_or_default();
        let commands = script.strip_prefix(CREATION).unwrap_or(&script);
        commands.lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_attachment_is_replaced() {
        let state = state(&[("one", web(8081, "10.9.0.2")), ("two", web(8082, "10.9.0.3"))]);
        let change = state.replacement(&owner("one"), &web(8083, "10.9.0.2")).unwrap();
        assert!(state.script(&change).unwrap().starts_with(CREATION));
        assert_eq!(
            commands(&state, &change),
            [
                "delete element inet rkt-ports everywhere4 { tcp . 8081 }",
                "create element inet rkt-ports everywhere4 { tcp . 8083 comment \"lan/one/eth0\" : 10.9.0.2 . 80 }"
            ]
        );
        // What is there already, has its rules made again.
        let same = state.replacement(&owner("two"), &web(8082, "10.9.0.3")).unwrap();
        assert_eq!(state.script(&same).as_deref(), Some(CREATION));
    }

    #[test]
    fn nobody_takes_a_port_from_another() {
        let state = state(&[("one", web(8081, "10.9.0.2"))]);
        let error = state.replacement(&owner("two"), &web(8081, "10.9.0.3")).unwrap_err().to_string();
        assert!(error.contains("tcp port 8081") && error.contains("lan/one/eth0"), "{error}");
        let at_one = [lead(Protocol::Tcp, Some("192.0.2.7"), 8081, "10.9.0.3:80")];
        assert!(state.replacement(&owner("two"), &at_one).is_err());
        // At the other version of IP it is another port.
        let v6 = [lead(Protocol::Tcp, None, 8081, "[fd00:9::3]:80")];
        assert_eq!(commands(&state, &state.replacement(&owner("two"), &v6).unwrap()).len(), 1);
    }

    #[test]
    fn an_address_is_whose_it_was_given_last() {
        let state = state(&[("killed", web(8081, "10.9.0.2"))]);
        let change = state.replacement(&owner("next"), &web(8082, "10.9.0.2")).unwrap();
        let [removed, ..] = &commands(&state, &change)[..] else { panic!() };
        assert_eq!(removed, "delete element inet rkt-ports network4 { 10.9.0.2 . 10.9.0.0/24 }");
        assert_eq!(change.added.len(), 2);
    }

    #[test]
    fn the_table_goes_with_the_last_element() {
        let both = state(&[("one", web(8081, "10.9.0.2")), ("two", web(8082, "10.9.0.3"))]);
        let change = both.removal(&owner("one"));
        assert_eq!(both.kept(&change).collect::<Vec<_>>(), web(8082, "10.9.0.3"));
        let expected = [
            "delete element inet rkt-ports everywhere4 { tcp . 8081 }",
            "delete element inet rkt-ports network4 { 10.9.0.2 . 10.9.0.0/24 }",
        ];
        assert_eq!(commands(&both, &change), expected);
        let one = state(&[("one", web(8081, "10.9.0.2"))]);
        assert_eq!(commands(&one, &one.removal(&owner("one"))), ["delete table inet rkt-ports"]);
        // What nobody has any more, and what was never there.
        assert_eq!(commands(&state(&[]), &Change::default()), ["delete table inet rkt-ports"]);
        assert_eq!(State::default().script(&Change::default()), None);
        assert_eq!(both.script(&both.removal(&owner("three"))), None);
    }

    #[test]
    fn what_is_of_nobody_is_collected() {
        let state = state(&[("one", web(8081, "10.9.0.2")), ("two", web(8082, "10.9.0.3"))]);
        let lan: NetworkName = "lan".parse().unwrap();
        assert_eq!(state.collection(&lan, &HashSet::from([owner("one")])), state.removal(&owner("two")));
        assert_eq!(state.collection(&lan, &HashSet::new()).removed.len(), 4);
        assert_eq!(state.collection(&"la".parse().unwrap(), &HashSet::new()), Change::default());
    }

    #[test]
    fn every_rule_has_a_remark_of_its_own() {
        let rules = CREATION.lines().filter(|line| line.starts_with("\t\t") && !line.contains('#'));
        let remarks: HashSet<&str> = remarks().collect();
        assert_eq!(remarks.len(), rules.count());
        assert!(remarks.contains("loopback takes answers only"));
        for set in crate::element::Set::ALL {
            assert!(CREATION.contains(&format!(" {set} {{ type ")), "{set}");
        }
        assert!(CREATION.contains(&format!("flush table inet {TABLE}\n")));
    }
}
