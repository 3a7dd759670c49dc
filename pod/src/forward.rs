//! Ports of the host that lead to what listens on a pod's own loopback (`rkt port-forward`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::Error;

/// The most connections that are forwarded into a pod at a time.
pub const MAX_FORWARDED: usize = 128;

/// One port: `[ADDRESS:]LOCAL:REMOTE`, or `PORT` for both; an IPv6 address is in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The address of the host that is listened at; both of its loopback if absent.
    pub address: Option<IpAddr>,
    /// The port there; 0 is any that is free.
    pub local: u16,
    /// The port of the pod's loopback.
    pub remote: NonZeroU16,
}

impl Forward {
    /// Where to listen, and whether it is no matter if the host has no such address.
    pub fn listeners(&self) -> Vec<(SocketAddr, bool)> {
        let at = |address| SocketAddr::new(address, self.local);
        match self.address {
            Some(address) => vec![(at(address), false)],
            None => vec![(at(Ipv4Addr::LOCALHOST.into()), false), (at(Ipv6Addr::LOCALHOST.into()), true)],
        }
    }
}

impl FromStr for Forward {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::syntax(text, "LOCAL:REMOTE, ADDRESS:LOCAL:REMOTE or PORT");
        let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let Some((local, remote)) = text.rsplit_once(':') else {
            let remote = NonZeroU16::new(port(text)?).ok_or_else(wrong)?;
            return Ok(Self { address: None, local: remote.get(), remote });
        };
        let remote = NonZeroU16::new(port(remote)?).ok_or_else(wrong)?;
        if !local.contains(':') {
            return Ok(Self { address: None, local: port(local)?, remote });
        }
        let at: SocketAddr = local.parse().map_err(|_| wrong())?;
        Ok(Self { address: Some(at.ip()), local: at.port(), remote })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}:{}", SocketAddr::new(address, self.local), self.remote),
            None => write!(f, "{}:{}", self.local, self.remote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, address, local, remote) in [
            ("80", None, 80, 80),
            ("8080:80", None, 8080, 80),
            ("0:80", None, 0, 80),
            ("192.0.2.7:8080:80", Some("192.0.2.7"), 8080, 80),
            ("[::1]:8080:80", Some("::1"), 8080, 80),
        ] {
            let forward: Forward = text.parse().unwrap();
            assert_eq!(forward.address, address.map(|address| address.parse().unwrap()), "{text}");
            assert_eq!((forward.local, forward.remote.get()), (local, remote), "{text}");
            assert_eq!(forward.to_string().parse::<Forward>().unwrap(), forward);
        }
        for bad in
            ["", "0", "8080:0", "x:80", "80:", ":80", "65536:1", "::1:80:80", "localhost:8080:80", "+1:80"]
        {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
    }

    #[test]
    fn both_kinds_of_loopback_unless_one_is_named() {
        let listeners = |text: &str| text.parse::<Forward>().unwrap().listeners();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(listeners("7:8"), [(at("127.0.0.1:7"), false), (at("[::1]:7"), true)]);
        assert_eq!(listeners("[::1]:7:8"), [(at("[::1]:7"), false)]);
    }
}
