//! Whose an element is: the comment that it bears.

use std::fmt;

use pod::types::NetworkName;
use sha2::{Digest, Sha256};

/// How much of each name is kept, so that all together are less than the 128 bytes that a comment may have; an interface has 15.
const NETWORK_CHARACTERS: usize = 40;
const CONTAINER_CHARACTERS: usize = 64;
/// What a name that is too long ends with has this many hexadecimal digits, after a character that is in no name.
const DIGITS: usize = 16;
const CUT: char = '~';

/// A container's interface to a network. It has no character that nft would take for something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// Of names of CNI's.
    pub fn new(network: &NetworkName, container: &str, interface: &str) -> Self {
        let container = shortened(container, CONTAINER_CHARACTERS);
        Self(format!("{}{container}/{interface}", beginning(network)))
    }

    /// As an element has it.
    pub fn of_comment(comment: &str) -> Self {
        Self(comment.to_owned())
    }

    /// Whether it is in a network.
    pub fn is_in(&self, network: &NetworkName) -> bool {
        self.0.starts_with(&beginning(network))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn beginning(network: &NetworkName) -> String {
    format!("{}/", shortened(network.as_str(), NETWORK_CHARACTERS))
}

/// A name, or the beginning of it and what tells it from others that begin so.
fn shortened(name: &str, characters: usize) -> String {
    if name.len() <= characters {
        return name.to_owned();
    }
    let digest = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kept = name.chars().take(characters - DIGITS - 1);
    kept.chain([CUT]).chain(digest.chars().take(DIGITS)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> NetworkName {
        name.parse().unwrap()
    }

    #[test]
    fn usual_names_are_kept() {
        let id = "16b71eab-f81f-4f84-a5da-1b47fd760616";
        let owner = Owner::new(&network("lan"), id, "eth0");
        assert_eq!(owner.to_string(), format!("lan/{id}/eth0"));
        assert!(
            owner.is_in(&network("lan")) && !owner.is_in(&network("la")) && !owner.is_in(&network("lan2"))
        );
        assert_eq!(Owner::of_comment(&owner.to_string()), owner);
    }

    #[test]
    fn long_names_fit() {
        let (one, other) = (format!("{}a", "n".repeat(200)), format!("{}b", "n".repeat(200)));
        let owner = Owner::new(&network(&one), &"c".repeat(300), "fifteen-letters");
        assert!(owner.to_string().len() < 128, "{owner}");
        assert!(owner.is_in(&network(&one)) && !owner.is_in(&network(&other)));
        assert_ne!(owner, Owner::new(&network(&one), &"c".repeat(301), "fifteen-letters"));
    }
}
