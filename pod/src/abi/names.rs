//! `--dns-conf-mode` (stage1 ABI, version 4): where the apps' `/etc/resolv.conf` and `/etc/hosts` come from.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Where both come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamesFrom {
    /// `/etc/resolv.conf`.
    pub resolv: ResolvFrom,
    /// `/etc/hosts`.
    pub hosts: HostsFrom,
}

/// Where `/etc/resolv.conf` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolvFrom {
    /// The pod's networks, or else the image.
    #[default]
    Default,
    /// The host.
    Host,
    /// stage0, in the pod's directory ([`super::PodDirectory::resolv_conf`]).
    Stage0,
    /// The image, whatever the networks say.
    None,
}

/// Where `/etc/hosts` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostsFrom {
    /// The image, or else rkt.
    #[default]
    Default,
    /// The host.
    Host,
    /// stage0, in the pod's directory ([`super::PodDirectory::hosts`]).
    Stage0,
}

const RESOLV: [(&str, ResolvFrom); 4] = [
    ("default", ResolvFrom::Default),
    ("host", ResolvFrom::Host),
    ("stage0", ResolvFrom::Stage0),
    ("none", ResolvFrom::None),
];
const HOSTS: [(&str, HostsFrom); 3] =
    [("default", HostsFrom::Default), ("host", HostsFrom::Host), ("stage0", HostsFrom::Stage0)];

impl fmt::Display for NamesFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resolv={},hosts={}", word(&RESOLV, self.resolv), word(&HOSTS, self.hosts))
    }
}

impl FromStr for NamesFrom {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut from = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("resolv", word)) => from.resolv = known(&RESOLV, word)?,
                Some(("hosts", word)) => from.hosts = known(&HOSTS, word)?,
                _ => return Err(Error::syntax(text, "resolv=...,hosts=...")),
            }
        }
        Ok(from)
    }
}

fn word<T: Copy + PartialEq>(table: &[(&'static str, T)], from: T) -> &'static str {
    table.iter().find(|(_, known)| *known == from).map_or("default", |(word, _)| word)
}

fn known<T: Copy>(table: &[(&str, T)], word: &str) -> Result<T, Error> {
    let found = table.iter().find(|(known, _)| *known == word).map(|(_, from)| *from);
    found.ok_or_else(|| Error::syntax(word, "default, host, stage0 or, of resolv, none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_way() {
        for (_, resolv) in RESOLV {
            for (_, hosts) in HOSTS {
                let from = NamesFrom { resolv, hosts };
                assert_eq!(from.to_string().parse::<NamesFrom>().unwrap(), from);
            }
        }
        let part: NamesFrom = "hosts=host".parse().unwrap();
        assert_eq!(part, NamesFrom { resolv: ResolvFrom::Default, hosts: HostsFrom::Host });
        for bad in ["", "resolv", "hosts=none", "resolv=x", "dns=host"] {
            assert!(bad.parse::<NamesFrom>().is_err(), "{bad}");
        }
    }
}
