//! SELinux contexts of apps (appc spec, "os/linux/selinux-context"), and the labels of their files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The most bytes of a context that are taken: the kernel takes a page.
const MAX_BYTES: usize = 4000;

/// `user:role:type:level`, of a process or of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Context(Parts);

/// The isolator's value as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    user: String,
    role: String,
    r#type: String,
    level: String,
}

impl Context {
    /// The label of an app's files: `file` is what the host's policy has for those of containers, and the level is the app's.
    pub fn label_like(&self, file: &Self) -> Self {
        Self(Parts { level: self.0.level.clone(), ..file.0.clone() })
    }

    /// The mount option that gives every file of a file system this label (mount(8), "context").
    pub fn mount_option(&self) -> String {
        // A level may have commas.
        format!("context=\"{self}\"")
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { user, role, r#type, level } = &self.0;
        write!(f, "{user}:{role}:{type}:{level}")
    }
}

impl FromStr for Context {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(user), Some(role), Some(r#type), Some(level)) => {
                Parts { user, role, r#type, level }.try_into()
            }
            _ => Err(Error::syntax(text, "an SELinux context USER:ROLE:TYPE:LEVEL")),
        }
    }
}

impl TryFrom<Parts> for Context {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self, Error> {
        let is_name = |text: &str, further: &[char]| {
            let good =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') || further.contains(&c);
            !text.is_empty() && text.len() <= MAX_BYTES / 4 && text.chars().all(good)
        };
        let Parts { user, role, r#type, level } = &parts;
        for (kind, name) in [("user", user), ("role", role), ("type", r#type)] {
            if !is_name(name, &[]) {
                return Err(Error::Invalid(format!("\"{name}\" is not the {kind} of an SELinux context")));
            }
        }
        if !is_name(level, &[':', ',']) {
            let what = format!("\"{level}\" is not the level of an SELinux context, such as s0:c1,c2");
            return Err(Error::Invalid(what));
        }
        Ok(Self(parts))
    }
}

impl From<Context> for Parts {
    fn from(context: Context) -> Self {
        context.0
    }
}

/// What `contexts/lxc_contexts` of an SELinux policy says of containers' files: a line `file = "CONTEXT"`.
pub fn file_context(text: &str) -> Result<Context, Error> {
    let values = text.lines().filter_map(|line| line.split_once('='));
    let file = values
        .filter(|(name, _)| name.trim() == "file")
        .map(|(_, value)| value.trim().trim_matches('"'))
        .next();
    file.ok_or_else(|| Error::Invalid("it has no line `file = \"CONTEXT\"`".into()))?.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        let text = "system_u:system_r:container_t:s0:c1,c2";
        let context: Context = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        let json = r#"{"user":"system_u","role":"system_r","type":"container_t","level":"s0:c1,c2"}"#;
        assert_eq!(serde_json::from_str::<Context>(json).unwrap(), context);
        assert_eq!(serde_json::to_string(&context).unwrap(), json);
        for bad in ["", "a:b:c", "a:b::s0", "a:b:c:", "a b:b:c:s0", "a:b:c:s0\"", "a:b:c:s0/x"] {
            assert!(bad.parse::<Context>().is_err(), "{bad:?}");
        }
        assert!(
            serde_json::from_str::<Context>(r#"{"user":"a:b","role":"b","type":"c","level":"s0"}"#).is_err()
        );
    }

    #[test]
    fn files_have_the_level_of_their_app() {
        let policy = "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";
        let file = file_context(policy).unwrap();
        let app: Context = "u:r:t:s0:c1,c2".parse().unwrap();
        let option = app.label_like(&file).mount_option();
        assert_eq!(option, "context=\"system_u:object_r:container_file_t:s0:c1,c2\"");
        assert!(file_context("process = \"a:b:c:d\"\n").is_err() && file_context("file = \"x\"").is_err());
    }
}
