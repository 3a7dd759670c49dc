//! The plan of a pod: ordered lists of operations that the supervisor carries out one by one, and what each app's process
//! is to be. It is computed here from the manifests ([`compute`]), printed by `--debug`, compared in tests without root,
//! and sent to the guest as it is.

mod addition;
mod export;
mod fly;
mod labels;
mod operation;
mod process;
mod users;
mod volumes;
mod world;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::abi::Ipc;
use crate::control::Stream;
use crate::devices::{DevicePolicy, NODES};
use crate::guest_network::GuestNetwork;
use crate::image_manifest::Event;
use crate::life::{ExitPolicy, Life, Restart};
use crate::limits::{AppLimits, CgroupSetting, CgroupVersion, PodLimits};
use crate::pod_manifest::{PodManifest, RuntimeApp};
use crate::streams::{InputMode, StreamModes};
use crate::types::AcName;

pub use addition::{Addition, NewApp, VM_LATE_IMAGES_TAG, addition, new_volumes, teardown, vm_late_image};
pub use export::{Export, export, export_layers};
pub use operation::{MountFlags, Operation};
pub use process::Process;
pub use users::PrivateUsers;
use volumes::Volumes;
pub use volumes::{OpenedVolume, VM_VOLUME_FILE, volume_tag};
pub use world::{Hosts, ImageSource, Isolation, Layers, World};

/// Everything the supervisor does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Carried out before PID 1 is there, by root of the host in a mount namespace that PID 1 gets a copy of; empty unless the
    /// pod has a user namespace of its own ([`users`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<Operation>,
    /// Carried out by PID 1 before any app starts, in the pod's mount namespace.
    pub setup: Vec<Operation>,
    /// In starting order.
    pub apps: Vec<AppPlan>,
    /// The settings of the cgroup around the apps' where the supervisor makes theirs (VM); none if there is no such cgroup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroup: Vec<CgroupSetting>,
    /// The network that a guest's init sets up; elsewhere the supervisor begins in one that is set up.
    #[serde(default)]
    pub network: GuestNetwork,
    /// How long the app with the most patience has between the signal that asks it to end and SIGKILL.
    pub grace_period_ms: u64,
    /// Which app's end ends the pod.
    #[serde(default)]
    pub exit_policy: ExitPolicy,
    /// Whether apps come into the pod and leave it while it runs: then no app's end ends it.
    #[serde(default)]
    pub mutable: bool,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppPlan {
    /// Its name.
    pub name: AcName,
    /// Carried out in the app's own mount namespace by what becomes the app; the last one makes its root the root.
    pub setup: Vec<Operation>,
    /// Its process.
    pub process: Process,
    /// Runs as root, in the app's root and environment, before the process; must succeed.
    pub pre_start: Option<Vec<String>>,
    /// Likewise, after the process has ended.
    pub post_stop: Option<Vec<String>>,
    /// What its standard streams are.
    pub stdio: Stdio,
    /// Where they lead, which is its parent's business.
    #[serde(default)]
    pub streams: StreamModes,
    /// Its cgroup's settings where the supervisor makes the cgroup (VM); elsewhere its parent has made it.
    pub cgroup: Option<Vec<CgroupSetting>>,
    /// The devices that its cgroup lets it use, whoever makes the cgroup; `None`, if the user wants so, are all.
    pub devices: Option<DevicePolicy>,
    /// How it ends, and begins again.
    #[serde(default)]
    pub life: Life,
    /// Whether it tells when it is ready, on [`NOTIFY_SOCKET`]; else it is once it has started.
    #[serde(default)]
    pub notify: bool,
}

impl AppPlan {
    /// Adds operations to its set-up, after which its root is made read-only if it is to be, and the root.
    fn mount_over_root(&mut self, operations: impl IntoIterator<Item = Operation>) {
        let is_end = |operation: &Operation| match operation {
            Operation::Bind { source, target, .. } => source == target,
            Operation::Root { .. } => true,
            _ => false,
        };
        let end = self.setup.iter().position(is_end).unwrap_or(self.setup.len());
        self.setup.splice(end..end, operations);
    }
}

/// What an app's standard streams are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdio {
    /// These are carried to and from the parent; the others are empty.
    Streams(Vec<Stream>),
    /// A terminal in the pod, carried to the parent.
    Terminal,
}

impl Stdio {
    /// All three.
    pub const THREE: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];
    /// A terminal has one connection for both directions.
    pub const OF_TERMINAL: [Stream; 1] = [Stream::Stdin];

    /// The streams that are carried: in a VM each by a connection of its own.
    pub fn streams(&self) -> &[Stream] {
        match self {
            Self::Streams(streams) => streams,
            Self::Terminal => &Self::OF_TERMINAL,
        }
    }
}

/// Where the root of a pod in a VM, or with a user namespace, is mounted before it becomes the root.
const POD_ROOT: &str = "/pod";
/// Where a VM has its devices, before the pod's root becomes the root.
const VM_DEVICES: &str = "/dev";
/// The device with a VM's root and the images that are mapped: one is `/dev/pmem0p1`, and so on.
pub const VM_IMAGES: &str = "/dev/pmem0";
/// Where a VM pod's writable layers are mounted.
pub const VM_SCRATCH: &str = "/scratch";
/// What the plan of a VM pod mounts on: a guest's root, which is read-only, has to have these directories.
pub const VM_MOUNT_POINTS: [&str; 3] = [VM_DEVICES, VM_SCRATCH, POD_ROOT];

/// Where an app tells that it is ready (sd_notify(3)), if it does.
pub const NOTIFY_SOCKET: &str = "/run/systemd/notify";
/// The image's annotation that says so; the app's own in the pod wins.
pub const NOTIFY_ANNOTATION: &str = "appc.io/executor/supports-systemd-notify";

/// Links that every app has in /dev.
const DEVICE_LINKS: [(&str, &str); 6] = [
    // The app's terminal, if it has one, is its console (appc spec, "OS Specific Execution Environment").
    ("console", "tty"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What of /proc changes or shows the kernel as a whole: apps see it read-only, unless `--insecure-options=paths`. Most of it
/// belongs to root and asks for no capability.
const READ_ONLY_PROC: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// What of them tells of the machine rather than of the pod, or of others' keys and timers, and is hidden likewise.
const HIDDEN: [&str; 12] = [
    "proc/config.gz",
    "proc/kallsyms",
    "proc/kcore",
    "proc/keys",
    "proc/sched_debug",
    "proc/timer_list",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/fs",
    "sys/hypervisor",
    "sys/module",
    "sys/power",
];
/// What is laid over them, in the pod's root.
const EMPTY_FILE: &str = "empty/file";
const EMPTY_DIRECTORY: &str = "empty/directory";

/// The plan that carries out `manifest` in `world`.
pub fn compute(manifest: &PodManifest, world: &World) -> Result<Plan, Error> {
    if world.is_fly() {
        fly::check(manifest)?;
    }
    world.check_rates(manifest)?;
    if world.interactive && manifest.apps.len() != 1 {
        return Err(Error::Invalid(format!(
            "--interactive needs exactly one app, not {}",
            manifest.apps.len()
        )));
    }
    if world.layers.len() != manifest.apps.len() {
        return Err(Error::Invalid(format!(
            "{} apps, but {} images",
            manifest.apps.len(),
            world.layers.len()
        )));
    }
    let limits = PodLimits::of(manifest)?;
    let volumes = Volumes::of(manifest, world)?;
    let apps = manifest.apps.iter().zip(&limits.apps).enumerate();
    let apps: Vec<AppPlan> = apps
        .map(|(index, (app, limits))| {
            let alone = manifest.apps.len() == 1 && !manifest.is_mutable();
            whole_app_plan(index, app, limits, world, &volumes, alone)
        })
        .collect::<Result<_, Error>>()?;
    if apps.iter().filter(|app| app.streams.stdin == InputMode::Inherit).count() > 1 {
        return Err(Error::Invalid("only one app can have the caller's input (--stdin=inherit)".into()));
    }
    Ok(Plan {
        outside: world.private_users().map_or(Vec::new(), |users| users.outside(manifest, world)),
        setup: pod_setup(manifest, world, &volumes),
        grace_period_ms: apps.iter().map(|app| app.life.kill_timeout_ms).max().unwrap_or(0),
        exit_policy: ExitPolicy::of(manifest)?,
        mutable: manifest.is_mutable(),
        cgroup: if world.is_vm() { limits.guest_settings() } else { Vec::new() },
        apps,
        network: match &world.isolation {
            Isolation::Namespaces { .. } | Isolation::Fly { .. } => GuestNetwork::default(),
            Isolation::Vm { network, .. } => network.clone(),
        },
    })
}

fn pod_setup(manifest: &PodManifest, world: &World, volumes: &Volumes) -> Vec<Operation> {
    let (mut operations, pod_root) = match &world.isolation {
        Isolation::Namespaces { users: Some(_), .. } => (Vec::new(), PathBuf::from(POD_ROOT)),
        Isolation::Namespaces { pod_root, .. } | Isolation::Fly { pod_root, .. } => {
            (vec![Operation::SlaveRoot], pod_root.clone())
        }
        Isolation::Vm { scratch, .. } => (vm_file_systems(scratch), PathBuf::from(POD_ROOT)),
    };
    let quiet = MountFlags { no_exec: false, ..MountFlags::INERT };
    operations.push(mount("tmpfs", &pod_root, quiet, "mode=0755"));
    if manifest.is_mutable() && world.is_vm() {
        operations.extend(addition::vm_supplies(&pod_root));
    }
    match world.private_users() {
        Some(users) => operations.extend(users.pod_setup(&pod_root, manifest)),
        None => {
            let apps = manifest.apps.iter().zip(&world.layers);
            operations.extend(apps.flat_map(|(app, layers)| app_root(&pod_root, app, layers)));
        }
    }
    operations.extend(if world.is_fly() { fly::pod_setup(&pod_root) } else { shared(&pod_root, world.ipc) });
    operations.extend(volumes.pod_setup(&pod_root));
    operations.push(Operation::Root { path: pod_root });
    if !world.is_fly() {
        operations.push(Operation::Hostname(world.hostname.clone()));
    }
    operations
}

/// Shared by all apps of the pod: they are one IPC world, and the supervisor takes terminals from /pts.
fn shared(pod_root: &Path, ipc: Ipc) -> Vec<Operation> {
    let pts = MountFlags { no_dev: false, ..MountFlags::INERT };
    let shared = [
        ("tmpfs", "shm", MountFlags::INERT, "mode=1777"),
        ("mqueue", "mqueue", MountFlags::INERT, ""),
        ("devpts", "pts", pts, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ];
    let operations = |(file_system, name, flags, options): (&str, _, _, &str)| {
        let place = pod_root.join::<&str>(name);
        let made = match (name, ipc) {
            ("shm", Ipc::Parent) => {
                Operation::Bind { source: Path::new("/dev").join(name), target: place.clone(), flags }
            }
            _ => mount(file_system, &place, flags, options),
        };
        [directory(&place, 0o755), made]
    };
    let empty = [
        directory(&pod_root.join(EMPTY_DIRECTORY), 0o555),
        Operation::EmptyFile { path: pod_root.join(EMPTY_FILE) },
    ];
    shared.into_iter().flat_map(operations).chain(empty).collect()
}

/// What a namespace pod has from its host and a guest has to make itself.
fn vm_file_systems(scratch: &Path) -> Vec<Operation> {
    let scratch_flags = MountFlags { no_suid: false, no_exec: false, ..MountFlags::INERT };
    vec![
        directory(Path::new(VM_DEVICES), 0o755),
        mount("devtmpfs", Path::new(VM_DEVICES), MountFlags::default(), ""),
        Operation::ReadOnlyDisk { path: VM_IMAGES.into() },
        directory(Path::new(VM_SCRATCH), 0o755),
        Operation::Mount {
            file_system: "ext4".into(),
            source: scratch.display().to_string(),
            target: VM_SCRATCH.into(),
            flags: scratch_flags,
            options: "discard".into(),
        },
        directory(Path::new(POD_ROOT), 0o755),
    ]
}

/// Stacks an app's writable layer on its image, at `/apps/<name>` of the pod's root.
fn app_root(pod_root: &Path, app: &RuntimeApp, layers: &Layers) -> Vec<Operation> {
    let target = pod_root.join(app_path(&app.name));
    let (mut operations, lower) = mount_image(pod_root, &app.name, layers);
    operations.push(directory(&target, 0o755));
    operations.push(Operation::Overlay {
        lower,
        upper: layers.writable.join("upper"),
        work: layers.writable.join("work"),
        target,
        label: None,
    });
    operations
}

/// Mounts an app's image, unless it is a tree already: the operations, and where it is then.
fn mount_image(pod_root: &Path, app: &AcName, layers: &Layers) -> (Vec<Operation>, PathBuf) {
    let image = pod_root.join("images").join(app.as_str());
    match &layers.image {
        ImageSource::Tree(tree) => (Vec::new(), tree.clone()),
        ImageSource::File(source) | ImageSource::Pmem(source) | ImageSource::Disk(source) => {
            let dax = matches!(layers.image, ImageSource::Pmem(_));
            let mount = Operation::Image { source: source.clone(), target: image.clone(), dax };
            (vec![directory(&image, 0o755), mount], image)
        }
    }
}

/// An app's root relative to the pod's.
fn app_path(app: &AcName) -> PathBuf {
    Path::new("apps").join(app.as_str())
}

/// An app's plan with everything that does not depend on the app alone.
fn whole_app_plan(
    index: usize,
    app: &RuntimeApp,
    limits: &AppLimits,
    world: &World,
    volumes: &Volumes,
    alone: bool,
) -> Result<AppPlan, Error> {
    let mut plan = app_plan(app, limits, world, alone)?;
    world.private_users().map_or(Ok(()), |users| users.adapt(&mut plan))?;
    volumes.add_to(index, &mut plan);
    add_notify_socket(&mut plan);
    Ok(plan)
}

fn app_plan(app: &RuntimeApp, limits: &AppLimits, world: &World, alone: bool) -> Result<AppPlan, Error> {
    let section =
        app.app.as_ref().ok_or_else(|| Error::Invalid(format!("app \"{}\" has no app section", app.name)))?;
    if section.exec.is_empty() {
        return Err(Error::Invalid(format!("app \"{}\" has an empty exec (try --exec=BINARY)", app.name)));
    }
    let life = Life::of(app)?;
    if world.interactive && life.restart != Restart::No {
        return Err(Error::Invalid(format!(
            "app \"{}\" has the caller's terminal, which ends with it: --interactive goes with --restart=no only",
            app.name
        )));
    }
    let streams = StreamModes::of(app, alone, world.interactive)?;
    let handler = |event| section.event_handlers.iter().find(|h| h.name == event).map(|h| h.exec.clone());
    Ok(AppPlan {
        name: app.name.clone(),
        setup: app_setup(app, world),
        process: process::of(app, section, world)?,
        pre_start: handler(Event::PreStart),
        post_stop: handler(Event::PostStop),
        // Without isolation the caller's terminal is the app's own.
        stdio: streams.stdio(world.interactive && !world.is_fly()),
        streams,
        cgroup: world.is_vm().then(|| limits.cgroup_settings(CgroupVersion::V2)),
        // As upstream's stage1: what is not confined to its paths is not to its devices.
        devices: (!world.insecure.paths && !world.is_fly()).then(DevicePolicy::closed),
        life,
        notify: notifies(app),
    })
}

/// The file systems of an app's world, over its root, which becomes the root.
fn app_setup(app: &RuntimeApp, world: &World) -> Vec<Operation> {
    let root = Path::new("/").join(app_path(&app.name));
    let at = |path: &str| root.join(path);
    let mut operations = if world.is_fly() { fly::file_systems(&root) } else { file_systems(&root, world) };
    operations.push(directory(&at("tmp"), 0o1777));
    operations.push(directory(&at("run"), 0o755));
    operations.extend(etc(&root, world));
    // What is mounted over the root comes in between, so that the directories for it can be made.
    if app.read_only_root_fs {
        operations.push(Operation::Bind {
            source: root.clone(),
            target: root.clone(),
            flags: MountFlags { read_only: true, ..MountFlags::default() },
        });
    }
    operations.push(Operation::Root { path: root });
    operations
}

/// What `/etc/mtab` is a link to.
const MOUNTS: &str = "../proc/self/mounts";

/// What the app finds in `/etc`, of names and of its mounts: under its volumes, which nobody writes to.
fn etc(root: &Path, world: &World) -> Vec<Operation> {
    let etc = root.join("etc");
    let file = |name: &str, content: &str, replace| Operation::File {
        path: etc.join(name),
        content: content.to_owned(),
        replace,
    };
    let mut operations = vec![directory(&etc, 0o755)];
    operations.extend(world.resolv_conf.iter().map(|content| file("resolv.conf", content, true)));
    // Without isolation the pod's name is the host's, which may change.
    let hosts = world.hosts.iter().filter(|hosts| hosts.replace || !world.is_fly());
    operations.extend(hosts.map(|hosts| file("hosts", &hosts.content, hosts.replace)));
    let hostname = (!world.is_fly()).then(|| file("hostname", &format!("{}\n", world.hostname), true));
    operations.extend(hostname);
    // mount(8) and others look there (upstream's `ensureMtabExists`).
    operations.push(Operation::Symlink { target: MOUNTS.into(), path: etc.join("mtab"), keep: true });
    operations
}

/// The kernel's file systems as an app sees them, and its devices.
fn file_systems(root: &Path, world: &World) -> Vec<Operation> {
    let at = |path: &str| root.join(path);
    let bind =
        |source: &str, path: &str, flags| Operation::Bind { source: source.into(), target: at(path), flags };
    let dev = MountFlags { no_suid: true, no_exec: true, ..MountFlags::default() };
    let mut operations = vec![
        directory(&at("proc"), 0o755),
        mount("proc", &at("proc"), MountFlags::INERT, ""),
        directory(&at("sys"), 0o755),
        mount("sysfs", &at("sys"), MountFlags::INERT.read_only(), ""),
        directory(&at("dev"), 0o755),
        mount("tmpfs", &at("dev"), dev, "mode=0755,size=64k"),
        directory(&at("dev/pts"), 0o755),
        bind("/pts", "dev/pts", MountFlags { no_dev: false, ..MountFlags::INERT }),
        directory(&at("dev/shm"), 0o1777),
        bind("/shm", "dev/shm", MountFlags::INERT),
        directory(&at("dev/mqueue"), 0o1777),
        bind("/mqueue", "dev/mqueue", MountFlags::INERT),
    ];
    if !world.insecure.paths {
        operations.extend(READ_ONLY_PROC.iter().map(|path| Operation::Protect { path: at(path) }));
        operations.extend(HIDDEN.iter().map(|path| Operation::Hide {
            path: at(path),
            file: Path::new("/").join(EMPTY_FILE),
            directory: Path::new("/").join(EMPTY_DIRECTORY),
        }));
    }
    operations.extend(NODES.iter().map(|node| Operation::Device {
        path: at("dev").join(node.name),
        major: node.major,
        minor: node.minor,
    }));
    operations.extend(DEVICE_LINKS.iter().map(|(name, target)| Operation::Symlink {
        target: (*target).into(),
        path: at("dev").join(name),
        keep: false,
    }));
    operations
}

/// Makes the place of the socket by which an app tells that it is ready, where no other app sees it: over the app's volumes,
/// of which one may be at `/run`.
fn add_notify_socket(plan: &mut AppPlan) {
    if plan.notify {
        let root = Path::new("/").join(app_path(&plan.name));
        let place = root.join(NOTIFY_SOCKET.trim_start_matches('/').trim_end_matches("/notify"));
        let tmpfs = mount("tmpfs", &place, MountFlags::INERT, "mode=0755,size=16k");
        plan.mount_over_root([directory(&place, 0o755), tmpfs]);
    }
}

/// Whether an app tells when it is ready.
fn notifies(app: &RuntimeApp) -> bool {
    app.annotations.iter().any(|found| found.name.as_str() == NOTIFY_ANNOTATION && found.value == "true")
}

fn directory(path: &Path, mode: u32) -> Operation {
    Operation::Directory { path: path.into(), mode }
}

fn mount(file_system: &str, target: &Path, flags: MountFlags, options: &str) -> Operation {
    Operation::Mount {
        file_system: file_system.into(),
        source: file_system.into(),
        target: target.into(),
        flags,
        options: options.into(),
    }
}

#[cfg(test)]
mod tests;
