//! The JSON files of an image layout (OCI image spec 1.1) and of `docker save`, as far as they matter here. Unknown
//! fields are allowed by the specification.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::image::digest::Digest;
use crate::image::error::Error;

/// Parses a file of the image.
pub fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|source| Error::Json { what: what.into(), source })
}

/// `oci-layout`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutVersion {
    pub image_layout_version: String,
}

/// What a blob is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

/// `index.json`, or an index in it.
#[derive(Debug, Deserialize)]
pub struct Index {
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// An image's manifest.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub os: String,
    pub architecture: String,
    #[serde(default)]
    pub config: Option<Execution>,
    pub rootfs: RootFs,
    pub created: Option<String>,
}

/// The layers' digests, uncompressed.
#[derive(Debug, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// How to run an image. Writers put null for what is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub stop_signal: Option<String>,
}

/// An image of `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

impl Config {
    /// Whether this machine can run the image.
    pub fn check_platform(&self) -> Result<(), Error> {
        for (name, value, wanted) in
            [("os", &self.os, "linux"), ("architecture", &self.architecture, "amd64")]
        {
            if value != wanted {
                return Err(Error::Invalid(format!(
                    "the image is for {name} \"{value}\", this machine is {wanted}"
                )));
            }
        }
        Ok(())
    }
}
