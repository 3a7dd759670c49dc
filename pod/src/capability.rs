//! Linux capabilities by name, and the set that an app keeps.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::isolator::Isolator;

/// Every capability, at the index of its number (capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What an app keeps that says nothing: upstream rkt's fourteen.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "KILL",
    "MKNOD",
    "NET_RAW",
    "NET_BIND_SERVICE",
    "SETUID",
    "SETGID",
    "SETPCAP",
    "SETFCAP",
    "SYS_CHROOT",
];

/// A set of capabilities, bit n for number n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// Every capability.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// What root needs for nearly everything; without no_new_privs, also for filtering its own system calls.
    pub const SYS_ADMIN: Self = Self(1 << 21);

    /// Whether the capability with this name, without `CAP_`, is in the set.
    pub fn contains(self, name: &str) -> bool {
        NAMES.iter().position(|known| *known == name).is_some_and(|number| self.0 & 1 << number != 0)
    }

    /// The set of these names, with or without `CAP_`.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        names.into_iter().try_fold(Self(0), |set, name| {
            let bare = name.strip_prefix("CAP_").unwrap_or(name);
            match NAMES.iter().position(|known| *known == bare) {
                Some(number) => Ok(Self(set.0 | 1 << number)),
                None => Err(Error::syntax(name, "the name of a capability")),
            }
        })
    }

    /// What an app with these isolators keeps.
    pub fn of_isolators(isolators: &[Isolator]) -> Result<Self, Error> {
        let (mut retain, mut remove) = (None, None);
        for isolator in isolators {
            match isolator {
                Isolator::CapabilitiesRetain(set) => retain = Some(*set),
                Isolator::CapabilitiesRemove(set) => remove = Some(*set),
                _ => {}
            }
        }
        match (retain, remove) {
            (Some(_), Some(_)) => Err(Error::Invalid(
                "an app has both a capabilities-retain-set and a capabilities-remove-set".into(),
            )),
            (Some(retain), None) => Ok(retain),
            (None, Some(CapabilitySet(removed))) => Ok(Self(Self::named(DEFAULT)?.0 & !removed)),
            (None, None) => Self::named(DEFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let named = |names: &[&str]| CapabilitySet::named(names.iter().copied()).unwrap();
        assert_eq!(CapabilitySet::of_isolators(&[]).unwrap().0.count_ones(), 14);
        let retain = Isolator::CapabilitiesRetain(named(&["CAP_NET_ADMIN"]));
        assert_eq!(CapabilitySet::of_isolators(std::slice::from_ref(&retain)).unwrap().0, 1 << 12);
        let remove = Isolator::CapabilitiesRemove(named(&["CAP_CHOWN", "KILL"]));
        assert_eq!(CapabilitySet::of_isolators(std::slice::from_ref(&remove)).unwrap().0.count_ones(), 12);
        assert!(CapabilitySet::of_isolators(&[retain, remove]).is_err());
        assert!(CapabilitySet::named(["CAP_FLY"]).is_err());
        assert_eq!(named(&["SYS_ADMIN"]), CapabilitySet::SYS_ADMIN);
        assert!(named(&["CHOWN"]).contains("CHOWN") && !named(&["CHOWN"]).contains("KILL"));
    }
}
