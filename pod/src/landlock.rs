//! What an app takes from itself by Landlock (landlock(7)); the specification has no such isolator, this one is ours.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Landlock's rules of an app. Each part that is there forbids everything of its kind but what it lists; what is not there is as
/// it is without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Landlock(Parts);

/// The isolator's value as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execute: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bind: Option<Vec<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect: Option<Vec<u16>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scope: Vec<Scope>,
}

/// What may be done beneath a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading files and listing directories.
    Read,
    /// The same, and writing, making and removing.
    Write,
    /// Reading, and executing.
    Execute,
}

/// What is kept within the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Signals reach processes of the app only.
    Signal,
    /// Connections to abstract Unix sockets likewise.
    AbstractUnixSocket,
}

/// What of the kernel's interface is needed for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The version of the interface.
    pub version: u32,
    /// The first kernel that has it.
    pub linux: &'static str,
    /// What for.
    pub what: &'static str,
}

/// Paths: with version 2 or less a file could be truncated that may not be written.
const FILES: Needed = Needed { version: 3, linux: "6.2", what: "rules for paths" };
const PORTS: Needed = Needed { version: 4, linux: "6.7", what: "rules for ports" };
const SCOPES: Needed = Needed { version: 6, linux: "6.12", what: "scopes" };

impl Landlock {
    /// The paths of each kind, if only those may be used: absolute ones in the app's root.
    pub fn paths(&self) -> Option<impl Iterator<Item = (&str, Access)>> {
        let Parts { read, write, execute, .. } = &self.0;
        let kinds = [(read, Access::Read), (write, Access::Write), (execute, Access::Execute)];
        kinds.iter().any(|(paths, _)| paths.is_some()).then(|| {
            let paths = kinds
                .into_iter()
                .flat_map(|(paths, access)| paths.iter().flatten().zip(std::iter::repeat(access)));
            paths.map(|(path, access)| (path.as_str(), access))
        })
    }

    /// The TCP ports that may be bound, if only those may.
    pub fn bind(&self) -> Option<&[u16]> {
        self.0.bind.as_deref()
    }

    /// The TCP ports that may be connected to, if only those may.
    pub fn connect(&self) -> Option<&[u16]> {
        self.0.connect.as_deref()
    }

    /// What is kept within the app.
    pub fn scopes(&self) -> &[Scope] {
        &self.0.scope
    }

    /// What it needs of the kernel.
    pub fn needed(&self) -> Needed {
        let ports = self.bind().or(self.connect()).is_some();
        match (self.scopes().is_empty(), ports) {
            (false, _) => SCOPES,
            (true, true) => PORTS,
            (true, false) => FILES,
        }
    }
}

impl TryFrom<Parts> for Landlock {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self, Error> {
        if parts == Parts::default() {
            return Err(Error::Invalid("Landlock's rules restrict nothing".into()));
        }
        let paths = [&parts.read, &parts.write, &parts.execute];
        for path in paths.into_iter().flatten().flatten() {
            let is_place =
                path.starts_with('/') && !path.contains('\0') && path.split('/').all(|name| name != "..");
            if !is_place {
                return Err(Error::syntax(path, "an absolute path without \"..\", of Landlock's rules"));
            }
        }
        if parts.bind.iter().chain(&parts.connect).flatten().any(|port| *port == 0) {
            return Err(Error::syntax("0", "a TCP port, of Landlock's rules"));
        }
        Ok(Self(parts))
    }
}

impl From<Landlock> for Parts {
    fn from(rules: Landlock) -> Self {
        rules.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Landlock, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn parts() {
        let rules = parse(r#"{"read":["/"],"write":["/tmp"],"connect":[],"scope":["signal"]}"#).unwrap();
        let paths: Vec<_> = rules.paths().unwrap().collect();
        assert_eq!(paths, [("/", Access::Read), ("/tmp", Access::Write)]);
        assert_eq!(
            (rules.bind(), rules.connect(), rules.scopes()),
            (None, Some(&[][..]), &[Scope::Signal][..])
        );
        assert_eq!(parse(&serde_json::to_string(&rules).unwrap()), Ok(rules));
        assert!(parse(r#"{"bind":[80]}"#).unwrap().paths().is_none());
    }

    #[test]
    fn what_is_needed() {
        let version = |json| parse(json).unwrap().needed().version;
        assert_eq!(version(r#"{"execute":[]}"#), 3);
        assert_eq!(version(r#"{"read":["/"],"bind":[]}"#), 4);
        assert_eq!(version(r#"{"connect":[1],"scope":["abstract-unix-socket"]}"#), 6);
    }

    #[test]
    fn refused() {
        for (bad, expected) in [
            ("{}", "nothing"),
            (r#"{"read":["tmp"]}"#, "absolute"),
            (r#"{"write":["/a/../b"]}"#, "absolute"),
            (r#"{"bind":[0]}"#, "port"),
            (r#"{"connect":[65536]}"#, "65536"),
            (r#"{"scope":["network"]}"#, "network"),
            (r#"{"reed":["/"]}"#, "reed"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
