//! A table of nftables, as data and as text.
//!
//! Each attachment has one of its own, so that no rule has to be found among others': a table is put in place of an earlier one of its name
//! and is taken away as a whole, both in one transaction.

use std::fmt::{self, Write};

use pod::types::NetworkName;

/// What all names begin with.
const OWN: &str = "rkt";
/// What a table prints before a rule's remark.
const REMARK: &str = " comment \"";

/// The name of an attachment's table. What it is made of has no slash, and nothing that nft would take for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(String);

impl TableName {
    /// That of a container's interface to a network.
    pub fn new(network: &NetworkName, container: &str, interface: &str) -> Self {
        Self(format!("{OWN}/{network}/{container}/{interface}"))
    }

    /// Those of a network in what `nft list tables` prints.
    pub fn listed(network: &NetworkName, list: &str) -> Vec<Self> {
        let beginning = format!("{OWN}/{network}/");
        let names = list.lines().filter_map(|line| line.trim().strip_prefix("table inet "));
        names.filter(|name| name.starts_with(&beginning)).map(|name| Self(name.to_owned())).collect()
    }

    /// Commands that take the table away, if it is there: who adds what is there changes nothing.
    pub fn removal(&self) -> String {
        format!("add table inet {self}\ndelete table inet {self}\n")
    }

    /// Commands that make it, in place of one that may be there.
    pub fn creation(&self, rules: &[Rule]) -> String {
        let mut text = self.removal();
        text.push_str(&format!("table inet {self} {{\n"));
        for chain in Chain::ALL {
            let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.chain == chain).collect();
            // A hook costs every packet something.
            if !rules.is_empty() {
                chain.write(&mut text, &rules);
            }
        }
        text.push_str("}\n");
        text
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// What leads from ports to the pod; the hooks lead here.
    Ports,
    /// What comes from elsewhere.
    Arriving,
    /// What this host's programs send.
    Sent,
    /// What leaves this host, or is forwarded.
    Leaving,
    /// What is for this host's programs.
    Received,
}

impl Chain {
    /// A chain comes before those that lead to it.
    const ALL: [Self; 5] = [Self::Ports, Self::Arriving, Self::Sent, Self::Leaving, Self::Received];

    fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Arriving => "arriving",
            Self::Sent => "sent",
            Self::Leaving => "leaving",
            Self::Received => "received",
        }
    }

    /// Numbers, since not every version knows every name for them: those of dstnat, srcnat and filter.
    fn hook(self) -> Option<&'static str> {
        match self {
            Self::Ports => None,
            Self::Arriving => Some("type nat hook prerouting priority -100;"),
            Self::Sent => Some("type nat hook output priority -100;"),
            Self::Leaving => Some("type nat hook postrouting priority 100;"),
            Self::Received => Some("type filter hook input priority 0;"),
        }
    }

    fn write(self, text: &mut String, rules: &[&Rule]) {
        text.push_str(&format!("\tchain {} {{\n", self.name()));
        if let Some(hook) = self.hook() {
            text.push_str(&format!("\t\t{hook}\n"));
        }
        for Rule { text: rule, remark, .. } in rules {
            // A String takes everything.
            let _ = writeln!(text, "\t\t{rule}{REMARK}{remark}\"");
        }
        text.push_str("\t}\n");
    }
}

/// A rule, with a remark that tells people, and CHECK, which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it is.
    pub chain: Chain,
    /// For nft.
    pub text: String,
    /// For people.
    pub remark: String,
}

impl Rule {
    /// Whether the rule is in what `nft list table` prints.
    pub fn is_in(&self, listing: &str) -> bool {
        listing.contains(&format!("{REMARK}{}\"", self.remark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> TableName {
        TableName::new(&"lan".parse().unwrap(), "pod-1", "eth0")
    }

    #[test]
    fn a_table_is_made_in_place_of_another() {
        let rule = Rule { chain: Chain::Received, text: "drop".into(), remark: "nobody".into() };
        let expected = "add table inet rkt/lan/pod-1/eth0\ndelete table inet rkt/lan/pod-1/eth0\n\
            table inet rkt/lan/pod-1/eth0 {\n\tchain received {\n\t\ttype filter hook input priority 0;\n\
            \t\tdrop comment \"nobody\"\n\t}\n}\n";
        let text = name().creation(std::slice::from_ref(&rule));
        assert_eq!(text, expected);
        assert!(rule.is_in(&text) && !Rule { remark: "body".into(), ..rule }.is_in(&text));
    }

    #[test]
    fn tables_of_one_network_are_found() {
        let list = "table ip nat\ntable inet rkt/lan/pod-1/eth0\ntable inet rkt/lan2/a/eth0\ntable ip6 rkt/lan/b/eth0\n";
        assert_eq!(TableName::listed(&"lan".parse().unwrap(), list), [name()]);
    }
}
