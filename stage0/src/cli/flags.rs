//! The flags of `run`, `prepare` and `run-prepared`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use pod::abi::{CgroupPath, CpuTemplate, Ipc};
use pod::image_manifest::{EnvironmentVariable, NameValue};
use pod::isolator::RawIsolator;
use pod::life::{ExitPolicy, KillSignal, Restart};
use pod::net::Net;
use pod::ports::{ExposedPort, Protocol};
use pod::quantity::Quantity;
use pod::rlimit::Rlimit;
use pod::streams::{InputMode, OutputMode};
use pod::types::AcName;
use pod::volumes::{Mount, Volume};

use super::names::NameFlags;
use super::notes::NoteFlags;
use super::stage1::{Stage1, Stage1Flags};
use super::trust::PullFlags;
use super::upstream::NotHere;
use super::{isolators, values};
use crate::timeline::Wanted;

/// What a pod manifest says, so that no flag can.
const SAID_BY_MANIFEST: [&str; 11] = [
    "port",
    "volume",
    "mount",
    "set_env",
    "set_env_file",
    "inherit_env",
    "exit_policy",
    "disk_space",
    "pull_policy",
    "store_only",
    "no_store",
];

// What a pod is made of: what `run` and `prepare` have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct PodFlags {
    #[command(flatten)]
    pub stage1: Stage1Flags,
    #[command(flatten)]
    pub pull: PullFlags,
    /// A port of the host that leads to an app's port, by its name in the app's image
    #[arg(long, value_name = "NAME:[HOSTIP:]PORT", value_parser = values::port)]
    pub port: Vec<ExposedPort>,
    /// Run the pod in a user namespace, with 65536 users that no other pod has
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub private_users: bool,
    /// Write the pod's UUID to a file, before anything else
    #[arg(long, value_name = "FILE")]
    pub uuid_file_save: Option<PathBuf>,
    /// A volume for the apps: NAME,kind=host,source=PATH or NAME,kind=empty; and readOnly=, recursive=, idmap=, or mode=, uid=, gid=
    #[arg(long, value_name = "VOLUME", value_parser = values::parsed::<Volume>)]
    pub volume: Vec<Volume>,
    /// An environment variable for all apps
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::variable)]
    pub set_env: Vec<EnvironmentVariable>,
    /// Which app's end ends the pod: until-all, on-any or on-any-failure
    #[arg(long, value_parser = values::parsed::<ExitPolicy>, value_name = "POLICY")]
    #[arg(default_value = "on-any-failure")]
    pub exit_policy: ExitPolicy,
    /// A file with NAME=VALUE lines for all apps; --set-env wins over it
    #[arg(long, value_name = "FILE")]
    pub set_env_file: Option<PathBuf>,
    /// The pod's manifest, instead of images and what flags say of the pod; its images are in the store already
    #[arg(long, value_name = "FILE", conflicts_with_all = SAID_BY_MANIFEST)]
    pub pod_manifest: Option<PathBuf>,
    /// Give all apps the caller's environment, where the image does not say otherwise
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub inherit_env: bool,
    /// How much the apps may write into their roots, of a micro-VM: 64Mi to 1Ti; by default 8Gi, or what there is
    #[arg(long, value_parser = isolators::disk_space, value_name = "QUANTITY")]
    pub disk_space: Option<RawIsolator>,
    #[command(flatten)]
    pub not_here: NotHere,
    /// Apps come into the pod and leave it while it runs (`rkt app sandbox`).
    #[arg(skip)]
    pub mutable: bool,
    /// Annotations of the pod, and what its user notes about it.
    #[arg(skip)]
    pub annotation: Vec<NameValue>,
    #[arg(skip)]
    pub notes: NoteFlags,
    /// What such a pod as a whole may use.
    #[arg(skip)]
    pub isolators: Vec<RawIsolator>,
}

// How a pod is run: what `run` and `run-prepared` have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RunFlags {
    /// The pod's network: none (loopback only, the default but for --stage1=fly), host, all, or networks of net.d: default,
    /// a,b:IP=192.0.2.7;NAME=VALUE
    #[arg(long, value_parser = values::net, num_args = 0..=1, require_equals = true, value_name = "NET")]
    #[arg(default_missing_value = "default")]
    pub net: Option<Net>,
    /// The pod's host name; rkt-UUID by default
    #[arg(long, value_parser = values::hostname)]
    pub hostname: Option<String>,
    #[command(flatten)]
    pub names: NameFlags,
    /// Give the pod's only app the caller's terminal
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub interactive: bool,
    /// Register the pod with the metadata service, which its apps find by AC_METADATA_URL
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub mds_register: bool,
    /// Print when what happened; with a file's name, draw the phases of the start into it as well
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL|FILE.svg")]
    #[arg(value_parser = values::timeline, default_value = "false", default_missing_value = "true")]
    pub timeline: Wanted,
    /// Whose System V objects, message queues and /dev/shm the apps have: private (the pod's own), parent (the host's), or auto
    #[arg(long, value_parser = values::parsed::<Ipc>, value_name = "MODE", default_value = "auto")]
    pub ipc: Ipc,
    /// The cgroup that the pod's is to be below, instead of the caller's own: /machine.slice
    #[arg(long, value_name = "PATH", value_parser = values::parsed::<CgroupPath>)]
    pub cgroup_parent: Option<CgroupPath>,
    /// The processor that a micro-VM sees: host, x86-64-v2, x86-64-v3 or x86-64-v4; what is configured by default, or host
    #[arg(long, value_name = "NAME", value_parser = values::parsed::<CpuTemplate>)]
    pub cpu_template: Option<CpuTemplate>,
}

impl RunFlags {
    /// The pod's network; a pod without isolation is in the host's.
    pub fn net(&self, stage1: Stage1) -> Net {
        let default = if stage1 == Stage1::Fly { Net::Host } else { Net::None };
        self.net.clone().unwrap_or(default)
    }
}

/// A command line of nothing but one app's flags.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
#[command(override_usage = "IMAGE [APP FLAGS] [-- ARGS...]")]
pub struct AppCommand {
    /// The flags.
    #[command(flatten)]
    pub flags: AppFlags,
}

// Flags of one app, which follow its image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct AppFlags {
    /// The file with the image's signature, instead of IMAGE.asc
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// The program, instead of the image's command
    #[arg(long, value_name = "PROGRAM")]
    pub exec: Option<String>,
    /// The app's name in the pod; by default the last part of the image's
    #[arg(long, value_parser = values::name)]
    pub name: Option<AcName>,
    /// A port whose listening socket rkt is passed (LISTEN_FDS, as by a systemd socket unit), for the app: 80, 53/udp
    #[arg(long, value_parser = values::socket_port, value_name = "PORT[/PROTOCOL]")]
    pub socket_activated: Vec<(Protocol, u16)>,
    /// Where a volume belongs: volume=NAME,target=PATH; before the first image, in all apps
    #[arg(long, value_parser = values::mount, value_name = "MOUNT")]
    pub mount: Vec<Mount>,
    /// A volume of the app's own, and its place: name=NAME,target=PATH, and what --volume says of one
    #[arg(long, value_parser = values::own_volume, value_name = "VOLUME")]
    pub mnt_volume: Vec<Mount>,
    /// CPU time in cores: 500m, 2
    #[arg(long, value_parser = values::cpu, value_name = "QUANTITY")]
    pub cpu: Option<Quantity>,
    /// Its part of the CPU time where the pod's apps contend: 2 to 262144, by default 1024
    #[arg(long, value_parser = isolators::cpu_shares, value_name = "NUMBER")]
    pub cpu_shares: Option<RawIsolator>,
    /// Memory: 64M, 1Gi
    #[arg(long, value_parser = values::memory, value_name = "QUANTITY")]
    pub memory: Option<Quantity>,
    /// How many processes and threads it may have
    #[arg(long, value_parser = isolators::pids, value_name = "NUMBER")]
    pub pids: Option<RawIsolator>,
    /// The AppArmor profile that confines it, which has to be loaded
    #[arg(long, value_parser = isolators::apparmor_profile, value_name = "NAME")]
    pub apparmor_profile: Option<RawIsolator>,
    /// The SELinux context that confines it: USER:ROLE:TYPE:LEVEL
    #[arg(long, value_parser = isolators::selinux_context, value_name = "CONTEXT")]
    pub selinux_context: Option<RawIsolator>,
    /// What it may use at all, by Landlock: read=, write=, execute=PATH, bind=, connect=PORT|none, scope=signal|abstract-unix-socket,...
    #[arg(long, value_parser = isolators::landlock, value_name = "RULES")]
    pub landlock: Option<RawIsolator>,
    /// How willingly the kernel kills it when memory is short: -1000 (never) to 1000
    #[arg(long, value_parser = isolators::oom_score_adj, value_name = "NUMBER", allow_negative_numbers = true)]
    pub oom_score_adj: Option<RawIsolator>,
    /// User: a name, a number, or the path of a file of his
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Group: a name, a number, or the path of a file of its
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Further groups, by their numbers, instead of the image's
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub supplementary_gids: Vec<u32>,
    /// Working directory
    #[arg(long, value_parser = values::absolute, value_name = "DIR")]
    pub working_dir: Option<String>,
    /// An environment variable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::variable)]
    pub environment: Vec<EnvironmentVariable>,
    /// An annotation of the app in the pod; it wins over the image's
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::annotation)]
    pub annotation: Vec<NameValue>,
    #[command(flatten)]
    pub notes: NoteFlags,
    /// Whether the app's root is read-only
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub readonly_rootfs: bool,
    /// Capabilities to keep, instead of the image's or the default ones
    #[arg(long, alias = "cap-retain", value_parser = isolators::caps_retain, value_name = "LIST")]
    #[arg(conflicts_with = "caps_remove")]
    pub caps_retain: Option<RawIsolator>,
    /// Capabilities to take from the default ones, instead of what the image says
    #[arg(long, alias = "cap-remove", value_parser = isolators::caps_remove, value_name = "LIST")]
    pub caps_remove: Option<RawIsolator>,
    /// The filter of system calls, instead of the image's: mode=retain|remove,errno=NAME,CALL,...
    #[arg(long, value_parser = isolators::seccomp, value_name = "FILTER")]
    pub seccomp: Option<RawIsolator>,
    /// A limit of each process, as setrlimit(2) names it: NOFILE=1024:4096, CORE=0, MEMLOCK=unlimited
    #[arg(long, value_parser = isolators::rlimit, value_name = "NAME=SOFT[:HARD]")]
    pub rlimit: Vec<Rlimit>,
    /// Whether it is started again when it has ended: no, on-failure or always
    #[arg(long, value_parser = values::parsed::<Restart>, value_name = "POLICY", default_value = "no")]
    pub restart: Restart,
    /// The signal that asks it to end, by name or number; SIGTERM unless its image says otherwise
    #[arg(long, value_parser = values::parsed::<KillSignal>, value_name = "SIGNAL")]
    pub kill_signal: Option<KillSignal>,
    /// How long it then has until it is killed: 90s, 500ms; by default 10s
    #[arg(long, value_parser = values::kill_timeout, value_name = "DURATION")]
    pub kill_timeout: Option<Duration>,
    /// Where standard input comes from: null, inherit (from rkt's), stream or tty (from whoever attaches)
    #[arg(long, value_parser = values::input_mode, value_name = "MODE")]
    pub stdin: Option<InputMode>,
    /// Where standard output goes: null, or one or several of inherit (to rkt's), log, stream (to whoever attaches), or tty
    #[arg(long, value_parser = values::output_mode, value_name = "MODE,...")]
    pub stdout: Option<OutputMode>,
    /// Where standard error goes, likewise
    #[arg(long, value_parser = values::output_mode, value_name = "MODE,...")]
    pub stderr: Option<OutputMode>,
    /// The size of a file of the app's log; 10Mi by default
    #[arg(long, value_parser = values::log_size, value_name = "QUANTITY")]
    pub log_max_size: Option<u64>,
    /// How many files of the app's log are kept; 5 by default
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub log_max_files: Option<u64>,
}
