//! What an app's main process is to be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{NOTIFY_SOCKET, World, fly, notifies};
use crate::Error;
use crate::apparmor::Profile;
use crate::capability::CapabilitySet;
use crate::image_manifest::{App, EnvironmentVariable};
use crate::isolator::Isolator;
use crate::landlock::Landlock;
use crate::metadata;
use crate::pod_manifest::RuntimeApp;
use crate::rlimit::Rlimit;
use crate::seccomp::{self, Filter};
use crate::selinux::Context;

/// Environment that an app has unless its manifest says otherwise (appc spec, "Execution Environment").
const DEFAULT_ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("SHELL", "/bin/sh"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("HOME", "/root"),
];

/// An app's main process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The command and its arguments; looked up in PATH inside the app's root.
    pub exec: Vec<String>,
    /// A name, a number, or `/path`, resolved inside the app's root.
    pub user: String,
    /// Likewise.
    pub group: String,
    /// Further groups.
    pub supplementary_gids: Vec<u32>,
    /// Must exist.
    pub working_directory: PathBuf,
    /// Complete.
    pub environment: Vec<EnvironmentVariable>,
    /// The bounding set, and what a root process has.
    pub capabilities: CapabilitySet,
    /// Whether exec gains no privileges.
    pub no_new_privileges: bool,
    /// Which system calls it may make; all, if there is none.
    pub filter: Option<Filter>,
    /// Limits of each of its processes.
    pub rlimits: Vec<Rlimit>,
    /// The AppArmor profile that its program is executed under.
    pub apparmor: Option<Profile>,
    /// The SELinux context likewise.
    pub selinux: Option<Context>,
    /// What it takes from itself by Landlock, before its program is executed.
    pub landlock: Option<Landlock>,
    /// Whether the kernel is told to kill it sooner or later than others.
    pub oom_score_adj: Option<i32>,
}

impl Process {
    /// The same as root, without what confines it.
    pub fn privileged(&self) -> Self {
        Self {
            exec: self.exec.clone(),
            user: "0".into(),
            group: "0".into(),
            supplementary_gids: Vec::new(),
            working_directory: self.working_directory.clone(),
            environment: self.environment.clone(),
            capabilities: CapabilitySet::ALL,
            no_new_privileges: false,
            filter: None,
            rlimits: Vec::new(),
            apparmor: None,
            selinux: None,
            landlock: None,
            oom_score_adj: self.oom_score_adj,
        }
    }
}

/// The main process of an app.
pub(super) fn of(app: &RuntimeApp, section: &App, world: &World) -> Result<Process, Error> {
    let isolators = Isolator::parse_all(&section.isolators)?;
    let capabilities = match world.insecure.capabilities {
        true => CapabilitySet::ALL,
        false if world.is_fly() => fly::capabilities(&isolators)?,
        false => CapabilitySet::of_isolators(&isolators)?,
    };
    let last = |pick: fn(&Isolator) -> Option<i32>| isolators.iter().filter_map(pick).next_back();
    let working_directory =
        section.working_directory.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    Ok(Process {
        exec: section.exec.clone(),
        user: section.user.clone(),
        group: section.group.clone(),
        supplementary_gids: section.supplementary_gids.clone(),
        working_directory: working_directory.into(),
        environment: environment(app, section, world),
        capabilities,
        no_new_privileges: isolators.contains(&Isolator::NoNewPrivileges(true)),
        filter: match world.insecure.seccomp {
            true => None,
            false if world.is_fly() => fly::filter(&isolators, capabilities)?,
            false => seccomp::of_isolators(&isolators, capabilities)?,
        },
        rlimits: Rlimit::of_isolators(&isolators),
        apparmor: isolators.iter().rev().find_map(|isolator| match isolator {
            Isolator::AppArmor(profile) => Some(profile.clone()),
            _ => None,
        }),
        selinux: isolators.iter().rev().find_map(|isolator| match isolator {
            Isolator::Selinux(context) => Some(context.clone()),
            _ => None,
        }),
        landlock: isolators.iter().rev().find_map(|isolator| match isolator {
            Isolator::Landlock(rules) => Some(rules.clone()),
            _ => None,
        }),
        oom_score_adj: last(|isolator| match isolator {
            Isolator::OomScoreAdj(score) => Some(*score),
            _ => None,
        }),
    })
}

/// The defaults, then what the manifest says, then what the specification reserves.
fn environment(app: &RuntimeApp, section: &App, world: &World) -> Vec<EnvironmentVariable> {
    let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
    let mut reserved = vec![variable("AC_APP_NAME", app.name.as_str()), variable("container", "rkt")];
    reserved.extend(world.metadata_url.iter().map(|url| variable(metadata::ENVIRONMENT_VARIABLE, url)));
    reserved.extend(notifies(app).then(|| variable("NOTIFY_SOCKET", NOTIFY_SOCKET)));
    let defaults = DEFAULT_ENVIRONMENT.iter().map(|(name, value)| variable(name, value));
    let mut environment: Vec<EnvironmentVariable> = Vec::new();
    for new in defaults.chain(section.environment.iter().cloned()).chain(reserved) {
        match environment.iter_mut().find(|old| old.name == new.name) {
            Some(old) => *old = new,
            None => environment.push(new),
        }
    }
    environment
}
