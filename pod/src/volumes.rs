//! Volumes: directories and files that apps share with the host or with each other (appc spec, "Pod Manifest Schema"), by
//! upstream's grammar, and which of them belongs where in which app.

mod assign;
mod parse;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::AcName;

pub use assign::{AppMount, PodVolume, PodVolumes, assign, clean};

/// What `mode` of an empty volume is by default.
const DEFAULT_MODE: u32 = 0o755;
/// The bits that a mode may have.
const MODE_BITS: u32 = 0o7777;

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawVolume", into = "RawVolume")]
pub struct Volume {
    /// Unique in the pod.
    pub name: AcName,
    /// Whether apps may only read it; where nobody says, the mount point decides.
    pub read_only: Option<bool>,
    /// Where it comes from.
    pub source: VolumeSource,
}

/// Where a volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// The host.
    Host {
        /// A directory, a file, a socket or a device; absolute.
        path: PathBuf,
        /// Whether what is mounted below it comes along.
        recursive: bool,
        /// Whether owners are shifted into the pod's user namespace: the host's root is the pod's.
        idmap: bool,
    },
    /// Nowhere: a directory that the pod begins with and that ends with it.
    Empty(EmptyVolume),
}

/// An empty volume's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptyVolume {
    /// Permission bits.
    pub mode: u32,
    /// Its owner, as the pod knows users.
    pub uid: u32,
    /// Its group, likewise.
    pub gid: u32,
}

impl Default for EmptyVolume {
    fn default() -> Self {
        Self { mode: DEFAULT_MODE, uid: 0, gid: 0 }
    }
}

/// Where a volume belongs in an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Which volume.
    pub volume: AcName,
    /// Absolute, in the app's root.
    pub path: String,
    /// The volume itself, which is this app's alone, instead of one of the pod's.
    #[serde(default, rename = "appVolume", skip_serializing_if = "Option::is_none")]
    pub app_volume: Option<Volume>,
}

/// A volume as manifests have it (appc spec, schema/types/volume.go).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawVolume {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    /// Ours; upstream had no such mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    idmap: Option<bool>,
}

impl TryFrom<RawVolume> for Volume {
    type Error = Error;

    fn try_from(raw: RawVolume) -> Result<Self, Error> {
        let RawVolume { name, kind, source, read_only, recursive, mode, uid, gid, idmap } = raw;
        let name: AcName = name.parse()?;
        let invalid = |what: &str| Err(Error::Invalid(format!("volume \"{name}\": {what}")));
        let source = match kind.as_str() {
            "host" if mode.is_some() || uid.is_some() || gid.is_some() => {
                return invalid("mode, uid and gid are for kind=empty: a host's directory has its own");
            }
            "host" => match source {
                Some(path) if path.starts_with('/') && !path.contains('\0') => VolumeSource::Host {
                    path: path.into(),
                    recursive: recursive.unwrap_or(true),
                    idmap: idmap.unwrap_or(false),
                },
                Some(path) => return invalid(&format!("source \"{path}\" is not an absolute path")),
                None => return invalid("kind=host needs source=PATH"),
            },
            "empty" if source.is_some() || recursive.is_some() || idmap.is_some() => {
                return invalid("source, recursive and idmap are for kind=host");
            }
            "empty" => VolumeSource::Empty(EmptyVolume {
                mode: mode.as_deref().map_or(Ok(DEFAULT_MODE), parse::mode)?,
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            }),
            "" => return invalid("it needs kind=host or kind=empty"),
            _ => return invalid(&format!("kind=\"{kind}\" is neither host nor empty")),
        };
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return invalid("4294967295 is the number of no user");
        }
        Ok(Self { name, read_only, source })
    }
}

impl From<Volume> for RawVolume {
    fn from(volume: Volume) -> Self {
        let Volume { name, read_only, source } = volume;
        let raw = Self { name: name.into(), read_only, ..Self::default() };
        match source {
            VolumeSource::Host { path, recursive, idmap } => Self {
                kind: "host".into(),
                source: Some(path.display().to_string()),
                recursive: (!recursive).then_some(false),
                idmap: idmap.then_some(true),
                ..raw
            },
            VolumeSource::Empty(EmptyVolume { mode, uid, gid }) => Self {
                kind: "empty".into(),
                mode: Some(format!("{mode:04o}")),
                uid: Some(uid),
                gid: Some(gid),
                ..raw
            },
        }
    }
}
