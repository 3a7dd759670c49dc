//! AppArmor profiles of apps (appc spec, "os/linux/apparmor-profile").

use serde::{Deserialize, Serialize};

use crate::Error;

/// The most bytes of a profile's name that the kernel takes with the command before it: a page.
const MAX_NAME_BYTES: usize = 4000;

/// The name of a profile that an app's program is executed under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Profile(String);

impl Profile {
    /// The profile that confines nothing, which every kernel with AppArmor has.
    pub const UNCONFINED: &str = "unconfined";

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is in the kernel's list of profiles, with lines like `name (enforce)`.
    pub fn is_listed(&self, profiles: &str) -> bool {
        let name = |line: &str| line.rsplit_once(" (").map(|(name, _mode)| name.to_owned());
        self.0 == Self::UNCONFINED || profiles.lines().any(|line| name(line).as_deref() == Some(&self.0))
    }
}

impl TryFrom<String> for Profile {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && !name.chars().any(|c| c.is_control() || c.is_whitespace());
        if is_name { Ok(Self(name)) } else { Err(Error::syntax(name, "the name of an AppArmor profile")) }
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for bad in ["", "a b", "a\nb", &"x".repeat(4001)] {
            assert!(Profile::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        let profile = Profile::try_from("rkt//web".to_owned()).unwrap();
        assert!(profile.is_listed("other (enforce)\nrkt//web (complain)\n"));
        assert!(!profile.is_listed("rkt (enforce)\nrkt//web2 (enforce)\n"));
        assert!(Profile::try_from("unconfined".to_owned()).unwrap().is_listed(""));
    }
}
