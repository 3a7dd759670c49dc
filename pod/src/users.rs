//! The users of a pod with a user namespace of its own (`--private-users`): a range of the host's numbers, of which the
//! first is the pod's root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// How many users and groups a pod has.
pub const COUNT: u32 = 1 << 16;

/// A range of users, and of the groups with the same numbers. Its text is `SHIFT:COUNT` (stage1 ABI, `--private-users`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// The number that the pod's root has on the host; not 0.
    pub shift: u32,
    /// How many.
    pub count: u32,
}

impl UserRange {
    /// The host's number of a user of the pod, if the pod can have that one.
    pub fn on_host(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.shift + id)
    }

    /// The pod's number of a user of the host, if it is one of the pod's.
    pub fn in_pod(self, id: u32) -> Option<u32> {
        id.checked_sub(self.shift).filter(|id| *id < self.count)
    }

    /// What the kernel takes as `uid_map` and `gid_map` (user_namespaces(7)).
    pub fn to_map(self) -> String {
        format!("0 {} {}\n", self.shift, self.count)
    }
}

impl fmt::Display for UserRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shift, self.count)
    }
}

impl FromStr for UserRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers =
            text.split_once(':').and_then(|(shift, count)| Some((shift.parse().ok()?, count.parse().ok()?)));
        // The highest number is nobody's.
        let good = |(shift, count): &(u32, u32)| {
            *shift > 0 && *count > 0 && shift.checked_add(*count).is_some_and(|end| end < u32::MAX)
        };
        let (shift, count) =
            numbers.filter(good).ok_or_else(|| Error::syntax(text, "a range of users, SHIFT:COUNT"))?;
        Ok(Self { shift, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: UserRange = "65536:65536".parse().unwrap();
        assert_eq!((range.to_string().as_str(), range.to_map().as_str()), ("65536:65536", "0 65536 65536\n"));
        assert_eq!(
            (range.on_host(0), range.on_host(65535), range.on_host(65536)),
            (Some(65536), Some(131_071), None)
        );
        for bad in ["", "1", "0:1", "1:0", "4294967295:1", "4294901760:65536", "1:2:3", "-1:5"] {
            assert!(bad.parse::<UserRange>().is_err(), "{bad}");
        }
    }
}
