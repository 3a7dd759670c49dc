//! The stage1s: where they are, what they need of the host, and the exec that hands a pod over (stage1 ABI, version 6).

mod exporter;
mod foreign;
mod image;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pod::abi::{
    ANNOTATION_APP, ANNOTATION_ATTACH, ANNOTATION_ENTER, ANNOTATION_PORT_FORWARD, ANNOTATION_STATS,
    ANNOTATION_STOP, AppArguments, AttachArguments, ENV_LOCK_FD, ENV_MOUNT_CONTEXT, ENV_SOCKETS,
    ENV_TIMELINE, ENV_TIMELINE_FILE, ENV_USERS_LOCK_FD, EnterArguments, PodDirectory, PortForwardArguments,
    RunArguments, StopArguments,
};
use pod::image_manifest::ImageManifest;
use pod::selinux::Context;
use pod::sockets::{Passed, VARIABLES};
use pod::statistics::PodStatistics;
use uuid::Uuid;

pub use exporter::Exporter;
pub use foreign::{Foreign, Running};
pub use image::find;

use crate::cli::Stage1;
use crate::sockets::Sockets;
use crate::{host, kvm, read_only, timeline};

/// The entrypoints of our stage1s, all of them one binary under different names.
pub const ENTRYPOINTS: [&str; 9] =
    ["init", "enter", "attach", "stats", "stop", "app", "port-forward", "export", "gc"];
/// The variable with the SELinux context of the pod's processes. Contexts are the apps' here, so it is empty, as upstream has it
/// without SELinux.
const ENV_PROCESS_CONTEXT: &str = "RKT_SELINUX_CONTEXT";
/// What a guest is made of, beside the stage1, and what it is for.
const GUEST_FILES: [(&str, &str); 3] = [
    ("vmlinux", "the guest kernel"),
    ("vmlinux-norethunk", "the guest kernel with plain returns"),
    ("guest.erofs", "the guest's root file system"),
];

/// Why a stage1 cannot run a pod here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary cannot be found.
    #[error("there is no {name} in {}; install rkt as a whole, or build all of it", searched(.directories))]
    NotInstalled {
        /// Which.
        name: &'static str,
        /// Where it was sought.
        directories: Vec<PathBuf>,
    },
    /// A file beside the binary cannot be read.
    #[error("--stage1=kvm needs {}, {what}; make build makes it", path.display())]
    GuestFile {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// KVM cannot be used.
    #[error("--stage1=kvm needs KVM; rkt doctor shows what is missing (--stage1=nspawn runs without)")]
    Kvm(#[source] vmm::probe::Problem),
    /// The kernel lacks something.
    #[error("--stage1={} needs {} in this host's kernel; rkt doctor shows what is missing", .0.name(), .1)]
    Kernel(Stage1, &'static str),
    /// The pod's stage1 cannot do it.
    #[error("the stage1 of pod \"{0}\" has no {1} entrypoint")]
    NoEntrypoint(Uuid, &'static str),
    /// Not one of ours.
    #[error("this rkt does not know the pod's stage1, {0}; prepare the pod again")]
    Foreign(String),
    /// The stage1 of somebody's cannot do it.
    #[error(transparent)]
    Interface(#[from] pod::Error),
    /// The manifest of the pod's stage1 cannot be used.
    #[error("cannot use {}", path.display())]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entrypoint said why, and failed.
    #[error("the stage1 could not {0} the pod ({1})")]
    Failed(&'static str, std::process::ExitStatus),
    /// What an entrypoint printed is not what it should.
    #[error("cannot understand what {} has measured", path.display())]
    Statistics {
        /// The entrypoint.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The handover failed.
    #[error("cannot execute {}", path.display())]
    Exec {
        /// The entrypoint.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn searched(directories: &[PathBuf]) -> String {
    directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// A stage1 of this installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The binary.
    pub binary: PathBuf,
    /// The manifest of its image.
    pub manifest: &'static str,
}

impl Stage1 {
    /// As `--stage1` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Nspawn => "nspawn",
            Self::Fly => "fly",
        }
    }

    /// The stage1 that a pod was made with.
    pub fn of_pod(directory: &PodDirectory) -> Result<(Self, Installed), Error> {
        let (path, rootfs) = (directory.stage1_manifest(), directory.stage1_rootfs());
        let manifest = read_manifest(&path)?;
        let known = [Self::Kvm, Self::Nspawn, Self::Fly];
        let stage1 = known
            .into_iter()
            .find(|stage1| manifest.name.as_str().strip_prefix("rkt/") == Some(stage1.binary_name()));
        let stage1 = stage1.ok_or_else(|| Error::Foreign(manifest.name.to_string()))?;
        let link = rootfs.join("init");
        let binary = std::fs::canonicalize(&link).map_err(|source| Error::Exec { path: link, source })?;
        Ok((stage1, Installed { binary, manifest: stage1.manifest() }))
    }

    /// The binary's name.
    pub fn binary_name(self) -> &'static str {
        match self {
            Self::Kvm => "stage1-kvm",
            Self::Nspawn => "stage1-nspawn",
            Self::Fly => "stage1-fly",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Kvm => include_str!("stage1-kvm.json"),
            Self::Nspawn => include_str!("stage1-nspawn.json"),
            Self::Fly => include_str!("stage1-fly.json"),
        }
    }

    /// Finds the binary: beside rkt's own, then in `../lib/rkt` from there.
    pub fn find(self) -> Result<Installed, Error> {
        let name = self.binary_name();
        let directories = directories();
        let binary = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
        match binary {
            Some(binary) => Ok(Installed { binary, manifest: self.manifest() }),
            None => Err(Error::NotInstalled { name, directories }),
        }
    }

    /// Whether this host can run it, asked before anything is made.
    pub fn preflight(self, installed: &Installed, kernel: &host::Kernel) -> Result<(), Error> {
        match self {
            Self::Kvm => {
                for (path, what) in guest_files(installed) {
                    std::fs::File::open(&path).map_err(|source| Error::GuestFile { path, what, source })?;
                }
                kvm::preflight().map_err(Error::Kvm)
            }
            Self::Nspawn => self.needs(kernel.missing_for_namespaces()),
            Self::Fly => self.needs(kernel.missing_for_roots()),
        }
    }

    fn needs(self, missing: Option<&'static str>) -> Result<(), Error> {
        missing.map_or(Ok(()), |missing| Err(Error::Kernel(self, missing)))
    }
}

/// The directory of this installation's stage1s.
pub fn directory() -> Option<PathBuf> {
    Some(Stage1::Nspawn.find().ok()?.binary.parent()?.to_owned())
}

/// What a guest is made of, and what it is for.
pub fn guest_files(installed: &Installed) -> [(PathBuf, &'static str); 3] {
    GUEST_FILES.map(|(name, what)| (installed.binary.with_file_name(name), what))
}

fn directories() -> Vec<PathBuf> {
    let Ok(executable) = std::env::current_exe() else { return Vec::new() };
    let Some(directory) = executable.parent() else { return Vec::new() };
    let library = directory.parent().map(|prefix| prefix.join("lib/rkt"));
    std::iter::once(directory.to_path_buf()).chain(library).collect()
}

/// What a stage1 takes over: descriptors that it inherits.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    /// The lock of the pod.
    pub lock: BorrowedFd<'a>,
    /// The lock of its users, if it has some of its own.
    pub users: Option<BorrowedFd<'a>>,
    /// The sockets that the caller has passed for its apps.
    pub sockets: &'a Sockets,
    /// Which of them are whose.
    pub assigned: &'a [Vec<Passed>],
    /// The SELinux label of containers' files, if an app has a context.
    pub files: Option<&'a Context>,
}

/// Becomes the stage1: returns only if that fails.
pub fn exec(
    pod: &Path,
    handed: Handed<'_>,
    arguments: &RunArguments,
    stage1: Stage1,
    timeline: Option<timeline::Handed>,
) -> Result<Infallible, Error> {
    let path = pod.join("stage1/rootfs").join("init");
    let Handed { lock, users, sockets, assigned, files } = handed;
    let failed = |source| Error::Exec { path: path.clone(), source };
    fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| failed(error.into()))?;
    let program = match stage1 {
        Stage1::Nspawn => read_only::program(&path).map_err(failed)?,
        // A guest sees no process of the host; what has no isolation needs no way out.
        Stage1::Kvm | Stage1::Fly => read_only::Program::Plain(path.clone()),
    };
    let mut command = Command::new(program.path());
    command.arg0(&path).args(arguments.to_arguments()).current_dir(pod);
    command.env(ENV_LOCK_FD, lock.as_raw_fd().to_string());
    match users {
        Some(users) => {
            fcntl(users, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| failed(error.into()))?;
            command.env(ENV_USERS_LOCK_FD, users.as_raw_fd().to_string())
        }
        None => command.env_remove(ENV_USERS_LOCK_FD),
    };
    for name in VARIABLES.into_iter().chain([ENV_SOCKETS]) {
        command.env_remove(name);
    }
    if assigned.iter().any(|app| !app.is_empty()) {
        sockets.pass_on().map_err(|error| failed(error.into()))?;
        command.env(ENV_SOCKETS, serde_json::to_string(assigned).map_err(|error| failed(error.into()))?);
    }
    command.env(ENV_PROCESS_CONTEXT, "");
    command.env(ENV_MOUNT_CONTEXT, files.map_or(String::new(), Context::to_string));
    command.env_remove(ENV_TIMELINE).env_remove(ENV_TIMELINE_FILE);
    if let Some(timeline) = timeline {
        command.env(ENV_TIMELINE, timeline.marks);
        command.envs(timeline.file.map(|file| (ENV_TIMELINE_FILE, file)));
    }
    Err(failed(command.exec()))
}

/// What a running pod uses, as its stage1 measures it.
pub fn statistics(pod: &Path, uuid: Uuid) -> Result<PodStatistics, Error> {
    let path = entrypoint(pod, ANNOTATION_STATS)?.ok_or(Error::NoEntrypoint(uuid, "stats"))?;
    let output = Command::new(&path)
        .arg(uuid.to_string())
        .current_dir(pod)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Exec { path: path.clone(), source })?;
    if !output.status.success() {
        return Err(Error::Failed("measure", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|source| Error::Statistics { path, source })
}

/// Asks a pod's stage1 to end the pod.
pub fn stop(pod: &Path, uuid: Uuid, force: bool) -> Result<(), Error> {
    let arguments = StopArguments { force, uuid };
    let status = match Foreign::of_pod(pod)? {
        Some(foreign) => foreign.stop(arguments)?,
        None => {
            let path = entrypoint(pod, ANNOTATION_STOP)?.ok_or(Error::NoEntrypoint(uuid, "stop"))?;
            let mut command = Command::new(&path);
            command.args(arguments.to_arguments()).current_dir(pod);
            command.status().map_err(|source| Error::Exec { path, source })?
        }
    };
    if status.success() { Ok(()) } else { Err(Error::Failed("stop", status)) }
}

/// Becomes a client of a pod's stage1 that has an app changed: returns only if that fails.
pub fn change(pod: &Path, uuid: Uuid, arguments: &AppArguments) -> Result<Infallible, Error> {
    let path = entrypoint(pod, ANNOTATION_APP)?.ok_or(Error::NoEntrypoint(uuid, "app"))?;
    let source = Command::new(&path).args(arguments.to_arguments()).current_dir(pod).exec();
    Err(Error::Exec { path, source })
}

/// Has an app come into a pod, or leave it; the stage1 says itself why it cannot.
pub fn alter(pod: &Path, uuid: Uuid, arguments: &AppArguments) -> Result<(), Error> {
    let path = entrypoint(pod, ANNOTATION_APP)?.ok_or(Error::NoEntrypoint(uuid, "app"))?;
    let status = Command::new(&path)
        .args(arguments.to_arguments())
        .current_dir(pod)
        .status()
        .map_err(|source| Error::Exec { path, source })?;
    if status.success() { Ok(()) } else { Err(Error::Failed("change", status)) }
}

/// Becomes a client of a pod's stage1 that runs a command in an app: returns only if that fails.
pub fn enter(pod: &Path, uuid: Uuid, arguments: &EnterArguments) -> Result<Infallible, Error> {
    if let Some(foreign) = Foreign::of_pod(pod)? {
        return foreign.enter(arguments);
    }
    let path = entrypoint(pod, ANNOTATION_ENTER)?.ok_or(Error::NoEntrypoint(uuid, "enter"))?;
    let source = Command::new(&path).args(arguments.to_arguments()).current_dir(pod).exec();
    Err(Error::Exec { path, source })
}

/// Becomes a client of a pod's stage1 that attaches to an app: returns only if that fails.
pub fn attach(pod: &Path, running: Running, arguments: &AttachArguments) -> Result<Infallible, Error> {
    if let Some(foreign) = Foreign::of_pod(pod)? {
        return foreign.attach(running, arguments);
    }
    let path = entrypoint(pod, ANNOTATION_ATTACH)?.ok_or(Error::NoEntrypoint(running.uuid, "attach"))?;
    let source = Command::new(&path).args(arguments.to_arguments()).current_dir(pod).exec();
    Err(Error::Exec { path, source })
}

/// Becomes a client of a pod's stage1 that forwards ports into the pod: returns only if that fails.
pub fn port_forward(pod: &Path, uuid: Uuid, arguments: &PortForwardArguments) -> Result<Infallible, Error> {
    let path = entrypoint(pod, ANNOTATION_PORT_FORWARD)?.ok_or(Error::NoEntrypoint(uuid, "port-forward"))?;
    let source = Command::new(&path).args(arguments.to_arguments()).current_dir(pod).exec();
    Err(Error::Exec { path, source })
}

/// An entrypoint of the stage1 that a pod was made with, by its annotation.
fn entrypoint(pod: &Path, annotation: &str) -> Result<Option<PathBuf>, Error> {
    let directory = PodDirectory::new(pod);
    let manifest = read_manifest(&directory.stage1_manifest())?;
    let found = manifest.annotations.iter().find(|found| found.name.as_str() == annotation);
    Ok(found.map(|found| directory.stage1_rootfs().join(found.value.trim_start_matches('/'))))
}

fn read_manifest(path: &Path) -> Result<ImageManifest, Error> {
    let unusable = |source| Error::Manifest { path: path.into(), source };
    let json = std::fs::read(path).map_err(|error| unusable(error.into()))?;
    ImageManifest::parse(&json).map_err(|error| unusable(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pod::abi::{
        ANNOTATION_EXPORT, ANNOTATION_GC, ANNOTATION_INTERFACE_VERSION, ANNOTATION_MOUNTS_IMAGES,
        ANNOTATION_RUN,
    };

    #[test]
    fn the_manifests_say_what_the_binaries_do() {
        for stage1 in [Stage1::Kvm, Stage1::Nspawn, Stage1::Fly] {
            let manifest = ImageManifest::parse(stage1.manifest().as_bytes()).unwrap();
            let annotation = |name: &str| {
                manifest.annotations.iter().find(|a| a.name.as_str() == name).map(|a| a.value.as_str())
            };
            assert_eq!(annotation(ANNOTATION_RUN), Some("/init"));
            assert_eq!(annotation(ANNOTATION_GC), Some("/gc"));
            assert_eq!(annotation(ANNOTATION_ENTER), Some("/enter"));
            assert_eq!(annotation(ANNOTATION_STOP), Some("/stop"));
            let of_parents = [
                (ANNOTATION_ATTACH, "/attach"),
                (ANNOTATION_APP, "/app"),
                (ANNOTATION_STATS, "/stats"),
                (ANNOTATION_PORT_FORWARD, "/port-forward"),
            ];
            for (name, entrypoint) in of_parents {
                let wanted = (stage1 != Stage1::Fly).then_some(entrypoint);
                assert_eq!(annotation(name), wanted, "{stage1:?}");
            }
            // The others' layers are the host's to mount.
            assert_eq!(annotation(ANNOTATION_EXPORT), (stage1 == Stage1::Kvm).then_some("/export"));
            assert_eq!(annotation(ANNOTATION_MOUNTS_IMAGES), Some("true"));
            assert_eq!(
                annotation(ANNOTATION_INTERFACE_VERSION),
                Some(pod::abi::INTERFACE_VERSION.to_string().as_str())
            );
            manifest.check_platform(crate::image::ARCHITECTURE).unwrap();
        }
    }
}
