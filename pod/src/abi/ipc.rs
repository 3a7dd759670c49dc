//! `--ipc` (stage1 ABI, version 6).

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Whose System V objects, message queues and shared memory a pod's apps see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipc {
    /// What the isolation has by itself: the pod's own, but for pods without isolation.
    #[default]
    Auto,
    /// The pod's own.
    Private,
    /// Those of whoever runs rkt.
    Parent,
}

impl fmt::Display for Ipc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Private => "private",
            Self::Parent => "parent",
        })
    }
}

impl FromStr for Ipc {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = [Self::Auto, Self::Private, Self::Parent];
        let found = known.into_iter().find(|ipc| ipc.to_string() == text);
        found.ok_or_else(|| Error::syntax(text, "auto, private or parent"))
    }
}
