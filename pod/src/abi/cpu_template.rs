//! `--cpu-template`, ours: what a VM's guest sees of the host's processor.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A processor that guests see. The levels are those of the x86-64 psABI, for fleets of different hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuTemplate {
    /// All of the host's that a guest can have.
    #[default]
    Host,
    /// x86-64-v2.
    V2,
    /// x86-64-v3.
    V3,
    /// x86-64-v4.
    V4,
}

impl CpuTemplate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Host, Self::V2, Self::V3, Self::V4];
}

impl fmt::Display for CpuTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        })
    }
}

impl FromStr for CpuTemplate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|template| template.to_string() == text);
        found.ok_or_else(|| Error::syntax(text, "host, x86-64-v2, x86-64-v3 or x86-64-v4"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way() {
        for template in CpuTemplate::ALL {
            assert_eq!(template.to_string().parse::<CpuTemplate>().unwrap(), template);
        }
        for bad in ["", "v3", "x86-64", "x86-64-v1", "x86-64-v5", "X86-64-v3", "host "] {
            assert!(bad.parse::<CpuTemplate>().is_err(), "{bad}");
        }
    }
}
