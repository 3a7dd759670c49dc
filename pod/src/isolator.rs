//! Isolators (appc spec, "Isolators"): what an app may use. Known ones parse into types; an unknown name in an app is
//! an error, as upstream's schema has it.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::apparmor::Profile;
use crate::capability::CapabilitySet;
use crate::disk_space;
use crate::landlock::Landlock;
use crate::limits::{CPU_SHARES, MAX_PIDS};
use crate::quantity::Quantity;
use crate::rates::RateKind;
use crate::rlimit::Rlimit;
use crate::seccomp::{self, SystemCallSet};
use crate::selinux::Context;

/// The names of isolators that more than this module speaks of.
pub mod names {
    /// Exactly these capabilities.
    pub const CAPABILITIES_RETAIN: &str = "os/linux/capabilities-retain-set";
    /// The default capabilities without these.
    pub const CAPABILITIES_REMOVE: &str = "os/linux/capabilities-remove-set";
    /// These system calls only.
    pub const SECCOMP_RETAIN: &str = "os/linux/seccomp-retain-set";
    /// Every system call but these.
    pub const SECCOMP_REMOVE: &str = "os/linux/seccomp-remove-set";
    /// Limits of each process; the specification has none, this name is ours.
    pub const RLIMITS: &str = "os/linux/rlimits";
    /// How many processes and threads the app has; ours as well.
    pub const PIDS: &str = "resource/pids";
    /// How much the apps may write; ours as well.
    pub const DISK_SPACE: &str = "resource/disk-space";
    /// What part of the CPU time the app gets where apps contend.
    pub const CPU_SHARES: &str = "os/linux/cpu-shares";
    /// The profile of AppArmor that confines the app.
    pub const APPARMOR: &str = "os/linux/apparmor-profile";
    /// The SELinux context that confines the app.
    pub const SELINUX: &str = "os/linux/selinux-context";
    /// What the app takes from itself by Landlock; ours as well.
    pub const LANDLOCK: &str = "os/linux/landlock";
    /// How willingly the kernel kills the app.
    pub const OOM_SCORE_ADJ: &str = "os/linux/oom-score-adj";
}

/// An isolator as it stands in a manifest: a name and a value whose shape the name decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawIsolator {
    /// For example `resource/memory`.
    pub name: String,
    /// The value, checked by [`Isolator::try_from`].
    pub value: serde_json::Value,
}

impl RawIsolator {
    /// A limit of a resource, and as much to count on.
    pub fn of_limit(name: &str, limit: Quantity) -> Self {
        Self { name: name.into(), value: serde_json::json!({ "request": limit, "limit": limit }) }
    }
}

/// A resource with a guaranteed and a largest amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// What the app is guaranteed; at most the limit.
    pub request: Option<Quantity>,
    /// What the app may use at most.
    pub limit: Option<Quantity>,
}

/// A set of names, as the capability isolators have it.
#[derive(Deserialize)]
struct NameSet {
    set: Vec<String>,
}

/// An isolator that this version carries out.
#[derive(Clone, Debug, PartialEq)]
pub enum Isolator {
    /// `resource/cpu`, in cores.
    Cpu(Resource),
    /// `resource/memory`, in bytes.
    Memory(Resource),
    /// `resource/pids`: at least one, at most [`MAX_PIDS`].
    Pids(u64),
    /// `resource/disk-space`, in bytes ([`crate::disk_space`]).
    DiskSpace(u64),
    /// `resource/block-bandwidth`, `resource/block-iops` or `resource/network-bandwidth`: so much a second.
    Rate(RateKind, NonZeroU64),
    /// `os/linux/capabilities-retain-set`.
    CapabilitiesRetain(CapabilitySet),
    /// `os/linux/capabilities-remove-set`.
    CapabilitiesRemove(CapabilitySet),
    /// `os/linux/seccomp-retain-set`.
    SeccompRetain(SystemCallSet),
    /// `os/linux/seccomp-remove-set`.
    SeccompRemove(SystemCallSet),
    /// `os/linux/rlimits`.
    Rlimits(Vec<Rlimit>),
    /// `os/linux/no-new-privileges`.
    NoNewPrivileges(bool),
    /// `os/linux/apparmor-profile`.
    AppArmor(Profile),
    /// `os/linux/selinux-context`.
    Selinux(Context),
    /// `os/linux/landlock`.
    Landlock(Landlock),
    /// `os/linux/cpu-shares`, 2 to 262144.
    CpuShares(u64),
    /// `os/linux/oom-score-adj`, -1000 to 1000.
    OomScoreAdj(i32),
}

/// Isolators of the specification that are refused until they are carried out: running an app without the
/// confinement that its manifest asks for would be a silent fall-back.
const NOT_YET: [&str; 1] = ["os/unix/sysctl"];

impl TryFrom<&RawIsolator> for Isolator {
    type Error = Error;

    fn try_from(raw: &RawIsolator) -> Result<Self, Error> {
        let isolator = match raw.name.as_str() {
            "resource/cpu" => Self::Cpu(value(raw)?),
            "resource/memory" => Self::Memory(value(raw)?),
            names::PIDS => Self::Pids(pids(value::<PidsLimit>(raw)?.limit)?),
            names::DISK_SPACE => Self::DiskSpace(disk_space::bytes(value::<DiskSpaceLimit>(raw)?.limit)?),
            names::CAPABILITIES_RETAIN => Self::CapabilitiesRetain(capabilities(&value(raw)?)?),
            names::CAPABILITIES_REMOVE => Self::CapabilitiesRemove(capabilities(&value(raw)?)?),
            names::SECCOMP_RETAIN => Self::SeccompRetain(value(raw)?),
            names::SECCOMP_REMOVE => Self::SeccompRemove(value(raw)?),
            names::RLIMITS => Self::Rlimits(value(raw)?),
            "os/linux/no-new-privileges" => Self::NoNewPrivileges(value(raw)?),
            names::APPARMOR => Self::AppArmor(value::<AppArmorProfile>(raw)?.profile),
            names::SELINUX => Self::Selinux(value(raw)?),
            names::LANDLOCK => Self::Landlock(value(raw)?),
            names::CPU_SHARES => Self::CpuShares(cpu_shares(value(raw)?)?),
            names::OOM_SCORE_ADJ => Self::OomScoreAdj(oom_score(value(raw)?)?),
            name if NOT_YET.contains(&name) => return Err(Error::Unsupported(format!("isolator {name}"))),
            name => match RateKind::of_name(name) {
                Some(kind) => Self::Rate(kind, rate(kind, value(raw)?)?),
                None => return Err(Error::Invalid(format!("unknown isolator {name}"))),
            },
        };
        isolator.check_request(&raw.name)?;
        Ok(isolator)
    }
}

impl Isolator {
    /// Parses an app's isolators, and checks that they do not contradict each other.
    pub fn parse_all(raw: &[RawIsolator]) -> Result<Vec<Self>, Error> {
        let isolators: Vec<Self> = raw.iter().map(Self::try_from).collect::<Result<_, _>>()?;
        seccomp::check(&isolators, CapabilitySet::of_isolators(&isolators)?)?;
        Ok(isolators)
    }

    /// The isolator with this name: of several the last wins, as upstream's stage1 has it.
    pub fn last(raw: &[RawIsolator], name: &str) -> Result<Option<Self>, Error> {
        raw.iter().rfind(|raw| raw.name == name).map(Self::try_from).transpose()
    }

    fn check_request(&self, name: &str) -> Result<(), Error> {
        if let Self::Cpu(resource) | Self::Memory(resource) = self
            && let (Some(request), Some(limit)) = (resource.request, resource.limit)
            && request > limit
        {
            return Err(Error::Invalid(format!(
                "{name}: the request {request} is more than the limit {limit}"
            )));
        }
        Ok(())
    }
}

fn value<'a, T: Deserialize<'a>>(raw: &'a RawIsolator) -> Result<T, Error> {
    T::deserialize(&raw.value)
        .map_err(|source| Error::Invalid(format!("isolator {} has an invalid value: {source}", raw.name)))
}

fn capabilities(names: &NameSet) -> Result<CapabilitySet, Error> {
    CapabilitySet::named(names.set.iter().map(String::as_str))
}

#[derive(Deserialize)]
struct AppArmorProfile {
    profile: Profile,
}

#[derive(Deserialize)]
struct PidsLimit {
    limit: u64,
}

#[derive(Deserialize)]
struct DiskSpaceLimit {
    limit: Quantity,
}

fn pids(limit: u64) -> Result<u64, Error> {
    if (1..=MAX_PIDS).contains(&limit) {
        Ok(limit)
    } else {
        Err(Error::syntax(limit.to_string(), "a number of processes from 1 to 4194304"))
    }
}

/// A limit of all devices of a kind, which is what the specification has.
#[derive(Deserialize)]
struct DefaultLimit {
    default: bool,
    limit: Quantity,
}

fn rate(kind: RateKind, DefaultLimit { default, limit }: DefaultLimit) -> Result<NonZeroU64, Error> {
    let invalid = |why| Error::Invalid(format!("{}: {why}", kind.name()));
    if !default {
        return Err(invalid("\"default\" has to be true: the limit is every device's".into()));
    }
    match limit.units().map(NonZeroU64::new) {
        Some(Some(rate)) if rate.get() >= kind.least() => Ok(rate),
        Some(_) => Err(invalid(format!("{limit} a second is too little; is a unit missing?"))),
        None => Err(invalid(format!("{limit} a second is too much"))),
    }
}

fn cpu_shares(shares: u64) -> Result<u64, Error> {
    if CPU_SHARES.contains(&shares) {
        Ok(shares)
    } else {
        Err(Error::syntax(shares.to_string(), "CPU shares from 2 to 262144"))
    }
}

fn oom_score(score: i32) -> Result<i32, Error> {
    if (-1000..=1000).contains(&score) {
        Ok(score)
    } else {
        Err(Error::syntax(score.to_string(), "an OOM score adjustment from -1000 to 1000"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Isolator, Error> {
        Isolator::try_from(&serde_json::from_str::<RawIsolator>(json).unwrap())
    }

    #[test]
    fn memory_limit() {
        let Isolator::Memory(memory) =
            parse(r#"{"name":"resource/memory","value":{"limit":"64M"}}"#).unwrap()
        else {
            panic!("not a memory isolator")
        };
        assert_eq!(memory.limit.unwrap().units(), Some(64_000_000));
    }

    #[test]
    fn refused() {
        for bad in [
            r#"{"name":"resource/memory","value":{"limit":"64X"}}"#,
            r#"{"name":"resource/cpu","value":{"request":"2","limit":"1"}}"#,
            r#"{"name":"os/linux/oom-score-adj","value":1001}"#,
            r#"{"name":"os/linux/cpu-shares","value":1}"#,
            r#"{"name":"os/linux/apparmor-profile","value":{"profile":""}}"#,
            r#"{"name":"os/linux/cpu-shares","value":262145}"#,
            r#"{"name":"os/linux/landlock","value":{}}"#,
            r#"{"name":"os/linux/selinux-context","value":{"user":"u","role":"r","type":"t"}}"#,
            r#"{"name":"resource/unheard-of","value":{}}"#,
            r#"{"name":"resource/pids","value":{"limit":0}}"#,
            r#"{"name":"resource/pids","value":{}}"#,
            r#"{"name":"resource/disk-space","value":{"limit":"1"}}"#,
            r#"{"name":"resource/disk-space","value":{}}"#,
            r#"{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_FLY"]}}"#,
            r#"{"name":"os/linux/seccomp-retain-set","value":{"set":["raed"]}}"#,
            r#"{"name":"os/linux/seccomp-retain-set","value":{"set":[]}}"#,
            r#"{"name":"os/linux/seccomp-remove-set","value":{"set":["read"],"errno":"EWHAT"}}"#,
            r#"{"name":"os/linux/rlimits","value":[{"name":"NOFILE","soft":2,"hard":1}]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let isolator = |name: &str, call: &str| RawIsolator {
            name: name.into(),
            value: serde_json::json!({ "set": [call] }),
        };
        let (retain, remove) =
            (isolator(names::SECCOMP_RETAIN, "read"), isolator(names::SECCOMP_REMOVE, "mkdir"));
        let (keep, drop) =
            (isolator(names::CAPABILITIES_RETAIN, "CHOWN"), isolator(names::CAPABILITIES_REMOVE, "KILL"));
        for good in [&retain, &remove, &keep, &drop] {
            assert!(Isolator::parse_all(std::slice::from_ref(good)).is_ok(), "{good:?}");
        }
        for bad in [[retain.clone(), remove], [retain.clone(), retain], [keep, drop]] {
            assert!(Isolator::parse_all(&bad).is_err(), "{bad:?}");
        }
    }
}
