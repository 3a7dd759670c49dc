//! The interface between stage0 and stage1: upstream rkt's, version 6. stage0 execs the `run` entrypoint of the stage1
//! image in the pod's directory with these arguments; the two meet in the files of that directory.

mod cgroup_path;
mod cpu_template;
mod entrypoints;
mod foreign;
mod interface;
mod ipc;
mod names;

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::Error;
use crate::net::Net;
use crate::types::AcName;
use crate::users::UserRange;

pub use cgroup_path::CgroupPath;
pub use cpu_template::CpuTemplate;
pub use entrypoints::{
    AppArguments, AttachArguments, EnterArguments, ExportArguments, PortForwardArguments, StatsArguments,
    StopArguments,
};
pub use interface::{ENV_ENTER_APP, ENV_ENTER_COMMAND, ENV_ENTER_PID, Entrypoint, Interface, app_arguments};
pub use ipc::Ipc;
pub use names::{HostsFrom, NamesFrom, ResolvFrom};

/// The interface version that this crate speaks.
pub const INTERFACE_VERSION: u32 = 6;
/// Annotation of a stage1 image: its interface version.
pub const ANNOTATION_INTERFACE_VERSION: &str = "coreos.com/rkt/stage1/interface-version";
/// Annotation of a stage1 image: the entrypoint that runs a pod.
pub const ANNOTATION_RUN: &str = "coreos.com/rkt/stage1/run";
/// Annotation of a stage1 image: the entrypoint that cleans up after a pod.
pub const ANNOTATION_GC: &str = "coreos.com/rkt/stage1/gc";
/// Annotation of a stage1 image: the entrypoint that runs a command in an app.
pub const ANNOTATION_ENTER: &str = "coreos.com/rkt/stage1/enter";
/// Annotation of a stage1 image: the entrypoint that connects to an app's streams; not every stage1 has it.
pub const ANNOTATION_ATTACH: &str = "coreos.com/rkt/stage1/attach";
/// Annotation of a stage1 image: the entrypoint that ends a pod; not every stage1 has it.
pub const ANNOTATION_STOP: &str = "coreos.com/rkt/stage1/stop";
/// Annotation of a stage1 image: the entrypoint that changes an app of a running pod. Ours: upstream has one for each change.
pub const ANNOTATION_APP: &str = "rkt/stage1/app";
/// Annotation of a stage1 image: the entrypoint that measures a pod, and prints [`crate::statistics::PodStatistics`]. Ours.
pub const ANNOTATION_STATS: &str = "rkt/stage1/stats";
/// Annotation of a stage1 image: the entrypoint that forwards ports of the host into a running pod. Ours.
pub const ANNOTATION_PORT_FORWARD: &str = "rkt/stage1/port-forward";
/// Annotation of a stage1 image: the entrypoint that prints what an app of an ended pod has left, as an ACI, of a stage1 whose layers
/// the host does not mount. Ours.
pub const ANNOTATION_EXPORT: &str = "rkt/stage1/export";
/// Annotation of a stage1 image that mounts the apps' images itself, from `appsinfo/<app>/image.erofs`, so that stage0
/// leaves no mount in the host's namespace. Ours; upstream's stage1s want rendered trees.
pub const ANNOTATION_MOUNTS_IMAGES: &str = "rkt/stage1/mounts-images";
/// The variable that names the descriptor of the pod's lock.
pub const ENV_LOCK_FD: &str = "RKT_LOCK_FD";
/// The variable that names the descriptor of the lock on the pod's users, with `--private-users`. Ours.
pub const ENV_USERS_LOCK_FD: &str = "RKT_USERS_LOCK_FD";
/// The variable with the SELinux label of containers' files, from which those of apps with a context are made; empty if there is
/// none.
pub const ENV_MOUNT_CONTEXT: &str = "RKT_SELINUX_MOUNT_CONTEXT";
/// The variable that says which app gets which sockets of the caller's, as JSON: for each app, in the manifest's order, a list of
/// [`crate::sockets::Passed`]. Absent if none were passed. Ours.
pub const ENV_SOCKETS: &str = "RKT_SOCKETS";
/// The variable by which `--timeline` hands over when things happened: `<mark>=<microseconds of CLOCK_MONOTONIC>`,
/// comma-separated. Present and maybe empty when a timeline is wanted.
pub const ENV_TIMELINE: &str = "RKT_TIMELINE";
/// The variable that names, by an absolute path, the file that a timeline is to be drawn into. Absent if it is only printed. Ours.
pub const ENV_TIMELINE_FILE: &str = "RKT_TIMELINE_FILE";
/// The exit status of rkt's own errors, as upstream's.
pub const EXIT_ERROR: u8 = 254;

/// The arguments of the `run` entrypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunArguments {
    /// More output.
    pub debug: bool,
    /// The pod's network.
    pub net: Net,
    /// The pod's one app has the caller's terminal.
    pub interactive: bool,
    /// The users of the pod's own user namespace; the host's if absent.
    pub private_users: Option<UserRange>,
    /// The administrator's configuration, `net.d` among it; the stage1's own default if absent.
    pub local_config: Option<PathBuf>,
    /// The pod's host name.
    pub hostname: String,
    /// Where what the apps know of names comes from.
    pub names: NamesFrom,
    /// What `--insecure-options` switches off for the apps.
    pub insecure: Insecure,
    /// Whose objects of interprocess communication the apps see.
    pub ipc: Ipc,
    /// Apps come into the pod and leave it while it runs; so its manifest says as well.
    pub mutable: bool,
    /// The cgroup that the pod's is to be below; the caller's own if absent. Ours, not upstream's.
    pub cgroup_parent: Option<CgroupPath>,
    /// What the guest of a VM sees of the processor. Ours, not upstream's.
    pub cpu_template: CpuTemplate,
    /// The pod.
    pub uuid: Uuid,
}

/// Confinement that the user has switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insecure {
    /// Apps keep every capability.
    pub capabilities: bool,
    /// No path is masked or made read-only, and every device may be used.
    pub paths: bool,
    /// No system call filter.
    pub seccomp: bool,
}

impl Insecure {
    fn arguments(self) -> impl Iterator<Item = String> {
        [
            (self.capabilities, "--disable-capabilities-restriction"),
            (self.paths, "--disable-paths"),
            (self.seccomp, "--disable-seccomp"),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, argument)| argument.to_owned())
    }
}

impl RunArguments {
    /// In the order in which upstream's stage0 emits them; without the entrypoint itself.
    pub fn to_arguments(&self) -> Vec<String> {
        self.emit(true)
    }

    fn emit(&self, with_hostname: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.debug {
            arguments.push("--debug".into());
        }
        arguments.push(format!("--net={}", self.net));
        if self.interactive {
            arguments.push("--interactive".into());
        }
        if let Some(users) = &self.private_users {
            arguments.push(format!("--private-users={users}"));
        }
        if let Some(directory) = &self.local_config {
            arguments.push(format!("--local-config={}", directory.display()));
        }
        arguments.extend(with_hostname.then(|| format!("--hostname={}", self.hostname)));
        if self.names != NamesFrom::default() {
            arguments.push(format!("--dns-conf-mode={}", self.names));
        }
        arguments.extend(self.insecure.arguments());
        arguments.extend(self.mutable.then(|| "--mutable".to_owned()));
        arguments.extend((self.ipc != Ipc::Auto).then(|| format!("--ipc={}", self.ipc)));
        arguments.extend(self.cgroup_parent.iter().map(|path| format!("--cgroup-parent={path}")));
        let template = self.cpu_template;
        arguments.extend((template != CpuTemplate::Host).then(|| format!("--cpu-template={template}")));
        arguments.push(self.uuid.to_string());
        arguments
    }

    /// From a stage1's command line, without the entrypoint itself. An argument that this stage1 does not carry out is
    /// an error, not ignored.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut parsed = Self {
            debug: false,
            net: Net::None,
            interactive: false,
            private_users: None,
            local_config: None,
            hostname: String::new(),
            names: NamesFrom::default(),
            insecure: Insecure::default(),
            ipc: Ipc::Auto,
            mutable: false,
            cgroup_parent: None,
            cpu_template: CpuTemplate::Host,
            uuid: Uuid::nil(),
        };
        let mut uuid = None;
        for argument in arguments {
            let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
            match (name, value) {
                ("--debug", "" | "true") => parsed.debug = true,
                ("--debug" | "--interactive", "false") => {}
                ("--interactive", "" | "true") => parsed.interactive = true,
                ("--disable-capabilities-restriction", "") => parsed.insecure.capabilities = true,
                ("--disable-paths", "") => parsed.insecure.paths = true,
                ("--disable-seccomp", "") => parsed.insecure.seccomp = true,
                ("--dns-conf-mode", names) => parsed.names = names.parse()?,
                ("--ipc", ipc) => parsed.ipc = ipc.parse()?,
                ("--mutable", "" | "true") => parsed.mutable = true,
                ("--mutable", "false") => {}
                ("--net", net) => parsed.net = net.parse()?,
                ("--private-users", users) => parsed.private_users = Some(users.parse()?),
                ("--local-config", directory) if directory.starts_with('/') => {
                    parsed.local_config = Some(directory.into());
                }
                ("--hostname", hostname) => parsed.hostname = hostname.to_owned(),
                ("--cgroup-parent", path) => parsed.cgroup_parent = Some(path.parse()?),
                ("--cpu-template", name) => parsed.cpu_template = name.parse()?,
                (text, "") if !text.starts_with('-') && uuid.is_none() => {
                    uuid = Some(text.parse().map_err(|_| Error::syntax(text, "a pod's UUID"))?);
                }
                _ => return Err(Error::Unsupported(format!("stage1 argument {argument}"))),
            }
        }
        parsed.uuid = uuid.ok_or_else(|| Error::Invalid("the pod's UUID is missing".into()))?;
        if parsed.hostname.is_empty() {
            parsed.hostname = default_hostname(parsed.uuid);
        }
        Ok(parsed)
    }
}

/// The host name of a pod that was given none.
pub fn default_hostname(uuid: Uuid) -> String {
    format!("rkt-{uuid}")
}

/// Where things are in a pod's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDirectory {
    path: PathBuf,
}

impl PodDirectory {
    /// The layout of the directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pod's manifest.
    pub fn manifest(&self) -> PathBuf {
        self.path.join("pod")
    }

    /// A new manifest, until it takes the place of the old one.
    pub fn new_manifest(&self) -> PathBuf {
        self.path.join("pod.new")
    }

    /// Empty; its modification time is when the pod was created.
    pub fn created(&self) -> PathBuf {
        self.path.join("pod-created")
    }

    /// The stage1 image's manifest.
    pub fn stage1_manifest(&self) -> PathBuf {
        self.path.join("stage1/manifest")
    }

    /// The apps' `/etc/resolv.conf`, if it comes from stage0.
    pub fn resolv_conf(&self) -> PathBuf {
        self.path.join("stage1/rootfs/etc/rkt-resolv.conf")
    }

    /// The apps' `/etc/hosts`, if it comes from stage0.
    pub fn hosts(&self) -> PathBuf {
        self.path.join("stage1/rootfs/etc/rkt-hosts")
    }

    /// The stage1's root: its entrypoints, and what it tells of the pod.
    pub fn stage1_rootfs(&self) -> PathBuf {
        self.path.join("stage1/rootfs")
    }

    /// The directory with the apps' images: `<app>/image.erofs` and what belongs to it.
    pub fn images(&self) -> PathBuf {
        self.path.join("appsinfo")
    }

    /// An app's image manifest.
    pub fn app_manifest(&self, app: &AcName) -> PathBuf {
        self.images().join(app.as_str()).join("manifest")
    }

    /// An app's image: a hard link of the store's, so that the pod keeps it.
    pub fn app_image(&self, app: &AcName) -> PathBuf {
        self.images().join(app.as_str()).join("image.erofs")
    }

    /// An app's image as a tree, where the host cannot mount EROFS; instead of [`Self::app_image`].
    pub fn app_tree(&self, app: &AcName) -> PathBuf {
        self.images().join(app.as_str()).join("tree")
    }

    /// What an app is that is to come into a pod that runs: a [`crate::pod_manifest::RuntimeApp`] in JSON.
    pub fn addition(&self, app: &AcName) -> PathBuf {
        self.images().join(app.as_str()).join("addition")
    }

    /// When an app came into a pod that ran, by its modification time.
    pub fn app_created(&self, app: &AcName) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/created").join(app.as_str())
    }

    /// When an app of a pod whose apps come and go was started, likewise.
    pub fn app_started(&self, app: &AcName) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/started").join(app.as_str())
    }

    /// All that a pod tells of an app.
    pub fn told_of(&self, app: &AcName) -> [PathBuf; 5] {
        [
            self.status(app),
            self.restarts(app),
            self.oom_kills(app),
            self.app_created(app),
            self.app_started(app),
        ]
    }

    /// The directory of an app's writable layer (namespaces).
    pub fn overlay(&self, app: &AcName) -> PathBuf {
        self.path.join("overlay").join(app.as_str())
    }

    /// The directory of an empty volume (namespaces), by its key.
    pub fn shared_volume(&self, key: &str) -> PathBuf {
        self.path.join("sharedVolumes").join(key)
    }

    /// The disk with the apps' writable layers (VM).
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch.ext4")
    }

    /// An app's exit status, as text.
    pub fn status(&self, app: &AcName) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/status").join(app.as_str())
    }

    /// How often an app has been started again, as text; nothing if it has not.
    pub fn restarts(&self, app: &AcName) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/restarts").join(app.as_str())
    }

    /// The directory of an app's log, whose files are `1.log`, `2.log`, ... ([`crate::log`]).
    pub fn log(&self, app: &AcName) -> PathBuf {
        self.path.join("logs").join(app.as_str())
    }

    /// How many processes of an app were killed for want of memory, as text; absent if none was.
    pub fn oom_kills(&self, app: &AcName) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/oom-kills").join(app.as_str())
    }

    /// What is recorded of the pod's network.
    pub fn network(&self) -> PathBuf {
        self.path.join("net")
    }

    /// What a running pod tells of its networks: upstream's array of network name, interface, address.
    pub fn net_info(&self) -> PathBuf {
        self.path.join("net-info.json")
    }

    /// The process to enter: the supervisor (namespaces), the pod's parent (VM), or the app (fly).
    pub fn pid(&self) -> PathBuf {
        self.path.join("pid")
    }

    /// The process of the machine (VM).
    pub fn vmm_pid(&self) -> PathBuf {
        self.path.join("vmm-pid")
    }

    /// The pod's parent, which signals are for: the stage1 that rkt became, or what that has become in turn (fly). Its
    /// modification time is when the pod started.
    pub fn ppid(&self) -> PathBuf {
        self.path.join("ppid")
    }

    /// The socket at which the pod's parent waits for sessions ([`crate::session`]).
    pub fn entrance(&self) -> PathBuf {
        self.path.join("entrance")
    }

    /// The socket through which a VM pod's parent connects to its guest.
    pub fn guest_entrance(&self) -> PathBuf {
        self.path.join("guest-entrance")
    }

    /// The users of a pod with a user namespace of its own, `SHIFT:COUNT`; nothing as long as it is only prepared.
    pub fn private_users(&self) -> PathBuf {
        self.path.join("private-users-prepared")
    }

    /// Is there while the metadata service may know the pod; a [`crate::metadata::Registration`] in JSON once it does. No
    /// argument of stage1's has the token, unlike upstream: everybody on the host sees those.
    pub fn mds_registered(&self) -> PathBuf {
        self.path.join("mds-registered")
    }

    /// A symbolic link to `ready` once every app has started.
    pub fn supervisor_status(&self) -> PathBuf {
        self.path.join("stage1/rootfs/rkt/supervisor-status")
    }

    /// What the pod's stage1 keeps for its own later entrypoints, in a form of its own.
    pub fn runtime_config(&self) -> PathBuf {
        self.path.join("runtime-config")
    }

    /// A symbolic link whose target is the flavour's name.
    pub fn flavor(&self) -> PathBuf {
        self.path.join("flavor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_way() {
        let arguments = RunArguments {
            debug: true,
            net: "default,b:IP=192.0.2.7".parse().unwrap(),
            interactive: true,
            private_users: Some("65536:65536".parse().unwrap()),
            local_config: Some("/etc/rkt".into()),
            hostname: "web".into(),
            names: "resolv=none,hosts=stage0".parse().unwrap(),
            insecure: Insecure { capabilities: true, paths: false, seccomp: true },
            ipc: Ipc::Parent,
            mutable: true,
            cgroup_parent: Some("/machine.slice/a".parse().unwrap()),
            cpu_template: CpuTemplate::V3,
            uuid: Uuid::from_u128(7),
        };
        assert_eq!(RunArguments::parse(arguments.to_arguments()).unwrap(), arguments);
    }

    #[test]
    fn unknown_arguments_are_refused() {
        let uuid = Uuid::from_u128(7).to_string();
        for bad in [
            "--private-users=0:1",
            "--private-users=1",
            "--net=a,host",
            "--local-config=etc",
            "--mds-token=x",
            "--debug=maybe",
            "--mutable=maybe",
            "--ipc=host",
            "--dns-conf-mode=resolv=x",
            "--cgroup-parent=x",
            "--cpu-template=x86-64-v1",
        ] {
            assert!(RunArguments::parse([bad.to_owned(), uuid.clone()]).is_err(), "{bad}");
        }
        assert!(RunArguments::parse(["--net=none".to_owned()]).is_err(), "no UUID");
        assert!(RunArguments::parse([uuid.clone(), uuid]).is_err(), "two UUIDs");
    }

    #[test]
    fn the_default_host_name() {
        let uuid = Uuid::from_u128(7);
        assert_eq!(RunArguments::parse([uuid.to_string()]).unwrap().hostname, format!("rkt-{uuid}"));
    }
}
