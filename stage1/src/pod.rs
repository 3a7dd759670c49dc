//! The pod as stage0 left it in its directory.

use std::fs::File;
use std::path::Path;

use ::pod::abi::{ENV_MOUNT_CONTEXT, PodDirectory, RunArguments};
use ::pod::plan::{Isolation, Layers, Plan, World};
use ::pod::pod_manifest::PodManifest;
use ::pod::selinux::Context;

use crate::Error;

/// A pod that is to run.
#[derive(Debug)]
pub struct Pod {
    /// Where it lives.
    pub directory: PodDirectory,
    /// How it is to run.
    pub arguments: RunArguments,
    /// What is to run.
    pub manifest: PodManifest,
    /// What the apps' `/etc/resolv.conf` is to be, unless the images' own; known once there is a network.
    pub resolv_conf: Option<String>,
    /// The namespace that its network is made in, if it is not to be one of the host's user namespace.
    pub network_namespace: Option<File>,
}

impl Pod {
    /// The pod in the working directory, with the arguments of the `run` entrypoint.
    pub fn open(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let arguments = RunArguments::parse(arguments)
            .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
        let directory = here()?;
        let manifest = read_manifest(&directory)?;
        Ok(Self { directory, arguments, manifest, resolv_conf: None, network_namespace: None })
    }

    /// The plan for this pod in `isolation`, with each app's image and writable layer in the manifest's order.
    pub fn plan(&self, isolation: Isolation, layers: Vec<Layers>) -> Result<Plan, Error> {
        let world = World {
            isolation,
            hostname: self.arguments.hostname.clone(),
            interactive: self.arguments.interactive,
            insecure: self.arguments.insecure,
            resolv_conf: self.resolv_conf.clone(),
            layers,
        };
        let mut plan = ::pod::plan::compute(&self.manifest, &world)
            .map_err(|source| Error::Pod { what: "cannot run this pod".into(), source })?;
        if let Some(files) = files_label()? {
            plan.label(&files);
        }
        if self.arguments.debug {
            print(&plan);
        }
        Ok(plan)
    }
}

/// What stage0 says of the labels of containers' files; nothing, if no app has a context.
fn files_label() -> Result<Option<Context>, Error> {
    let text = std::env::var(ENV_MOUNT_CONTEXT).unwrap_or_default();
    let label = (!text.is_empty()).then(|| text.parse()).transpose();
    label.map_err(|source| Error::Pod { what: format!("cannot use {ENV_MOUNT_CONTEXT}"), source })
}

/// The directory of the pod in the working directory.
pub(crate) fn here() -> Result<PodDirectory, Error> {
    std::env::current_dir().map(PodDirectory::new).map_err(Error::file("find", Path::new(".")))
}

/// The manifest of a pod.
pub(crate) fn read_manifest(directory: &PodDirectory) -> Result<PodManifest, Error> {
    let path = directory.manifest();
    let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
    PodManifest::parse(&json)
        .map_err(|source| Error::Pod { what: format!("cannot use {}", path.display()), source })
}

fn print(plan: &Plan) {
    if let Ok(json) = serde_json::to_string_pretty(plan) {
        eprintln!("stage1: the plan is {json}");
    }
}
