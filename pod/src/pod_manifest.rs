//! The pod manifest (appc spec, "Pod Manifest Schema"): what stage0 writes and stage1 carries out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image_manifest::{App, NameValue, unique};
use crate::isolator::RawIsolator;
use crate::ports::{self, ExposedPort};
use crate::types::{AcIdentifier, AcName, ImageId};
use crate::volumes::{self, Mount, Volume};

/// Which image an app runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeImage {
    /// The exact image.
    pub id: ImageId,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<AcIdentifier>,
    /// Its labels, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<NameValue>,
}

/// One app of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeApp {
    /// Unique in the pod.
    pub name: AcName,
    /// The image.
    pub image: RuntimeImage,
    /// How to run it: the image's own app section with the command line's changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<App>,
    /// Whether the app may not write to its root.
    #[serde(default, rename = "readOnlyRootFS")]
    pub read_only_root_fs: bool,
    /// Where volumes belong, before the image's own mount points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<NameValue>,
}

impl RuntimeApp {
    /// What it may use; nothing is said of one that runs as its image has it.
    pub fn isolators(&self) -> &[RawIsolator] {
        self.app.as_ref().map_or(&[], |section| section.isolators.as_slice())
    }
}

/// A pod's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest {
    /// `PodManifest`.
    pub ac_kind: String,
    /// The specification's version.
    pub ac_version: String,
    /// In starting order.
    pub apps: Vec<RuntimeApp>,
    /// What its apps can be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What the pod as a whole may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolators: Vec<RawIsolator>,
    /// Ports that are reached from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ExposedPort>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<NameValue>,
    /// The user's own notes.
    #[serde(default, rename = "userAnnotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub user_annotations: BTreeMap<String, String>,
    /// What the user's tools select pods by.
    #[serde(default, rename = "userLabels", skip_serializing_if = "BTreeMap::is_empty")]
    pub user_labels: BTreeMap<String, String>,
}

/// Annotation of a pod that apps come into and leave while it runs: upstream's, with the value `true`.
pub const ANNOTATION_MUTABLE: &str = "coreos.com/rkt/stage1/mutable";
/// The version of the appc specification that this crate follows.
pub const AC_VERSION: &str = "0.8.11";

impl PodManifest {
    /// A manifest of these apps.
    pub fn new(apps: Vec<RuntimeApp>) -> Self {
        Self {
            ac_kind: "PodManifest".into(),
            ac_version: AC_VERSION.into(),
            apps,
            volumes: Vec::new(),
            isolators: Vec::new(),
            ports: Vec::new(),
            annotations: Vec::new(),
            user_annotations: BTreeMap::new(),
            user_labels: BTreeMap::new(),
        }
    }

    /// Parses and checks a manifest.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let manifest = Self::parse_incomplete(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses a manifest whose apps may be those of their images, so that they are still to be filled in, and then to be
    /// [checked](Self::check).
    pub fn parse_incomplete(json: &[u8]) -> Result<Self, Error> {
        let manifest: Self =
            serde_json::from_slice(json).map_err(|source| Error::Json { what: "pod manifest", source })?;
        if manifest.ac_kind != "PodManifest" {
            return Err(Error::Invalid(format!("acKind is \"{}\", not \"PodManifest\"", manifest.ac_kind)));
        }
        Ok(manifest)
    }

    /// Whether apps come into the pod and leave it while it runs; it does not end with them.
    pub fn is_mutable(&self) -> bool {
        self.annotations
            .iter()
            .any(|found| found.name.as_str() == ANNOTATION_MUTABLE && found.value == "true")
    }

    /// The manifest with one app more, the last one.
    pub fn with(&self, app: RuntimeApp) -> Result<Self, Error> {
        let mut manifest = self.clone();
        manifest.apps.push(app);
        manifest.check().map(|()| manifest)
    }

    /// The manifest without an app.
    pub fn without(&self, app: &AcName) -> Self {
        let mut manifest = self.clone();
        manifest.apps.retain(|kept| kept.name != *app);
        manifest
    }

    /// Checks what types alone do not say.
    pub fn check(&self) -> Result<(), Error> {
        if self.apps.is_empty() && !self.is_mutable() {
            return Err(Error::Invalid("a pod needs an app".into()));
        }
        unique("app", self.apps.iter().map(|app| app.name.as_str()))?;
        self.apps.iter().filter_map(|app| app.app.as_ref()).try_for_each(App::check)?;
        volumes::assign(self)?;
        ports::mappings(self).map(drop)
    }
}
