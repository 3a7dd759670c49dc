//! The apps' cgroups where the supervisor makes them, and counts what they use: in a VM, whose cgroup v2 hierarchy is the
//! pod's alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use pod::limits::CgroupSetting;
use pod::plan::{AppPlan, Plan};
use pod::statistics::{self, Statistics};

use crate::error::Error;
use crate::sys;

/// The most of a file that is read: they are pages.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The cgroups of an app.
#[derive(Debug, Default)]
pub struct AppCgroups {
    /// The `cgroup.procs` files by which processes enter them.
    pub procs: Vec<OwnedFd>,
    /// Where it is measured; absent where the parent does that.
    directory: Option<OwnedFd>,
}

impl AppCgroups {
    /// Those that the parent has made.
    pub fn made(procs: Vec<OwnedFd>) -> Self {
        Self { procs, directory: None }
    }

    /// How many processes were killed for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let directory = self.directory.as_ref()?;
        statistics::oom_kills(&|file| read(directory, file))
    }

    /// What the app uses.
    pub fn measure(&self) -> Option<Statistics> {
        let directory = self.directory.as_ref()?;
        Some(Statistics::of(&|file| read(directory, file)))
    }
}

/// Makes a cgroup for each app, with its limits and its device policy, in the plan's order.
pub fn make(plan: &Plan) -> Result<Vec<AppCgroups>, Error> {
    if plan.apps.iter().all(|app| app.cgroup.is_none()) {
        return Ok(plan.apps.iter().map(|_| AppCgroups::default()).collect());
    }
    // Nothing else needs the hierarchy, so it is mounted nowhere.
    let root = sys::mount_detached(c"cgroup2").map_err(Error::system("mount cgroup2"))?;
    let settings = || plan.apps.iter().filter_map(|app| app.cgroup.as_ref()).flatten();
    let controllers: BTreeSet<&str> = settings().map(|setting| setting.controller.as_str()).collect();
    for controller in controllers {
        let required = settings().any(|setting| setting.required && setting.controller == controller);
        let enabled = write(&root, "cgroup.subtree_control", &format!("+{controller}"));
        unless_required(enabled, required)
            .map_err(Error::system(format!("enable the cgroup controller {controller}")))?;
    }
    // It limits nothing, and counts.
    let _ = write(&root, "cgroup.subtree_control", "+io");
    plan.apps.iter().map(|app| make_one(&root, app)).collect()
}

fn make_one(root: &OwnedFd, app: &AppPlan) -> Result<AppCgroups, Error> {
    let name = app.name.as_str();
    let made = mkdirat(root, name, Mode::from_bits_truncate(0o755))
        .and_then(|()| openat(root, name, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()));
    let cgroup = made.map_err(Error::system(format!("make cgroup {name}")))?;
    for CgroupSetting { file, value, required, .. } in app.cgroup.iter().flatten() {
        unless_required(write(&cgroup, file, value), *required)
            .map_err(Error::system(format!("write \"{value}\" to {file} of cgroup {name}")))?;
    }
    if let Some(policy) = &app.devices {
        let failed = |source| Error::Devices { cgroup: name.to_owned(), source };
        devices::confine(cgroup.as_fd(), policy).map_err(failed)?;
    }
    let procs = openat(&cgroup, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let procs = vec![procs.map_err(Error::system(format!("open cgroup {name}")))?];
    Ok(AppCgroups { procs, directory: Some(cgroup) })
}

fn read(directory: &OwnedFd, file: &str) -> Option<String> {
    let file = openat(directory, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn write(directory: &impl AsFd, file: &str, value: &str) -> nix::Result<()> {
    let file = openat(directory, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, value.as_bytes()).map(drop)
}

fn unless_required(result: nix::Result<()>, required: bool) -> nix::Result<()> {
    if required { result } else { Ok(()) }
}
