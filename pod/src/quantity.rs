//! Resource quantities with units: `500m`, `1.5`, `64M`, `2Gi` (appc spec, "Isolators"; the suffixes of Kubernetes).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A quantity in thousandths, so that `100m` is exact. Finer fractions are rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: u128,
}

const EXPECTED: &str =
    "a quantity (digits, an optional fraction, and one of m K M G T P E Ki Mi Gi Ti Pi Ei)";

/// Each suffix with its factor in thousandths.
const SUFFIXES: [(&str, u128); 14] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
    ("m", 1),
    ("K", 1_000_000),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
];

impl Quantity {
    /// The quantity in whole units, rounded up; `None` past 64 bits.
    pub fn units(self) -> Option<u64> {
        u64::try_from(self.milli.div_ceil(1000)).ok()
    }

    /// The quantity in thousandths; `None` past 64 bits.
    pub fn milli(self) -> Option<u64> {
        u64::try_from(self.milli).ok()
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::syntax(text, EXPECTED);
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
            .unwrap_or((text, 1000));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if [whole, fraction].iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()))
            || fraction.len() > 18
        {
            return Err(invalid());
        }
        let scale = 10u128.pow(fraction.len() as u32);
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| invalid())?;
        let milli = digits.checked_mul(factor).ok_or_else(invalid)?.div_ceil(scale);
        Ok(Self { milli })
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Text(String),
            Number(u64),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Raw::Number(units) => Ok(Self { milli: u128::from(units) * 1000 }),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.milli.is_multiple_of(1000) {
            write!(f, "{}", self.milli / 1000)
        } else {
            write!(f, "{}m", self.milli)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milli(text: &str) -> Option<u64> {
        text.parse::<Quantity>().ok().and_then(Quantity::milli)
    }

    #[test]
    fn units_and_fractions() {
        assert_eq!(milli("1"), Some(1000));
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("0.0001"), Some(1), "rounded up");
        assert_eq!("64M".parse::<Quantity>().unwrap().units(), Some(64_000_000));
        assert_eq!("1.5Gi".parse::<Quantity>().unwrap().units(), Some(3 << 29));
        assert_eq!("100m".parse::<Quantity>().unwrap().units(), Some(1), "rounded up");
    }

    #[test]
    fn malformed() {
        for bad in ["", "m", "1.", ".5", "-1", "1e3", "1 M", "1MB", "0x10", "1..2"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
        assert_eq!("99999999999999999999E".parse::<Quantity>().ok().and_then(Quantity::units), None);
    }
}
