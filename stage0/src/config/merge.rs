//! What all files together say, and which of them says what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pod::abi::CpuTemplate;
use serde::Serialize;
use serde_json::{Value, json};

use super::Error;
use super::file::{Content, Credentials, Login, VERSION};
use crate::cli::Stage1;

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
    stage1: Option<Said<String>>,
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
            }
            Content::Stage1(stage1) => {
                let name = stage1.name.map(|value| Said { value, by: path.into() });
                if let (Some(old), Some(_)) = (&self.stage1, &name) {
                    return Err(twice("the stage1", &old.by));
                }
                self.stage1 = name.or(self.stage1.take());
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
        self.stage1 = other.stage1.or(self.stage1.take());
        self.cpu_template = other.cpu_template.or(self.cpu_template.take());
    }

    /// Where images and pods are.
    pub fn data_directory(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|said| said.value.clone())
    }

    /// The isolation of pods.
    pub fn stage1(&self) -> Result<Option<Stage1>, Error> {
        let Some(said) = &self.stage1 else { return Ok(None) };
        match <Stage1 as clap::ValueEnum>::from_str(&said.value, false) {
            Ok(stage1) => Ok(Some(stage1)),
            Err(_) => Err(Error::Invalid {
                path: said.by.clone(),
                what: format!("there is no stage1 \"{}\"; there are kvm and nspawn", said.value),
            }),
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
        let stage1 = self.stage1.iter().map(|said| entry("stage1", said, &json!({ "name": said.value })));
        let template = self
            .cpu_template
            .iter()
            .map(|said| entry("stage1", said, &json!({ "cpuTemplate": said.value.to_string() })));
        let all = auth.chain(docker_auth).chain(data).chain(stage1).chain(template);
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
