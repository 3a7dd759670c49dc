//! Resource limits of a process (setrlimit(2)). The appc specification has none; in manifests they are the isolator
//! `os/linux/rlimits`, a list of `{"name": "NOFILE", "soft": 1024, "hard": 4096}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::isolator::Isolator;

/// Every resource that has a number, at its index (asm-generic/resource.h).
const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Those of which Linux keeps the limit, and no more: nothing has read it since 2.4 (getrlimit(2)).
const NOT_ENFORCED: [&str; 2] = ["RSS", "LOCKS"];

/// RLIM_INFINITY.
const UNLIMITED: u64 = u64::MAX;

/// A resource of which Linux enforces a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource(u8);

impl Resource {
    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<String> for Resource {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let enforced = || (0..).zip(NAMES).filter(|(_, known)| !NOT_ENFORCED.contains(known));
        match enforced().find(|(_, known)| *known == name) {
            Some((number, _)) => Ok(Self(number)),
            None => {
                let reason = if NOT_ENFORCED.contains(&name.as_str()) {
                    "is a resource whose limit Linux does not enforce"
                } else {
                    "is not a limited resource"
                };
                let names = enforced().map(|(_, known)| known).collect::<Vec<_>>().join(", ");
                Err(Error::Invalid(format!("\"{name}\" {reason}; there are {names}")))
            }
        }
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        NAMES.get(usize::from(resource.0)).copied().unwrap_or_default().into()
    }
}

/// A limit: what the kernel enforces, and up to where the process may raise that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRlimit")]
pub struct Rlimit {
    #[serde(rename = "name")]
    resource: Resource,
    soft: u64,
    hard: u64,
}

#[derive(Deserialize)]
struct RawRlimit {
    name: Resource,
    soft: u64,
    hard: u64,
}

impl TryFrom<RawRlimit> for Rlimit {
    type Error = Error;

    fn try_from(raw: RawRlimit) -> Result<Self, Error> {
        Self::new(raw.name, raw.soft, raw.hard)
    }
}

impl Rlimit {
    fn new(resource: Resource, soft: u64, hard: u64) -> Result<Self, Error> {
        if soft > hard {
            return Err(Error::Invalid(format!(
                "the limit of {}: the soft limit {} is above the hard limit {}",
                String::from(resource),
                Amount(soft),
                Amount(hard)
            )));
        }
        Ok(Self { resource, soft, hard })
    }

    /// What is limited.
    pub fn resource(self) -> Resource {
        self.resource
    }

    /// What the kernel enforces.
    pub fn soft(self) -> u64 {
        self.soft
    }

    /// How far the process may raise that.
    pub fn hard(self) -> u64 {
        self.hard
    }

    /// The limits of an app with these isolators; the last of a resource wins.
    pub fn of_isolators(isolators: &[Isolator]) -> Vec<Self> {
        let mut limits: Vec<Self> = Vec::new();
        for isolator in isolators {
            let Isolator::Rlimits(new) = isolator else { continue };
            limits.retain(|old| new.iter().all(|new| new.resource != old.resource));
            limits.extend(new);
        }
        limits
    }
}

/// `NAME=SOFT[:HARD]`, as on the command line; the hard limit is the soft one if there is no other.
impl FromStr for Rlimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| Error::syntax(text, "a limit such as NOFILE=1024 or NOFILE=1024:4096"))?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Self::new(Resource::try_from(name.to_owned())?, amount(soft)?, amount(hard)?)
    }
}

fn amount(text: &str) -> Result<u64, Error> {
    match text {
        "unlimited" => Ok(UNLIMITED),
        number => number.parse().map_err(|_| Error::syntax(number, "a number or \"unlimited\"")),
    }
}

/// As it is written.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            UNLIMITED => formatter.write_str("unlimited"),
            number => number.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Rlimit {
        text.parse().unwrap()
    }

    #[test]
    fn limits() {
        let limit = parse("NOFILE=1024:unlimited");
        assert_eq!(
            (i64::from(limit.resource().number()), limit.soft()),
            (i64::from(libc::RLIMIT_NOFILE), 1024)
        );
        assert_eq!(limit.hard(), libc::RLIM_INFINITY);
        assert_eq!(parse("CORE=0").hard(), 0);
        let (first, last) = (Resource::try_from("CPU".to_owned()), Resource::try_from("RTTIME".to_owned()));
        assert_eq!(u32::from(first.unwrap().number()), libc::RLIMIT_CPU);
        assert_eq!(u32::from(last.unwrap().number()), libc::RLIMIT_RTTIME);
        let json = serde_json::to_string(&limit).unwrap();
        assert_eq!(serde_json::from_str::<Rlimit>(&json).unwrap(), limit);
    }

    #[test]
    fn refused() {
        for bad in
            ["NOFILE", "NOFILE=", "NOFILE=x", "NOFILE=-1", "FILES=1", "NOFILE=2:1", "NOFILE=unlimited:1"]
        {
            assert!(bad.parse::<Rlimit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_linux_does_not_enforce_is_refused() {
        for name in NOT_ENFORCED {
            let isolator = format!(r#"{{"name": "{name}", "soft": 1, "hard": 1}}"#);
            for error in [
                format!("{name}=1").parse::<Rlimit>().unwrap_err().to_string(),
                serde_json::from_str::<Rlimit>(&isolator).unwrap_err().to_string(),
            ] {
                let (reason, names) = error.split_once("; there are ").unwrap();
                assert!(reason.contains(name) && reason.contains("does not enforce"), "{error}");
                assert!(names.starts_with("CPU, ") && !names.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn the_last_of_a_resource_wins() {
        let isolators = [
            Isolator::Rlimits(vec![parse("CORE=0"), parse("NOFILE=5")]),
            Isolator::Rlimits(vec![parse("NOFILE=7:8")]),
        ];
        assert_eq!(Rlimit::of_isolators(&isolators), [parse("CORE=0"), parse("NOFILE=7:8")]);
    }
}
