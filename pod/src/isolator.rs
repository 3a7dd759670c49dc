//! Isolators (appc spec, "Isolators"): what an app may use. Known ones parse into types; an unknown name in an app is
//! an error, as upstream's schema has it.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::quantity::Quantity;

/// An isolator as it stands in a manifest: a name and a value whose shape the name decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawIsolator {
    /// For example `resource/memory`.
    pub name: String,
    /// The value, checked by [`Isolator::try_from`].
    pub value: serde_json::Value,
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NameSet {
    /// For example `CAP_NET_ADMIN`.
    pub set: Vec<String>,
}

/// An isolator that this version carries out.
#[derive(Clone, Debug, PartialEq)]
pub enum Isolator {
    /// `resource/cpu`, in cores.
    Cpu(Resource),
    /// `resource/memory`, in bytes.
    Memory(Resource),
    /// `os/linux/capabilities-retain-set`.
    CapabilitiesRetain(NameSet),
    /// `os/linux/capabilities-remove-set`.
    CapabilitiesRemove(NameSet),
    /// `os/linux/no-new-privileges`.
    NoNewPrivileges(bool),
    /// `os/linux/oom-score-adj`, -1000 to 1000.
    OomScoreAdj(i32),
}

/// Isolators of the specification that are refused until they are carried out: running an app without the
/// confinement that its manifest asks for would be a silent fall-back.
const NOT_YET: [&str; 9] = [
    "os/linux/apparmor-profile",
    "os/linux/cpu-shares",
    "os/linux/seccomp-remove-set",
    "os/linux/seccomp-retain-set",
    "os/linux/selinux-context",
    "os/unix/sysctl",
    "resource/block-bandwidth",
    "resource/block-iops",
    "resource/network-bandwidth",
];

impl TryFrom<&RawIsolator> for Isolator {
    type Error = Error;

    fn try_from(raw: &RawIsolator) -> Result<Self, Error> {
        let isolator = match raw.name.as_str() {
            "resource/cpu" => Self::Cpu(value(raw)?),
            "resource/memory" => Self::Memory(value(raw)?),
            "os/linux/capabilities-retain-set" => Self::CapabilitiesRetain(value(raw)?),
            "os/linux/capabilities-remove-set" => Self::CapabilitiesRemove(value(raw)?),
            "os/linux/no-new-privileges" => Self::NoNewPrivileges(value(raw)?),
            "os/linux/oom-score-adj" => Self::OomScoreAdj(oom_score(value(raw)?)?),
            name if NOT_YET.contains(&name) => return Err(Error::Unsupported(format!("isolator {name}"))),
            name => return Err(Error::Invalid(format!("unknown isolator {name}"))),
        };
        isolator.check_request(&raw.name)?;
        Ok(isolator)
    }
}

impl Isolator {
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
            r#"{"name":"resource/unheard-of","value":{}}"#,
            r#"{"name":"os/linux/seccomp-retain-set","value":{"set":["read"]}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
