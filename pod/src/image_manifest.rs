//! The image manifest (appc spec, "Image Manifest Schema"). An OCI image's configuration is turned into one at import.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::isolator::RawIsolator;
use crate::types::{AcIdentifier, AcName};

/// A name and a value: a label, or an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameValue {
    /// The name.
    pub name: AcIdentifier,
    /// The value.
    pub value: String,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    /// The name: letters, digits, `_`, `.` and `-`, no digit first.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A command that runs before an app starts or after it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventHandler {
    /// When.
    pub name: Event,
    /// The command and its arguments.
    pub exec: Vec<String>,
}

/// The events that handlers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Before the app's main process starts; must succeed.
    PreStart,
    /// After it has ended.
    PostStop,
}

/// A place in the app's file system where a volume belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// The volume's name.
    pub name: AcName,
    /// Absolute path in the app's root.
    pub path: String,
    /// Whether the app may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// A port that the app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The port's name.
    pub name: AcName,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The first port number.
    pub port: u16,
    /// How many ports from there.
    #[serde(default = "one")]
    pub count: u32,
    /// Whether the executor passes the listening socket.
    #[serde(default)]
    pub socket_activated: bool,
}

fn one() -> u32 {
    1
}

/// How to run the image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The command and its arguments; may be empty, then `--exec` is needed.
    #[serde(default)]
    pub exec: Vec<String>,
    /// A name, a number, or `/path` for that file's owner.
    pub user: String,
    /// A name, a number, or `/path` for that file's group.
    pub group: String,
    /// Further groups.
    #[serde(
        default,
        rename = "supplementaryGIDs",
        alias = "supplementaryGids",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub supplementary_gids: Vec<u32>,
    /// Absolute; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// In the manifest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<EnvironmentVariable>,
    /// At most one for each event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_handlers: Vec<EventHandler>,
    /// What the app may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolators: Vec<RawIsolator>,
    /// Where volumes belong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// What it listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Free text of the user.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub user_annotations: std::collections::BTreeMap<String, String>,
    /// Free text of the user.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub user_labels: std::collections::BTreeMap<String, String>,
}

/// An image that this one is laid over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The image's name.
    pub image_name: AcIdentifier,
    /// The exact image.
    #[serde(default, rename = "imageID", skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Labels it must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<NameValue>,
}

/// An image's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// `ImageManifest`.
    pub ac_kind: String,
    /// The specification's version.
    pub ac_version: String,
    /// The image's name.
    pub name: AcIdentifier,
    /// `os` and `arch` among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<NameValue>,
    /// How to run it, if it can be run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// Images below this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// If not empty, all that is kept of the rendered root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path_whitelist: Vec<String>,
    /// Free text of the image's maker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<NameValue>,
}

impl ImageManifest {
    /// Parses and checks a manifest; os and arch are checked when a pod is prepared ([`Self::check_platform`]).
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let manifest: Self =
            serde_json::from_slice(json).map_err(|source| Error::Json { what: "image manifest", source })?;
        if manifest.ac_kind != "ImageManifest" {
            return Err(Error::Invalid(format!("acKind is \"{}\", not \"ImageManifest\"", manifest.ac_kind)));
        }
        unique("label", manifest.labels.iter().map(|label| label.name.as_str()))?;
        unique("annotation", manifest.annotations.iter().map(|annotation| annotation.name.as_str()))?;
        if let Some(path) = manifest.path_whitelist.iter().find(|path| !path.starts_with('/')) {
            return Err(Error::Invalid(format!("\"{path}\" in its pathWhitelist is not absolute")));
        }
        if let Some(app) = &manifest.app {
            app.check()?;
        }
        Ok(manifest)
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.name.as_str() == name).map(|label| label.value.as_str())
    }

    /// Whether this machine (Linux, `arch` in appc's words) can run the image; both labels are needed.
    pub fn check_platform(&self, arch: &str) -> Result<(), Error> {
        for (name, wanted) in [("os", "linux"), ("arch", arch)] {
            match self.label(name) {
                Some(value) if value == wanted => {}
                Some(value) => {
                    return Err(Error::Invalid(format!(
                        "the image is for {name} \"{value}\", this machine is {wanted}"
                    )));
                }
                None => return Err(Error::Invalid(format!("missing {name} label in the image manifest"))),
            }
        }
        Ok(())
    }
}

impl App {
    /// Checks what types alone do not say.
    pub fn check(&self) -> Result<(), Error> {
        if self.user.is_empty() || self.group.is_empty() {
            return Err(Error::Invalid("an app needs a user and a group".into()));
        }
        for path in self.working_directory.iter().filter(|path| !path.is_empty()) {
            absolute("working directory", path)?;
        }
        for mount_point in &self.mount_points {
            absolute("mount point", &mount_point.path)?;
        }
        for variable in &self.environment {
            check_variable_name(&variable.name)?;
        }
        unique("environment variable", self.environment.iter().map(|variable| variable.name.as_str()))?;
        unique("mount point", self.mount_points.iter().map(|point| point.name.as_str()))?;
        unique("port", self.ports.iter().map(|port| port.name.as_str()))?;
        for event in [Event::PreStart, Event::PostStop] {
            if self.event_handlers.iter().filter(|handler| handler.name == event).count() > 1 {
                return Err(Error::Invalid(format!("more than one {event:?} event handler")));
            }
        }
        crate::isolator::Isolator::parse_all(&self.isolators).map(drop)
    }
}

/// Whether `name` may name an environment variable (appc spec, `^[A-Za-z_][A-Za-z_0-9.-]*$`).
pub fn check_variable_name(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(good) {
        Ok(())
    } else {
        Err(Error::syntax(name, "the name of an environment variable"))
    }
}

fn absolute(what: &str, path: &str) -> Result<(), Error> {
    if path.starts_with('/') {
        Ok(())
    } else {
        Err(Error::Invalid(format!("{what} \"{path}\" is not absolute")))
    }
}

pub(crate) fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Invalid(format!("{what} \"{name}\" stands twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/app",
        "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
        "app":{"exec":["/bin/app"],"user":"0","group":"0"}}"#;

    #[test]
    fn minimal() {
        let manifest = ImageManifest::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(manifest.app.as_ref().unwrap().exec, ["/bin/app"]);
        assert!(manifest.check_platform("amd64").is_ok());
        assert!(manifest.check_platform("aarch64").unwrap_err().to_string().contains("amd64"));
    }

    #[test]
    fn refused() {
        let cases = [
            ("ImageManifest", "PodManifest", "acKind"),
            ("example.com/app", "Example", "AC Identifier"),
            (r#""user":"0""#, r#""user":"""#, "user and a group"),
            (r#""group":"0""#, r#""group":"0","workingDirectory":"tmp""#, "not absolute"),
            (
                r#""group":"0""#,
                r#""group":"0","environment":[{"name":"1A","value":""}]"#,
                "environment variable",
            ),
            (r#""name":"arch""#, r#""name":"os""#, "stands twice"),
        ];
        for (from, to, expected) in cases {
            let error = ImageManifest::parse(MINIMAL.replace(from, to).as_bytes()).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let text = format!("{error}: {source}");
            assert!(text.contains(expected), "{to}: {text}");
        }
        assert!(ImageManifest::parse(b"not json").is_err());
    }
}
