//! One configuration file.

use std::path::{Path, PathBuf};

use pod::abi::CpuTemplate;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Error;
use crate::cli::Stage1;

/// The kinds of files, and the directories that they are in.
pub const KINDS: [(&str, &str); 4] =
    [("auth", "auth.d"), ("dockerAuth", "auth.d"), ("paths", "paths.d"), ("stage1", "stage1.d")];
/// The only version of all kinds.
pub const VERSION: &str = "v1";

/// How URLs of images begin.
const SCHEMES: [&str; 4] = ["file://", "http://", "https://", "docker://"];

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// How servers of images want to be asked.
    Auth(Auth),
    /// The same of registries.
    DockerAuth(DockerAuth),
    /// Where things are.
    Paths(Paths),
    /// Which isolation pods get.
    Stage1(Stage1Choice),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Auth {
    pub domains: Vec<String>,
    #[serde(flatten)]
    pub credentials: Credentials,
}

/// What a server wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "credentials", rename_all = "lowercase", deny_unknown_fields)]
pub enum Credentials {
    Basic(Login),
    Oauth {
        token: String,
    },
    Aws {
        #[serde(rename = "accessKeyID")]
        access_key_id: String,
        #[serde(rename = "secretAccessKey")]
        secret_access_key: String,
        #[serde(rename = "awsRegion", default, skip_serializing_if = "String::is_empty")]
        region: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub user: String,
    pub password: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerAuth {
    pub registries: Vec<String>,
    pub credentials: Login,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Where images and pods are.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Where images of stage1s are.
    #[serde(rename = "stage1-images", default)]
    pub stage1_images: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage1Choice {
    /// `kvm`, `nspawn` or `fly`; or the name of an image.
    #[serde(default)]
    pub name: Option<String>,
    /// That of the image.
    #[serde(default)]
    pub version: Option<String>,
    /// Where the image can be had: an absolute path, or a URL.
    #[serde(default)]
    pub location: Option<String>,
    /// The processor that guests see; ours, not upstream's.
    #[serde(rename = "cpuTemplate", default, deserialize_with = "cpu_template")]
    pub cpu_template: Option<CpuTemplate>,
}

impl Stage1Choice {
    /// Whether its parts are good, and go together.
    fn check(&self) -> Result<(), String> {
        let Self { name, version, location, cpu_template } = self;
        let ours = name.as_deref().and_then(Stage1::named);
        match (name, version, location) {
            (None, None, None) if cpu_template.is_none() => {
                return Err("it has neither name nor location nor cpuTemplate".into());
            }
            (None, Some(_), _) => return Err("it has a version, and no name".into()),
            (Some(name), Some(_), _) | (Some(name), _, Some(_)) if ours.is_some() => {
                return Err(format!("{name} is rkt's own, and has neither version nor location"));
            }
            (Some(name), None, _) if ours.is_none() => {
                return Err(format!(
                    "there is no stage1 \"{name}\"; there are kvm and nspawn, fly, and images, which need a version"
                ));
            }
            _ => {}
        }
        match location {
            Some(location)
                if !location.starts_with('/')
                    && !SCHEMES.iter().any(|scheme| location.starts_with(scheme)) =>
            {
                Err(format!(
                    "the location {location} is neither an absolute path nor a URL of {}",
                    SCHEMES.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }
}

fn cpu_template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CpuTemplate>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(D::Error::custom)
}

impl Content {
    /// Parses a file of one of the directories.
    pub fn parse(path: &Path, directory: &str, json: &[u8]) -> Result<Self, Error> {
        let bad = |source| Error::Json { path: path.to_owned(), source };
        let invalid = |what: String| Error::Invalid { path: path.to_owned(), what };
        let mut value: Value = serde_json::from_slice(json).map_err(bad)?;
        let object = value.as_object_mut().ok_or_else(|| invalid("it is not an object".into()))?;
        let mut text = |name: &str| match object.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(invalid(format!("it has no {name}"))),
        };
        let (kind, version) = (text("rktKind")?, text("rktVersion")?);
        if version != VERSION {
            return Err(invalid(format!("rktVersion is \"{version}\"; the only one is \"{VERSION}\"")));
        }
        if !KINDS.contains(&(kind.as_str(), directory)) {
            return Err(invalid(format!("there is no rktKind \"{kind}\" in {directory}")));
        }
        let content = match kind.as_str() {
            "auth" => Self::Auth(serde_json::from_value(value).map_err(bad)?),
            "dockerAuth" => Self::DockerAuth(serde_json::from_value(value).map_err(bad)?),
            "paths" => Self::Paths(serde_json::from_value(value).map_err(bad)?),
            _ => Self::Stage1(serde_json::from_value(value).map_err(bad)?),
        };
        match &content {
            Self::Auth(Auth { domains: names, .. })
            | Self::DockerAuth(DockerAuth { registries: names, .. })
                if names.is_empty() =>
            {
                Err(invalid("it is for no server".into()))
            }
            Self::Stage1(choice) => choice.check().map_err(invalid).map(|()| content),
            Self::Paths(Paths { data, stage1_images }) => {
                let relative = [data, stage1_images].into_iter().flatten().find(|path| !path.is_absolute());
                match relative {
                    Some(path) => Err(invalid(format!("{} is not absolute", path.display()))),
                    None => Ok(content),
                }
            }
            _ => Ok(content),
        }
    }
}
