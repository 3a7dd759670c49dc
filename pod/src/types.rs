//! The appc specification's small types, parsed at the edge into values that cannot be wrong.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Defines a string type whose only constructor checks it.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $check:path, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                if $check(text) { Ok(Self(text.to_owned())) } else { Err(Error::syntax(text, $expected)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_string!(
    /// An AC Name: the name of an app, a volume, a port, a mount point (appc spec, "AC Name").
    AcName,
    is_ac_name,
    "an AC Name (lower-case letters and digits, words joined by single hyphens)"
);
checked_string!(
    /// An AC Identifier: the name of an image, a label, an annotation (appc spec, "AC Identifier").
    AcIdentifier,
    is_ac_identifier,
    "an AC Identifier (lower-case letters and digits, joined by single -, ., _, ~ or /)"
);
checked_string!(
    /// An image's ID: `sha512-` and the first 64 hexadecimal digits of a SHA-512.
    ImageId,
    is_image_id,
    "an image ID (sha512- and 64 hexadecimal digits)"
);
checked_string!(
    /// The name of a network (CNI spec, "Section 1: Network configuration format").
    NetworkName,
    is_cni_identifier,
    "the name of a network (a letter or digit, then letters, digits, '.', '_' and '-')"
);

impl AcName {
    /// The nearest AC Name to `text`: lower case, every run of other characters one hyphen; `None` if nothing is left.
    pub fn sanitise(text: &str) -> Option<Self> {
        let words: Vec<String> = text
            .to_ascii_lowercase()
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        words.join("-").parse().ok()
    }
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Words of lower-case letters and digits, joined by single characters out of `joints`.
fn is_words_joined_by(text: &str, joints: &[u8]) -> bool {
    let edges = [text.as_bytes().first(), text.as_bytes().last()];
    edges.into_iter().all(|edge| edge.is_some_and(|byte| is_alphanumeric(*byte)))
        && text.bytes().all(|byte| is_alphanumeric(byte) || joints.contains(&byte))
        && text.as_bytes().windows(2).all(|pair| pair.iter().any(|byte| is_alphanumeric(*byte)))
}

fn is_ac_name(text: &str) -> bool {
    is_words_joined_by(text, b"-")
}

fn is_ac_identifier(text: &str) -> bool {
    is_words_joined_by(text, b"-._~/")
}

fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha512-")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether CNI takes it as the name of a network, or as the ID of a container: it starts with a letter or digit, and so does no path
/// (CNI spec, "Network configuration objects" and "Parameters").
pub fn is_cni_identifier(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "redis", "my-app2", "0-0"] {
            assert!(good.parse::<AcName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "ä"] {
            assert!(bad.parse::<AcName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn identifiers() {
        assert!("example.com/reduce-worker_2".parse::<AcIdentifier>().is_ok());
        for bad in ["example.com//x", "/a", "a/", "Example"] {
            assert!(bad.parse::<AcIdentifier>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sanitised_names() {
        assert_eq!(AcName::sanitise("My_App.v2").unwrap().as_str(), "my-app-v2");
        assert_eq!(AcName::sanitise("--"), None);
    }

    #[test]
    fn image_ids() {
        let id = format!("sha512-{}", "0a".repeat(32));
        assert!(id.parse::<ImageId>().is_ok());
        assert!(id[..70].parse::<ImageId>().is_err());
        assert!(id.to_uppercase().parse::<ImageId>().is_err());
    }
}
