//! What network a pod is to have: the argument of `--net`, with upstream rkt's grammar.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::ip_ranges::IpRanges;
use crate::types::NetworkName;

/// What the pod's network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// A network namespace with nothing but loopback.
    #[default]
    None,
    /// The host's network namespace.
    Host,
    /// All networks that are configured, and the default one.
    All,
    /// These networks, each by a CNI configuration.
    Networks(Vec<NetworkRequest>),
}

/// One network of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: NetworkName,
    /// Arguments for its plugins (`CNI_ARGS`), in the order given.
    pub arguments: Vec<(String, String)>,
    /// Where its addresses are to be from.
    pub ip_ranges: Option<IpRanges>,
}

/// The argument that is for no plugin but for rkt, which tells plugins of it in another way.
const IP_RANGES: &str = "ipRanges";

/// What stands alone, never in a list.
const WHOLE: [&str; 3] = ["none", "host", "all"];

impl FromStr for Net {
    type Err = Error;

    /// `none`, `host`, `all`, or networks joined by commas, each with its arguments: `a,b:IP=192.0.2.7;K=V`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => return Ok(Self::None),
            "host" => return Ok(Self::Host),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let mut networks: Vec<NetworkRequest> = Vec::new();
        for part in text.split(',') {
            let network: NetworkRequest = part.parse()?;
            if networks.iter().any(|other| other.name == network.name) {
                return Err(Error::Invalid(format!("the network \"{}\" stands twice", network.name)));
            }
            networks.push(network);
        }
        Ok(Self::Networks(networks))
    }
}

impl FromStr for NetworkRequest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, arguments) = match text.split_once(':') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (text, None),
        };
        if WHOLE.contains(&name) {
            return Err(Error::Invalid(format!(
                "--net={name} stands alone: it has no arguments and is in no list of networks"
            )));
        }
        let arguments = arguments.map(|text| text.split(';').map(argument).collect());
        let arguments: Vec<(String, String)> = arguments.transpose()?.unwrap_or_default();
        let (ranges, arguments): (Vec<_>, Vec<_>) =
            arguments.into_iter().partition(|(key, _)| key == IP_RANGES);
        let ip_ranges = match ranges.as_slice() {
            [] => None,
            [(_, ranges)] => Some(ranges.parse()?),
            _ => return Err(Error::Invalid(format!("{IP_RANGES} stands twice for the network \"{name}\""))),
        };
        Ok(Self { name: name.parse()?, arguments, ip_ranges })
    }
}

/// `KEY=VALUE` of `CNI_ARGS`, whose keys are alphanumeric (CNI spec, "Parameters").
fn argument(text: &str) -> Result<(String, String), Error> {
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match text.split_once('=') {
        Some((key, value)) if is_key(key) && !value.contains('\0') => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::syntax(text, "an argument for a network, NAME=VALUE")),
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::All => f.write_str("all"),
            Self::Networks(networks) => networks.iter().enumerate().try_for_each(|(index, network)| {
                let comma = if index == 0 { "" } else { "," };
                write!(f, "{comma}{network}")
            }),
        }
    }
}

impl fmt::Display for NetworkRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_str())?;
        let arguments = self.arguments.iter().map(|(key, value)| format!("{key}={value}"));
        let ranges = self.ip_ranges.iter().map(|ranges| format!("{IP_RANGES}={ranges}"));
        arguments.chain(ranges).enumerate().try_for_each(|(index, argument)| {
            let joint = if index == 0 { ':' } else { ';' };
            write!(f, "{joint}{argument}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_survives() {
        for text in [
            "none",
            "host",
            "all",
            "default",
            "a,b",
            "a:IP=192.0.2.7;K=V,b",
            "a:IP=2001:db8::7",
            "a:K=V;ipRanges=10.9.0.0/25+fd00:9::/64,b:ipRanges=10.8.0.0/16@10.8.0.5-10.8.0.9",
        ] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), text);
        }
        let Net::Networks(networks) = "a,b.c:IP=192.0.2.7;MAC=".parse().unwrap() else { panic!() };
        assert_eq!(networks[1].name.as_str(), "b.c");
        let arguments = [("IP".to_owned(), "192.0.2.7".to_owned()), ("MAC".to_owned(), String::new())];
        assert_eq!(networks[1].arguments, arguments);
    }

    #[test]
    fn refused() {
        for (bad, expected) in [
            ("", "name of a network"),
            ("a,", "name of a network"),
            ("../a", "name of a network"),
            ("-a", "name of a network"),
            ("a,a:IP=1", "twice"),
            ("a,host", "stands alone"),
            ("none,a", "stands alone"),
            ("host:IP=1.2.3.4", "stands alone"),
            ("all:IP=1.2.3.4", "stands alone"),
            ("a:", "NAME=VALUE"),
            ("a:IP", "NAME=VALUE"),
            ("a:=1", "NAME=VALUE"),
            ("a:IP=1;", "NAME=VALUE"),
            ("a:ipRanges=10.9.0.7", "SUBNET@FIRST-LAST"),
            ("a:ipRanges=10.9.0.0/25;ipRanges=10.8.0.0/25", "stands twice for the network \"a\""),
        ] {
            let error = bad.parse::<Net>().unwrap_err().to_string();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
