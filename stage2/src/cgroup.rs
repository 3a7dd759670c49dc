//! The apps' cgroups where the supervisor makes them: in a VM, whose cgroup v2 hierarchy is the pod's alone.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use pod::limits::CgroupSetting;
use pod::plan::{AppPlan, Plan};

use crate::error::Error;
use crate::sys;

/// Makes a cgroup for each app, with its limits and its device policy; the `cgroup.procs` files by which processes enter them, in the plan's
/// order.
pub fn make(plan: &Plan) -> Result<Vec<Vec<OwnedFd>>, Error> {
    if plan.apps.iter().all(|app| app.cgroup.is_none()) {
        return Ok(plan.apps.iter().map(|_| Vec::new()).collect());
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
    plan.apps.iter().map(|app| make_one(&root, app)).collect()
}

fn make_one(root: &OwnedFd, app: &AppPlan) -> Result<Vec<OwnedFd>, Error> {
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
    Ok(vec![procs.map_err(Error::system(format!("open cgroup {name}")))?])
}

fn write(directory: &impl AsFd, file: &str, value: &str) -> nix::Result<()> {
    let file = openat(directory, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, value.as_bytes()).map(drop)
}

fn unless_required(result: nix::Result<()>, required: bool) -> nix::Result<()> {
    if required { result } else { Ok(()) }
}
