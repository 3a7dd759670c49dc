//! Ranges of addresses that a pod is to have its addresses of (CNI conventions, `ipRanges`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::Error;
use crate::guest_network::IpNetwork;

const EXPECTED: &str = "ranges of addresses joined by +, each SUBNET or SUBNET@FIRST-LAST";

/// Ranges, of each of which a pod gets an address: `10.9.0.0/25+fd00:9::/64@fd00:9::10-fd00:9::1f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRanges(Vec<Range>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    subnet: IpNetwork,
    /// Its first and last address; else all that are a host's.
    ends: Option<(IpAddr, IpAddr)>,
}

impl IpRanges {
    /// As plugins are told: sets of ranges, of each of which there is one address, with one range each.
    pub fn to_json(&self) -> Value {
        let set = |range: &Range| {
            let mut told = Map::new();
            told.insert("subnet".into(), json!(range.subnet));
            if let Some((first, last)) = range.ends {
                told.insert("rangeStart".into(), json!(first));
                told.insert("rangeEnd".into(), json!(last));
            }
            json!([told])
        };
        self.0.iter().map(set).collect()
    }
}

impl FromStr for IpRanges {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.split('+').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let syntax = || Error::syntax(text, EXPECTED);
        let (subnet, ends) = match text.split_once('@') {
            Some((subnet, ends)) => (subnet, Some(ends.split_once('-').ok_or_else(syntax)?)),
            None => (text, None),
        };
        let subnet: IpNetwork = subnet.parse().map_err(|_| syntax())?;
        if subnet.network() != subnet {
            let network = subnet.network();
            return Err(Error::Invalid(format!("{subnet} is an address in a subnet, which is {network}")));
        }
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| syntax());
        let ends = ends.map(|(first, last)| Ok::<_, Error>((address(first)?, address(last)?))).transpose()?;
        match ends {
            Some((first, last)) if first > last || !subnet.contains(first) || !subnet.contains(last) => {
                Err(Error::Invalid(format!("{first}-{last} is no range of the subnet {subnet}")))
            }
            ends => Ok(Self { subnet, ends }),
        }
    }
}

impl fmt::Display for IpRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, range)| {
            let plus = if index == 0 { "" } else { "+" };
            write!(f, "{plus}{range}")
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subnet)?;
        self.ends.map_or(Ok(()), |(first, last)| write!(f, "@{first}-{last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_are_told() {
        let text = "10.9.0.0/25+fd00:9::/64@fd00:9::10-fd00:9::1f";
        let ranges: IpRanges = text.parse().unwrap();
        assert_eq!(ranges.to_string(), text);
        let expected = json!([[{"subnet": "10.9.0.0/25"}],
            [{"subnet": "fd00:9::/64", "rangeStart": "fd00:9::10", "rangeEnd": "fd00:9::1f"}]]);
        assert_eq!(ranges.to_json(), expected);
    }

    #[test]
    fn refused() {
        for (text, expected) in [
            ("", "SUBNET@FIRST-LAST"),
            ("10.9.0.0", "SUBNET@FIRST-LAST"),
            ("10.9.0.0/25+", "SUBNET@FIRST-LAST"),
            ("10.9.0.0/25@10.9.0.1", "SUBNET@FIRST-LAST"),
            ("10.9.0.0/25@10.9.0.1-x", "SUBNET@FIRST-LAST"),
            ("10.9.0.1/25", "which is 10.9.0.0/25"),
            ("10.9.0.0/25@10.9.0.9-10.9.0.1", "no range of the subnet"),
            ("10.9.0.0/25@10.9.0.1-10.9.0.200", "no range of the subnet"),
            ("10.9.0.0/25@fd00::1-fd00::2", "no range of the subnet"),
        ] {
            let error = text.parse::<IpRanges>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
