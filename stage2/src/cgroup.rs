//! The apps' cgroups: made here in a VM, whose cgroup v2 hierarchy is the pod's alone, and read for what they use; and in both
//! isolations the way to all that an app has started, wherever it has gone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{Signal, kill as signal};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::uio::pread;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};
use pod::limits::CgroupSetting;
use pod::plan::{AppPlan, Plan};
use pod::statistics::{self, OomKills, Statistics};

use crate::error::Error;
use crate::{AppCgroups, sys};

/// A cgroup's file with its processes.
const PROCS: &str = "cgroup.procs";
/// A cgroup's file with the controllers of those below it.
const SUBTREE: &str = "cgroup.subtree_control";

/// The most of a file that is read: they are pages.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The cgroup around the apps', where the pod has limits as a whole. No app has such a name.
const POD: &str = "_pod";

/// Makes a cgroup for each app, with its limits and its device policy, and one around them if the pod has limits as a whole; the
/// `cgroup.procs` files by which processes enter them, in the plan's order.
pub fn make(plan: &Plan) -> Result<Vec<AppCgroups>, Error> {
    if plan.cgroup.is_empty() && plan.apps.iter().all(|app| app.cgroup.is_none()) {
        return Ok(plan.apps.iter().map(|_| AppCgroups::default()).collect());
    }
    if !plan.cgroup.is_empty() {
        make_pod(&plan.cgroup)?;
    }
    let above = above_apps()?;
    enable(&above, plan.apps.iter().filter_map(|app| app.cgroup.as_ref()).flatten())?;
    plan.apps.iter().map(|app| make_one(&above, app)).collect()
}

fn make_pod(settings: &[CgroupSetting]) -> Result<(), Error> {
    let above = above_apps()?;
    enable(&above, settings.iter())?;
    make_directory(above.last(), POD, settings.iter()).map(drop)
}

/// The cgroups in which those of the apps are: the hierarchy's root and, where there is one, the pod's. Nothing else needs the
/// hierarchy, so it is mounted nowhere.
fn above_apps() -> Result<Above, Error> {
    let root = sys::mount_detached(c"cgroup2").map_err(Error::system("mount cgroup2"))?;
    match openat(&root, POD, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(pod) => Ok(Above { root, pod: Some(pod) }),
        Err(Errno::ENOENT) => Ok(Above { root, pod: None }),
        Err(errno) => Err(Error::system(format!("open cgroup {POD}"))(errno)),
    }
}

/// What [`above_apps`] finds.
struct Above {
    root: OwnedFd,
    pod: Option<OwnedFd>,
}

impl Above {
    /// In which the apps' are.
    fn last(&self) -> &OwnedFd {
        self.pod.as_ref().unwrap_or(&self.root)
    }

    /// From the top down, as controllers have to be enabled.
    fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        std::iter::once(&self.root).chain(&self.pod)
    }
}

/// Enables the controllers that these settings need in what is below.
fn enable<'s>(above: &Above, settings: impl Iterator<Item = &'s CgroupSetting> + Clone) -> Result<(), Error> {
    let controllers: BTreeSet<&str> = settings.clone().map(|setting| setting.controller.as_str()).collect();
    for controller in controllers {
        let required = settings.clone().any(|setting| setting.required && setting.controller == controller);
        let enabled = above.all().try_for_each(|cgroup| write(cgroup, SUBTREE, &format!("+{controller}")));
        unless_required(enabled, required)
            .map_err(Error::system(format!("enable the cgroup controller {controller}")))?;
    }
    // It limits nothing, and counts.
    let _ = above.all().try_for_each(|cgroup| write(cgroup, SUBTREE, "+io"));
    Ok(())
}

/// Makes the cgroup of an app that comes late.
pub fn make_late(app: &AppPlan) -> Result<AppCgroups, Error> {
    let above = above_apps()?;
    enable(&above, app.cgroup.iter().flatten())?;
    make_one(&above, app)
}

/// Removes the cgroup of an app that has left, if it was made here.
pub fn remove(app: &AppPlan) -> Result<(), Error> {
    if app.cgroup.is_none() {
        return Ok(());
    }
    let name = app.name.as_str();
    match unlinkat(above_apps()?.last(), name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::system(format!("remove cgroup {name}"))(errno)),
    }
}

/// Makes a cgroup and writes its settings.
fn make_directory<'s>(
    above: &OwnedFd,
    name: &str,
    settings: impl Iterator<Item = &'s CgroupSetting>,
) -> Result<OwnedFd, Error> {
    let made = mkdirat(above, name, Mode::from_bits_truncate(0o755))
        .and_then(|()| openat(above, name, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()));
    let cgroup = made.map_err(Error::system(format!("make cgroup {name}")))?;
    for CgroupSetting { file, value, required, .. } in settings {
        unless_required(write(&cgroup, file, value), *required)
            .map_err(Error::system(format!("write \"{value}\" to {file} of cgroup {name}")))?;
    }
    Ok(cgroup)
}

fn make_one(above: &Above, app: &AppPlan) -> Result<AppCgroups, Error> {
    let name = app.name.as_str();
    let cgroup = make_directory(above.last(), name, app.cgroup.iter().flatten())?;
    if let Some(policy) = &app.devices {
        let failed = |source| Error::Devices { cgroup: name.to_owned(), source };
        devices::confine(cgroup.as_fd(), policy).map_err(failed)?;
    }
    let procs = openat(&cgroup, PROCS, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let procs = procs.map_err(Error::system(format!("open cgroup {name}")))?;
    Ok(AppCgroups { procs: vec![procs], directory: Some(cgroup), counts_here: true })
}

/// What of an app was killed for want of memory, where that is counted here.
pub fn oom_kills(cgroups: &AppCgroups) -> Option<OomKills> {
    let directory = counted(cgroups)?;
    statistics::oom_kills(&|file| read(directory, file))
}

/// What an app uses, where that is counted here.
pub fn measure(cgroups: &AppCgroups) -> Option<Statistics> {
    let directory = counted(cgroups)?;
    Some(Statistics::of(&|file| read(directory, file)))
}

fn counted(cgroups: &AppCgroups) -> Option<&OwnedFd> {
    cgroups.directory.as_ref().filter(|_| cgroups.counts_here)
}

fn read(directory: &OwnedFd, file: &str) -> Option<String> {
    let file = openat(directory, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Kills every process of an app, and tells whether there is none any more: what is forked meanwhile is killed by the next
/// call. Without cgroups, what the app leaves behind lives on until the pod ends.
pub fn kill(cgroups: &AppCgroups) -> bool {
    let Some(directory) = &cgroups.directory else { return true };
    // All at once (Linux 5.14, cgroup v2), so that nothing can fork faster; not for the root of a user namespace.
    let _ = write(directory, "cgroup.kill", "1");
    // Opened each time: cgroup v1 shows the same open file the same processes for as long as it is read.
    let Ok(procs) = openat(directory, PROCS, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else {
        return true;
    };
    let (mut bytes, mut offset, mut left) = ([0; 4096], 0, false);
    while let Ok(count @ 1..) = pread(&procs, &mut bytes, offset) {
        let whole = whole_lines(bytes.get(..count).unwrap_or_default());
        if whole.is_empty() {
            break;
        }
        for process in processes(whole) {
            left = true;
            let _ = signal(process, Signal::SIGKILL);
        }
        offset += i64::try_from(whole.len()).unwrap_or(i64::MAX);
    }
    !left
}

/// A number that is cut is another process's.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Processes of other PID namespaces are called 0, which as an argument of kill means something else, as do negative ones.
fn processes(lines: &[u8]) -> impl Iterator<Item = Pid> {
    let numbers =
        lines.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok()?.parse().ok());
    numbers.filter(|number| *number > 1).map(Pid::from_raw)
}

fn write(directory: &impl AsFd, file: &str, value: &str) -> nix::Result<()> {
    let file = openat(directory, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, value.as_bytes()).map(drop)
}

fn unless_required(result: nix::Result<()>, required: bool) -> nix::Result<()> {
    if required { result } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_of_processes_are_taken() {
        let taken = |text: &str| processes(whole_lines(text.as_bytes())).map(Pid::as_raw).collect::<Vec<_>>();
        assert_eq!(taken("7\n0\n1\n-1\n23\n456"), [7, 23]);
        assert_eq!(taken("45"), [] as [i32; 0]);
    }

    #[test]
    fn all_are_killed() {
        let cgroup = tempfile::tempdir().unwrap();
        let write = |text: String| std::fs::write(cgroup.path().join(PROCS), text).unwrap();
        let directory = std::fs::File::open(cgroup.path()).unwrap();
        let cgroups = AppCgroups { procs: Vec::new(), directory: Some(directory.into()), counts_here: false };
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        write(format!("{}\n", child.id()));
        assert!(!kill(&cgroups));
        assert!(!child.wait().unwrap().success());
        write(String::new());
        assert!(kill(&cgroups) && kill(&AppCgroups::default()));
    }
}
