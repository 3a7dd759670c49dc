//! The pod as stage0 left it in its directory.

use std::fs::File;
use std::path::Path;

use ::pod::abi::{ENV_MOUNT_CONTEXT, HostsFrom, PodDirectory, ResolvFrom, RunArguments};
use ::pod::metadata::Registration;
use ::pod::plan::{AppPlan, Hosts, ImageSource, Isolation, Layers, Plan, World};
use ::pod::pod_manifest::PodManifest;
use ::pod::seccomp::KERNEL_TAKES_FILTERS;
use ::pod::selinux::Context;
use ::pod::types::AcName;

use crate::{Error, metadata};

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
    /// What their `/etc/hosts` is to be.
    pub hosts: Hosts,
    /// How the metadata service knows it, if it does.
    pub metadata: Option<Registration>,
    /// Where its apps find that; known once there is a network.
    pub metadata_url: Option<String>,
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
        if manifest.is_mutable() != arguments.mutable {
            return Err(Error::Pod {
                what: "cannot carry out these arguments".into(),
                source: ::pod::Error::Invalid(format!(
                    "the pod's manifest says {}, and --mutable the opposite",
                    manifest.is_mutable()
                )),
            });
        }
        let resolv_conf = match arguments.names.resolv {
            ResolvFrom::Default | ResolvFrom::None => None,
            ResolvFrom::Host => Some(read_text(Path::new("/etc/resolv.conf"))?),
            ResolvFrom::Stage0 => Some(read_text(&directory.resolv_conf())?),
        };
        let hosts = hosts(&directory, &arguments)?;
        let metadata = metadata::read(&directory)?;
        let (metadata_url, network_namespace) = (None, None);
        Ok(Self {
            directory,
            arguments,
            manifest,
            resolv_conf,
            hosts,
            metadata,
            metadata_url,
            network_namespace,
        })
    }

    /// Where each app's image, as a file or as a tree, and the directory of what it writes are, in the manifest's order; of a
    /// pod that the host's kernel runs.
    pub fn layers(&self) -> Result<Vec<Layers>, Error> {
        self.manifest.apps.iter().map(|app| layers(&self.directory, &app.name)).collect()
    }

    /// What plans of this pod depend on, with each app's image and writable layer in the manifest's order.
    pub fn world(&self, isolation: Isolation, layers: Vec<Layers>) -> World {
        World {
            isolation,
            hostname: self.arguments.hostname.clone(),
            interactive: self.arguments.interactive,
            ipc: self.arguments.ipc,
            insecure: self.arguments.insecure,
            resolv_conf: self.resolv_conf.clone(),
            metadata_url: self.metadata_url.clone(),
            hosts: Some(self.hosts.clone()),
            layers,
        }
    }

    /// The plan for this pod in `isolation`, with the same.
    pub fn plan(&self, isolation: Isolation, layers: Vec<Layers>) -> Result<Plan, Error> {
        let mut plan = ::pod::plan::compute(&self.manifest, &self.world(isolation, layers))
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

/// What `/etc/hosts` is to be.
fn hosts(directory: &PodDirectory, arguments: &RunArguments) -> Result<Hosts, Error> {
    let (content, replace) = match arguments.names.hosts {
        HostsFrom::Default => (::pod::hosts::text(&arguments.hostname, &[]), false),
        HostsFrom::Host => (read_text(Path::new("/etc/hosts"))?, true),
        HostsFrom::Stage0 => (read_text(&directory.hosts())?, true),
    };
    Ok(Hosts { content, replace })
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::file("read", path))
}

/// Whether the host's kernel takes the apps' filters, asked before any of their processes is made.
pub fn check_filters(apps: &[AppPlan]) -> Result<(), Error> {
    let needed = apps.iter().any(|app| app.process.filter.is_some());
    if needed && !Path::new(KERNEL_TAKES_FILTERS).exists() { Err(Error::NoFilters) } else { Ok(()) }
}

/// An app's image, as a file or as a tree, and the directory of what it writes.
pub fn layers(directory: &PodDirectory, app: &AcName) -> Result<Layers, Error> {
    let (file, tree) = (directory.app_image(app), directory.app_tree(app));
    let image = if file.exists() {
        ImageSource::File(file)
    } else if tree.exists() {
        ImageSource::Tree(tree)
    } else {
        return Err(Error::NoImage { app: app.to_string(), image: file, tree });
    };
    Ok(Layers { image, writable: directory.overlay(app) })
}

/// What stage0 says of the labels of containers' files; nothing, if no app has a context.
fn files_label() -> Result<Option<Context>, Error> {
    let text = std::env::var(ENV_MOUNT_CONTEXT).unwrap_or_default();
    let label = (!text.is_empty()).then(|| text.parse()).transpose();
    label.map_err(|source| Error::Pod { what: format!("cannot use {ENV_MOUNT_CONTEXT}"), source })
}

/// The directory of the pod in the working directory.
pub fn here() -> Result<PodDirectory, Error> {
    std::env::current_dir().map(PodDirectory::new).map_err(Error::file("find", Path::new(".")))
}

/// The manifest of a pod.
pub(crate) fn read_manifest(directory: &PodDirectory) -> Result<PodManifest, Error> {
    let path = directory.manifest();
    let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
    PodManifest::parse(&json)
        .map_err(|source| Error::Pod { what: format!("cannot use {}", path.display()), source })
}

/// Replaces the manifest of a pod, whose readers see the one or the other.
pub(crate) fn write_manifest(directory: &PodDirectory, manifest: &PodManifest) -> Result<(), Error> {
    let (path, new) = (directory.manifest(), directory.new_manifest());
    let json = serde_json::to_vec(manifest).map_err(|source| Error::Pod {
        what: format!("cannot write {}", path.display()),
        source: ::pod::Error::Json { what: "pod manifest", source },
    })?;
    let written = std::fs::write(&new, json).and_then(|()| std::fs::rename(&new, &path));
    written.map_err(Error::file("write", &path))
}

fn print(plan: &Plan) {
    if let Ok(json) = serde_json::to_string_pretty(plan) {
        eprintln!("stage1: the plan is {json}");
    }
}
