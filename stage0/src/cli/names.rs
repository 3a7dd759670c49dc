//! `--dns*` and `--hosts-entry`: what apps know of names.

use std::net::IpAddr;

use clap::Args;
use net::cni::Dns;
use pod::abi::{HostsFrom, NamesFrom, ResolvFrom};

// Flags about names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NameFlags {
    /// Name servers for /etc/resolv.conf: addresses, or host (the host's file), or none (the image's, whatever the networks say)
    #[arg(long, value_parser = server, value_delimiter = ',', value_name = "IP,...")]
    dns: Vec<Server>,
    /// A domain to look names up in
    #[arg(long, value_parser = word, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of the resolver: ndots:2
    #[arg(long, value_parser = word, value_name = "OPTION")]
    dns_opt: Vec<String>,
    /// The domain that short names are of
    #[arg(long, value_parser = word, value_name = "DOMAIN")]
    dns_domain: Option<String>,
    /// Names for /etc/hosts: IP=NAME, or host (the host's file)
    #[arg(long, value_parser = entry, value_delimiter = ',', value_name = "IP=NAME,...")]
    hosts_entry: Vec<Entry>,
}

/// A value of `--dns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Host,
    None,
    At(IpAddr),
}

/// A value of `--hosts-entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Host,
    Of(IpAddr, String),
}

/// What apps know of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Where their files come from.
    pub from: NamesFrom,
    /// The content of `/etc/resolv.conf`, if it comes from here.
    pub dns: Dns,
    /// Entries of `/etc/hosts`, if it comes from here.
    pub hosts: Vec<(IpAddr, String)>,
}

/// Flags that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `host` or `none` with something else.
    #[error("--dns={0} must stand alone: it says everything that /etc/resolv.conf is")]
    Dns(&'static str),
    /// `host` with something else.
    #[error("--hosts-entry=host must stand alone: it says everything that /etc/hosts is")]
    Hosts,
}

impl NameFlags {
    /// What they mean together.
    pub fn names(&self) -> Result<Names, Error> {
        let dns = Dns {
            name_servers: self.dns.iter().filter_map(Server::address).collect(),
            domain: self.dns_domain.clone(),
            search: self.dns_search.clone(),
            options: self.dns_opt.clone(),
        };
        let word = self.dns.iter().find(|server| !matches!(server, Server::At(_)));
        let resolv = match word {
            None if dns.is_empty() => ResolvFrom::Default,
            None => ResolvFrom::Stage0,
            Some(word) if self.dns.len() > 1 || !dns.is_empty() => return Err(Error::Dns(word.word())),
            Some(Server::None) => ResolvFrom::None,
            Some(_) => ResolvFrom::Host,
        };
        let hosts: Vec<_> = self.hosts_entry.iter().filter_map(Entry::named).collect();
        let from_hosts = match (self.hosts_entry.len(), hosts.len()) {
            (0, _) => HostsFrom::Default,
            (all, named) if all == named => HostsFrom::Stage0,
            (1, 0) => HostsFrom::Host,
            _ => return Err(Error::Hosts),
        };
        Ok(Names { from: NamesFrom { resolv, hosts: from_hosts }, dns, hosts })
    }
}

impl Server {
    fn address(&self) -> Option<String> {
        match self {
            Self::At(address) => Some(address.to_string()),
            Self::Host | Self::None => None,
        }
    }

    fn word(self) -> &'static str {
        if self == Self::None { "none" } else { "host" }
    }
}

impl Entry {
    fn named(&self) -> Option<(IpAddr, String)> {
        match self {
            Self::Of(address, name) => Some((*address, name.clone())),
            Self::Host => None,
        }
    }
}

fn server(text: &str) -> Result<Server, String> {
    match text {
        "host" => Ok(Server::Host),
        "none" => Ok(Server::None),
        address => address.parse().map(Server::At).map_err(|_| "it is an IP address, host or none".into()),
    }
}

fn entry(text: &str) -> Result<Entry, String> {
    if text == "host" {
        return Ok(Entry::Host);
    }
    let (address, name) = text.split_once('=').ok_or("it is IP=NAME, or host")?;
    let address = address.parse().map_err(|_| format!("\"{address}\" is not an IP address"))?;
    Ok(Entry::Of(address, word(name)?))
}

/// One word of a line of these files.
fn word(text: &str) -> Result<String, String> {
    let is_word =
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    if is_word { Ok(text.to_owned()) } else { Err(format!("{text:?} is not one word")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: NameFlags,
    }

    fn names(line: &str) -> Result<Names, String> {
        let words = std::iter::once("rkt").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.flags.names().map_err(|error| error.to_string())
    }

    #[test]
    fn where_names_come_from() {
        use {HostsFrom as H, ResolvFrom as R};
        for (line, resolv, hosts) in [
            ("", R::Default, H::Default),
            ("--dns=192.0.2.1,2001:db8::1 --dns=192.0.2.2", R::Stage0, H::Default),
            ("--dns-search=example.com", R::Stage0, H::Default),
            ("--dns=none --hosts-entry=host", R::None, H::Host),
            ("--dns=host --hosts-entry=192.0.2.7=db,::1=me", R::Host, H::Stage0),
        ] {
            assert_eq!(names(line).unwrap().from, NamesFrom { resolv, hosts }, "{line}");
        }
        let all = names("--dns=192.0.2.1,::1 --dns=192.0.2.2 --hosts-entry=192.0.2.7=db").unwrap();
        assert_eq!(all.dns.name_servers, ["192.0.2.1", "::1", "192.0.2.2"]);
        assert_eq!(all.hosts, [("192.0.2.7".parse().unwrap(), "db".to_owned())]);
    }

    #[test]
    fn refused() {
        for (line, expected) in [
            ("--dns=host,192.0.2.1", "--dns=host must stand alone"),
            ("--dns=none --dns-opt=rotate", "--dns=none must stand alone"),
            ("--dns=name", "IP address"),
            ("--dns-search=", "not one word"),
            ("--hosts-entry=host,192.0.2.1=a", "must stand alone"),
            ("--hosts-entry=192.0.2.1", "IP=NAME"),
            ("--hosts-entry=a=b", "not an IP address"),
            ("--hosts-entry=192.0.2.1=a#b", "not one word"),
        ] {
            let error = names(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
