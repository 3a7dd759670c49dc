//! What all files together say, and which of them says what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pod::abi::CpuTemplate;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::file::{Content, Credentials, Login, VERSION};
use crate::cli::{Stage1, Stage1Choice, Stage1Image};

/// A value, and the file that it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said<T> {
    value: T,
    by: PathBuf,
}

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// By domain.
    auth: BTreeMap<String, Said<Credentials>>,
    /// By registry.
    docker_auth: BTreeMap<String, Said<Login>>,
    data: Option<Said<PathBuf>>,
    stage1_images: Option<Said<PathBuf>>,
    /// A name, and the version of an image.
    stage1: Option<Said<(String, Option<String>)>>,
    location: Option<Said<String>>,
    cpu_template: Option<Said<CpuTemplate>>,
}

impl Config {
    /// Adds what a file of the same directory says.
    pub fn add(&mut self, path: &Path, content: Content) -> Result<(), Error> {
        let twice = |what: &str, by: &Path| Error::Invalid {
            path: path.to_owned(),
            what: format!("{} says something of {what} already", by.display()),
        };
        match content {
            Content::Auth(auth) => {
                for domain in auth.domains {
                    let said = Said { value: auth.credentials.clone(), by: path.into() };
                    if let Some(old) = self.auth.insert(domain.clone(), said) {
                        return Err(twice(&domain, &old.by));
                    }
                }
            }
            Content::DockerAuth(auth) => {
                for registry in auth.registries {
                    let said = Said { value: auth.credentials.clone(), by: path.into() };
                    if let Some(old) = self.docker_auth.insert(registry.clone(), said) {
                        return Err(twice(&registry, &old.by));
                    }
                }
            }
            Content::Paths(paths) => {
                let said = paths.data.map(|value| Said { value, by: path.into() });
                if let (Some(old), Some(_)) = (&self.data, &said) {
                    return Err(twice("data", &old.by));
                }
                self.data = said.or(self.data.take());
                let said = paths.stage1_images.map(|value| Said { value, by: path.into() });
                if let (Some(old), Some(_)) = (&self.stage1_images, &said) {
                    return Err(twice("stage1-images", &old.by));
                }
                self.stage1_images = said.or(self.stage1_images.take());
            }
            Content::Stage1(stage1) => {
                let name = stage1.name.map(|name| Said { value: (name, stage1.version), by: path.into() });
                if let (Some(old), Some(_)) = (&self.stage1, &name) {
                    return Err(twice("the stage1", &old.by));
                }
                self.stage1 = name.or(self.stage1.take());
                let location = stage1.location.map(|value| Said { value, by: path.into() });
                if let (Some(old), Some(_)) = (&self.location, &location) {
                    return Err(twice("the stage1's location", &old.by));
                }
                self.location = location.or(self.location.take());
                let template = stage1.cpu_template.map(|value| Said { value, by: path.into() });
                if let (Some(old), Some(_)) = (&self.cpu_template, &template) {
                    return Err(twice("cpuTemplate", &old.by));
                }
                self.cpu_template = template.or(self.cpu_template.take());
            }
        }
        Ok(())
    }

    /// Replaces whatever a directory that counts for more says something of.
    pub fn override_with(&mut self, other: Self) {
        self.auth.extend(other.auth);
        self.docker_auth.extend(other.docker_auth);
        self.data = other.data.or(self.data.take());
        self.stage1_images = other.stage1_images.or(self.stage1_images.take());
        self.stage1 = other.stage1.or(self.stage1.take());
        self.location = other.location.or(self.location.take());
        self.cpu_template = other.cpu_template.or(self.cpu_template.take());
    }

    /// Where images and pods are.
    pub fn data_directory(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|said| said.value.clone())
    }

    /// Where images of stage1s are.
    pub fn stage1_images(&self) -> Option<PathBuf> {
        self.stage1_images.as_ref().map(|said| said.value.clone())
    }

    /// The isolation of pods.
    pub fn stage1(&self) -> Result<Option<Stage1Choice>, Error> {
        let named = self.stage1.as_ref().map(|said| (said, Stage1::named(&said.value.0)));
        match (named, &self.location) {
            (None, None) => Ok(None),
            (Some((_, Some(ours))), None) => Ok(Some(Stage1Choice::Ours(ours))),
            (Some((said, Some(_))), Some(location)) => Err(Error::Invalid {
                path: location.by.clone(),
                what: format!(
                    "it has the location of a stage1's image, but {} says that the stage1 is {}; say the image's name and version",
                    said.by.display(),
                    said.value.0
                ),
            }),
            (named, location) => {
                let name = named.map(|(said, _)| match &said.value {
                    (name, Some(version)) => format!("{name}:{version}"),
                    (name, None) => name.clone(),
                });
                let location = location.as_ref().map(|said| said.value.clone());
                Ok(Some(Stage1Choice::Image(Stage1Image::Configured { name, location })))
            }
        }
    }

    /// The processor that guests see.
    pub fn cpu_template(&self) -> Option<CpuTemplate> {
        self.cpu_template.as_ref().map(|said| said.value)
    }

    /// Upstream's form, `{"stage0": [...]}`: an entry for each thing that is said, in the form of a file, with the file that says
    /// it in `source`.
    pub fn to_json(&self) -> Value {
        let auth = self.auth.iter().map(|(domain, said)| {
            let mut entry = entry("auth", said, &said.value);
            put(&mut entry, "domains", json!([domain]));
            entry
        });
        let docker_auth = self.docker_auth.iter().map(|(registry, said)| {
            entry("dockerAuth", said, &json!({ "registries": [registry], "credentials": said.value }))
        });
        let data = self.data.iter().map(|said| entry("paths", said, &json!({ "data": said.value })));
        let images = self.stage1_images.iter();
        let images = images.map(|said| entry("paths", said, &json!({ "stage1-images": said.value })));
        let stage1 = self.stage1.iter().map(|said| match &said.value {
            (name, None) => entry("stage1", said, &json!({ "name": name })),
            (name, version) => entry("stage1", said, &json!({ "name": name, "version": version })),
        });
        let location = self.location.iter();
        let location = location.map(|said| entry("stage1", said, &json!({ "location": said.value })));
        let template = self
            .cpu_template
            .iter()
            .map(|said| entry("stage1", said, &json!({ "cpuTemplate": said.value.to_string() })));
        let all =
            auth.chain(docker_auth).chain(data).chain(images).chain(stage1).chain(location).chain(template);
        json!({ "stage0": all.collect::<Vec<_>>() })
    }
}

fn entry<T>(kind: &str, said: &Said<T>, content: &impl Serialize) -> Value {
    let mut entry = serde_json::to_value(content).unwrap_or_default();
    put(&mut entry, "rktVersion", json!(VERSION));
    put(&mut entry, "rktKind", json!(kind));
    put(&mut entry, "source", json!(said.by));
    entry
}

fn put(entry: &mut Value, name: &str, value: Value) {
    if let Some(entry) = entry.as_object_mut() {
        entry.insert(name.into(), value);
    }
}
