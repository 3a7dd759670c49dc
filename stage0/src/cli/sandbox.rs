//! The arguments of `rkt app sandbox` and `rkt app add`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use pod::abi::{CgroupPath, CpuTemplate};
use pod::image_manifest::NameValue;
use pod::isolator::RawIsolator;
use pod::net::Net;
use pod::ports::ExposedPort;
use pod::quantity::Quantity;
use pod::volumes::Volume;

use super::apps::{self, FlagKind};
use super::flags::{AppCommand, AppFlags};
use super::names::NameFlags;
use super::notes::NoteFlags;
use super::stage1::Stage1Flags;
use super::upstream::NotHere;
use super::{AppArguments, PodFlags, PodLine, RunFlags, Stop, isolators, values};

/// The command that messages begin with.
const COMMAND: &str = "app";

// The flags of a pod whose apps come and go: those of [`RunFlags`] and [`PodFlags`] that are not about its apps.
#[derive(Debug, Args)]
pub struct SandboxFlags {
    #[command(flatten)]
    stage1: Stage1Flags,
    /// The pod's network: none (loopback only), host, all, or networks of net.d: default, a,b:IP=192.0.2.7;NAME=VALUE
    #[arg(long, value_parser = values::net, num_args = 0..=1, require_equals = true, value_name = "NET")]
    #[arg(default_missing_value = "default")]
    net: Option<Net>,
    /// A port of the host that leads to a port of the pod
    #[arg(long, value_name = "NAME:PROTO:PODPORT:[HOSTIP:]PORT", value_parser = values::direct_port)]
    port: Vec<ExposedPort>,
    /// The pod's host name; rkt-UUID by default
    #[arg(long, value_parser = values::hostname)]
    hostname: Option<String>,
    #[command(flatten)]
    names: NameFlags,
    /// Run the pod in a user namespace, with 65536 users that no other pod has
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    private_users: bool,
    /// Write the pod's UUID to a file, before anything else
    #[arg(long, value_name = "FILE")]
    uuid_file_save: Option<PathBuf>,
    /// A volume for apps to come: NAME,kind=host,source=PATH or NAME,kind=empty; and readOnly=, recursive=, idmap=, or mode=, uid=, gid=
    #[arg(long, value_name = "VOLUME", value_parser = values::parsed::<Volume>)]
    volume: Vec<Volume>,
    /// An annotation of the pod
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::annotation)]
    annotation: Vec<NameValue>,
    #[command(flatten)]
    notes: NoteFlags,
    /// CPU time of all its apps together, in cores: 500m, 2
    #[arg(long, value_parser = values::cpu, value_name = "QUANTITY")]
    cpu: Option<Quantity>,
    /// Memory of all its apps together: 64M, 1Gi; by default that of a micro-VM is 512Mi
    #[arg(long, value_parser = values::memory, value_name = "QUANTITY")]
    memory: Option<Quantity>,
    /// How many processes and threads all its apps may have together
    #[arg(long, value_parser = isolators::pids, value_name = "NUMBER")]
    pids: Option<RawIsolator>,
    /// How much the apps may write into their roots, of a micro-VM: 64Mi to 1Ti; by default 8Gi, or what there is
    #[arg(long, value_parser = isolators::disk_space, value_name = "QUANTITY")]
    disk_space: Option<RawIsolator>,
    /// The cgroup that the pod's is to be below, instead of the caller's own: /machine.slice
    #[arg(long, value_name = "PATH", value_parser = values::parsed::<CgroupPath>)]
    cgroup_parent: Option<CgroupPath>,
    #[command(flatten)]
    not_here: NotHere,
    /// The processor that a micro-VM sees: host, x86-64-v2, x86-64-v3 or x86-64-v4; what is configured by default, or host
    #[arg(long, value_name = "NAME", value_parser = values::parsed::<CpuTemplate>)]
    cpu_template: Option<CpuTemplate>,
}

impl SandboxFlags {
    /// How the pod is run, and what it is made of.
    pub fn split(self) -> (RunFlags, PodLine) {
        let run = RunFlags {
            net: self.net,
            hostname: self.hostname,
            names: self.names,
            cgroup_parent: self.cgroup_parent,
            cpu_template: self.cpu_template,
            ..RunFlags::default()
        };
        let limits = [("resource/cpu", self.cpu), ("resource/memory", self.memory)];
        let limits = limits.into_iter().filter_map(|(name, limit)| Some(RawIsolator::of_limit(name, limit?)));
        let flags = PodFlags {
            stage1: self.stage1,
            port: self.port,
            private_users: self.private_users,
            uuid_file_save: self.uuid_file_save,
            volume: self.volume,
            disk_space: self.disk_space,
            mutable: true,
            annotation: self.annotation,
            notes: self.notes,
            not_here: self.not_here,
            isolators: limits.chain(self.pids).collect(),
            ..PodFlags::default()
        };
        (run, PodLine { flags, mounts: Vec::new(), apps: Vec::new() })
    }
}

// The words of `rkt app add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    #[command(flatten, next_help_heading = "App flags (after the image)")]
    app: AppFlags,
    // The pod's UUID first: so clap leaves what follows as it is.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

impl AddArgs {
    /// Which app is to come into which pod.
    pub fn parse(self) -> Result<(String, AppArguments), Stop> {
        let nothing = AppFlags::default();
        if self.app != nothing {
            return Err(Stop::usage(COMMAND, "flags of the app must follow its image"));
        }
        let Some((pod, words)) = self.rest.split_first() else {
            return Err(Stop::usage(COMMAND, "rkt app add takes the UUID of a pod, and an image"));
        };
        let flags = AppCommand::command();
        let kind_of = |name: &str| {
            let flag = flags.get_arguments().find(|flag| apps::is_called(flag, name))?;
            Some(FlagKind::of(flag, true))
        };
        let usage = |error: apps::Error| Stop::usage(COMMAND, &error.to_string());
        let mut found = apps::split(words, &kind_of).map_err(usage)?.apps;
        let (Some(app), true) = (found.pop(), found.is_empty()) else {
            return Err(Stop::usage(COMMAND, "rkt app add takes one image"));
        };
        let app = AppArguments::parse(app).map_err(|error| Stop::of_clap(COMMAND, &error))?;
        Ok((pod.clone(), app))
    }
}
