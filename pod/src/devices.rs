//! Which devices an app may use: a list of what is allowed, in a cgroup's terms. Whatever is not in it is refused by the
//! kernel, whoever asks and whatever the node is called: an app that may make device nodes still reaches no disk.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::limits::CgroupSetting;

/// cgroup v1's controller of devices; cgroup v2 has none, but runs a program at every access.
pub const CONTROLLER: &str = "devices";

/// A device that every app has in /dev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

impl Node {
    const fn new(name: &'static str, major: u32, minor: u32) -> Self {
        Self { name, major, minor }
    }
}

/// The devices that every app has (appc spec, OS-SPEC); all are character devices, with their numbers of the kernel's
/// admin-guide/devices.txt.
pub const NODES: [Node; 6] = [
    Node::new("null", 1, 3),
    Node::new("zero", 1, 5),
    Node::new("full", 1, 7),
    Node::new("random", 1, 8),
    Node::new("urandom", 1, 9),
    Node::new("tty", 5, 0),
];

/// /dev/ptmx, which apps have as a link into their devpts.
const PTMX: (u32, u32) = (5, 2);
/// The terminals of a devpts.
const PTS_MAJOR: u32 = 136;

/// The two kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// Open it for reading.
    pub read: bool,
    /// Open it for writing.
    pub write: bool,
    /// Make a node of it.
    pub make: bool,
}

impl DeviceAccess {
    /// Reading and writing.
    pub const USE: Self = Self { read: true, write: true, make: false };
    /// Nothing but making a node, which by itself reaches no device.
    pub const MAKE: Self = Self { read: false, write: false, make: true };
}

/// Allows an access to some devices. Its text is what cgroup v1 takes: `c 1:3 rw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Of which kind.
    pub kind: DeviceKind,
    /// With which major number; `None` is any.
    pub major: Option<u32>,
    /// With which minor number; `None` is any.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

impl DeviceRule {
    const fn character(major: u32, minor: Option<u32>) -> Self {
        Self { kind: DeviceKind::Character, major: Some(major), minor, access: DeviceAccess::USE }
    }

    const fn any(kind: DeviceKind, access: DeviceAccess) -> Self {
        Self { kind, major: None, minor: None, access }
    }
}

impl Display for DeviceRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let DeviceAccess { read, write, make } = self.access;
        [(read, "r"), (write, "w"), (make, "m")]
            .into_iter()
            .filter(|(on, _)| *on)
            .try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// The devices of an app: these are allowed, all others are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePolicy {
    /// What is allowed; the order does not matter.
    pub allowed: Vec<DeviceRule>,
}

impl DevicePolicy {
    /// What upstream rkt calls "closed", and other runtimes have by default: the devices in every app's /dev, terminals,
    /// and the making of any node, since packages are unpacked with some.
    pub fn closed() -> Self {
        let nodes = NODES.iter().map(|node| DeviceRule::character(node.major, Some(node.minor)));
        let terminals = [DeviceRule::character(PTMX.0, Some(PTMX.1)), DeviceRule::character(PTS_MAJOR, None)];
        let making =
            [DeviceKind::Character, DeviceKind::Block].map(|kind| DeviceRule::any(kind, DeviceAccess::MAKE));
        Self { allowed: nodes.chain(terminals).chain(making).collect() }
    }

    /// The policy as files of a cgroup v1, in writing order (the kernel's cgroup-v1/devices.rst).
    pub fn cgroup_v1_settings(&self) -> Vec<CgroupSetting> {
        let setting = |file: &str, value: String| CgroupSetting {
            controller: CONTROLLER.into(),
            file: file.into(),
            value,
            required: true,
        };
        let nothing = setting("devices.deny", "a".into());
        let allowed = self.allowed.iter().map(|rule| setting("devices.allow", rule.to_string()));
        std::iter::once(nothing).chain(allowed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v1_lines() {
        let settings = DevicePolicy::closed().cgroup_v1_settings();
        let lines: Vec<_> = settings.iter().map(|s| format!("{} {}", s.file, s.value)).collect();
        let expected = [
            "devices.deny a",
            "devices.allow c 1:3 rw",
            "devices.allow c 1:5 rw",
            "devices.allow c 1:7 rw",
            "devices.allow c 1:8 rw",
            "devices.allow c 1:9 rw",
            "devices.allow c 5:0 rw",
            "devices.allow c 5:2 rw",
            "devices.allow c 136:* rw",
            "devices.allow c *:* m",
            "devices.allow b *:* m",
        ];
        assert_eq!(lines, expected);
        assert!(settings.iter().all(|setting| setting.required && setting.controller == "devices"));
    }
}
