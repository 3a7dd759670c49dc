//! The pod's cgroups: `<own cgroup>/rkt-<uuid>/<app>` in every hierarchy with a controller that a limit or the device
//! policy needs, so that whatever limits the caller limits the pod as well. In a VM the one `app` is the whole machine.

mod devices;
mod layout;
mod place;

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::pod::abi::{CgroupPath, PodDirectory};
use ::pod::devices::{self as policy, DevicePolicy};
use ::pod::limits::{AppLimits, CgroupSetting, CgroupVersion, Limit};
use ::pod::statistics::{self, OomKills};
use ::pod::types::AcName;
use uuid::Uuid;

pub(crate) use self::layout::{Hierarchy, Layout};
use self::place::{Evacuation, Place};
use crate::Error;

/// The controllers that limits need.
pub const CONTROLLERS: &[&str] = &["cpu", "memory", "pids"];
/// What counts CPU time, and what goes from and to disks, in v1; in v2 every cgroup does the one, and "io" the other.
const COUNTERS: [&str; 2] = ["cpuacct", "blkio"];
/// How a process writes its own number into `cgroup.procs`.
const THIS_PROCESS: &[u8] = b"0";
/// The file in the pod's directory that says where its cgroups are, a directory a line.
const RECORD: &str = "subcgroup";
const NEW_RECORD: &str = "subcgroup.new";
/// How often the kernel is given time to let go of a cgroup whose processes have just died, and how much.
const REMOVAL_ATTEMPTS: usize = 1000;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// What an app's cgroups are for.
#[derive(Clone, Copy, Debug)]
pub struct AppCgroup<'a> {
    /// Its limits, and its name.
    pub limits: &'a AppLimits,
    /// The devices that it may use; `None` are all.
    pub devices: Option<&'a DevicePolicy>,
}

/// A pod's cgroups; removed with this value.
#[derive(Debug)]
pub struct Cgroups {
    /// Every app's `cgroup.procs` files, open for its process.
    pub procs: Vec<Vec<OwnedFd>>,
    /// One directory of each app's, to find its processes by.
    pub directories_of_apps: Vec<Option<OwnedFd>>,
    /// The name of the pod's in each place.
    name: String,
    places: Vec<Place>,
    /// Those for which there is a place, or should be.
    controllers: Vec<&'static str>,
    directories: Vec<PathBuf>,
    evacuation: Option<Evacuation>,
    /// This process's cgroups before it entered these, if it has.
    homes: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes the cgroups that the device policies and the limits by `controllers` need. A policy, or a limit that somebody asked for,
    /// that cannot be enforced is an error; a limit that nobody asked for is left out with a warning. They are below `parent`, or
    /// below this process's own cgroup. A pod without apps will get some, of which nobody knows what they need. `whole` is what
    /// all of them may use together.
    pub fn make(
        directory: &PodDirectory,
        uuid: Uuid,
        apps: &[AppCgroup<'_>],
        whole: Option<&AppLimits>,
        controllers: &[&'static str],
        parent: Option<&CgroupPath>,
    ) -> Result<Self, Error> {
        let name = format!("rkt-{uuid}");
        let confined = apps.is_empty() || apps.iter().any(|app| app.devices.is_some());
        let mut controllers = controllers.to_vec();
        controllers.extend(confined.then_some(policy::CONTROLLER));
        let mut layout = Layout::of_this_process()?;
        if let Some(parent) = parent {
            layout.move_below(parent, &controllers)?;
        }
        controllers.extend(COUNTERS.iter().filter(|counter| layout.counts(counter)));
        let whole = whole.map(|limits| AppCgroup { limits, devices: None });
        let all: Vec<_> = apps.iter().copied().chain(whole).collect();
        let required = |controller: &&'static str| all.iter().any(|app| requires(app, controller));
        record(directory, &place::candidates(&layout, &name))?;
        let (places, evacuation) = place::find(&layout, &controllers, required, &name)?;
        let directories: Vec<PathBuf> = places.iter().map(|place| place.parent.join(&name)).collect();
        let mut cgroups = Self {
            procs: Vec::new(),
            directories_of_apps: Vec::new(),
            name,
            places,
            controllers,
            directories,
            evacuation,
            homes: Vec::new(),
        };
        cgroups.check(&all)?;
        record(directory, &cgroups.directories)?;
        if let Some(AppCgroup { limits, .. }) = whole {
            cgroups.places.iter().try_for_each(|place| limit_pod(place, &cgroups.name, limits))?;
        }
        for app in apps {
            let (procs, directory) = cgroups.make_app(app)?;
            cgroups.procs.push(procs);
            cgroups.directories_of_apps.push(directory);
        }
        Ok(cgroups)
    }

    /// Whether all that apps need can be had.
    fn check(&self, apps: &[AppCgroup<'_>]) -> Result<(), Error> {
        let missing =
            |controller: &&&str| self.places.iter().all(|place| !place.controllers.contains(*controller));
        // A policy that no app has is not missed.
        let missed = |controller: &&&str| {
            **controller != policy::CONTROLLER || apps.iter().any(|app| app.devices.is_some())
        };
        let controllers = self.controllers.iter().filter(missing).filter(missed);
        controllers.copied().try_for_each(|controller| leave_out(controller, apps))
    }

    fn make_app(&self, app: &AppCgroup<'_>) -> Result<(Vec<OwnedFd>, Option<OwnedFd>), Error> {
        let procs = self.places.iter().map(|place| make_one(place, &self.name, app));
        let procs = procs.collect::<Result<_, _>>()?;
        Ok((procs, self.places.first().map(|place| open(place, &self.name, app)).transpose()?))
    }

    /// Makes the cgroups of an app that comes later: its `cgroup.procs` files, and one directory. None stays if that fails.
    pub fn add(&self, app: &AppCgroup<'_>) -> Result<(Vec<OwnedFd>, Option<OwnedFd>), Error> {
        self.check(std::slice::from_ref(app))?;
        let made = self.make_app(app);
        if made.is_err() {
            self.remove(&app.limits.app);
        }
        made
    }

    /// Removes the cgroups of an app, in which nothing runs any more. What cannot be removed now goes with the pod.
    pub fn remove(&self, app: &AcName) {
        for directory in &self.directories {
            let directory = directory.join(app.as_str());
            if let Err(error) = remove(&directory) {
                crate::error::report(&Error::file("remove cgroup", &directory)(error));
            }
        }
    }

    /// Moves this process with all its threads into the cgroups, which are one app's; out of them when this value is
    /// dropped.
    pub fn enter(&mut self) -> Result<(), Error> {
        self.homes = Layout::of_this_process()?.hierarchies.into_iter().map(|own| own.own).collect();
        for procs in self.procs.drain(..).flatten() {
            nix::unistd::write(procs, THIS_PROCESS)
                .map_err(|source| Error::System { action: "enter the pod's cgroup", source })?;
        }
        Ok(())
    }

    /// What of an app was killed for want of memory, if that is counted here.
    pub fn oom_kills(&self, app: &AcName) -> Option<OomKills> {
        statistics::oom_kills(&|file| read(&self.directories, Some(app), file))
    }
}

/// Says where the cgroups may be before any is, and then where they are, so that a crash leaves none that nobody knows of: what was said
/// stays until the other is there as a whole.
fn record(directory: &PodDirectory, cgroups: &[PathBuf]) -> Result<(), Error> {
    if cgroups.is_empty() {
        return Ok(());
    }
    let (path, new) = (directory.path().join(RECORD), directory.path().join(NEW_RECORD));
    let lines: String = cgroups.iter().map(|line| format!("{}\n", line.display())).collect();
    fs::write(&new, lines).and_then(|()| fs::rename(&new, &path)).map_err(Error::file("write", &path))
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.procs.clear();
        self.directories_of_apps.clear();
        if let Some(evacuation) = &self.evacuation {
            evacuation.undo();
        }
        for home in &self.homes {
            // Where it cannot go back, removing tells.
            let _ = fs::write(home.join("cgroup.procs"), THIS_PROCESS);
        }
        for directory in &self.directories {
            if let Err(error) = remove(directory) {
                crate::error::report(&Error::file("remove cgroup", directory)(error));
            }
        }
    }
}

fn limit(app: &AppLimits, controller: &str) -> Option<Limit> {
    match controller {
        "cpu" => Some(app.cpu_milli),
        "memory" => Some(app.memory_bytes),
        "pids" => Some(app.pids),
        _ => None,
    }
}

/// Whether an app must not run without a controller.
fn requires(app: &AppCgroup<'_>, controller: &str) -> bool {
    match controller {
        policy::CONTROLLER => app.devices.is_some(),
        _ => limit(app.limits, controller).is_some_and(|limit| limit.explicit),
    }
}

fn leave_out(controller: &'static str, apps: &[AppCgroup<'_>]) -> Result<(), Error> {
    match apps.iter().find(|app| requires(app, controller)) {
        Some(_) if controller == policy::CONTROLLER => Err(Error::NoDevicePolicy),
        Some(app) => Err(Error::Unenforceable { app: app.limits.app.to_string(), controller }),
        None => {
            eprintln!(
                "stage1: warning: no cgroup controller \"{controller}\": the default {controller} limit is left out"
            );
            Ok(())
        }
    }
}

/// Limits what all apps of a pod use together.
fn limit_pod(place: &Place, name: &str, limits: &AppLimits) -> Result<(), Error> {
    let pod = place.parent.join(name);
    fs::create_dir_all(&pod).map_err(Error::file("make cgroup", &pod))?;
    write_limits(place, &pod, limits.explicit_settings(place.version))
}

fn write_limits(place: &Place, cgroup: &Path, settings: Vec<CgroupSetting>) -> Result<(), Error> {
    for CgroupSetting { controller, file, value, required } in settings {
        if !place.controllers.contains(&controller.as_str()) {
            continue;
        }
        let path = cgroup.join(&file);
        match fs::write(&path, &value) {
            Err(error) if required => return Err(Error::file("set the limit in", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn make_one(place: &Place, name: &str, app: &AppCgroup<'_>) -> Result<OwnedFd, Error> {
    let pod = place.parent.join(name);
    let directory = pod.join(app.limits.app.as_str());
    fs::create_dir_all(&directory).map_err(Error::file("make cgroup", &directory))?;
    write_limits(place, &directory, app.limits.cgroup_settings(place.version))?;
    if let Some(policy) = app.devices.filter(|_| place.controllers.contains(&policy::CONTROLLER)) {
        devices::confine(&directory, place.version, policy)?;
    }
    let procs = directory.join("cgroup.procs");
    let open = OpenOptions::new().write(true).open(&procs);
    open.map(OwnedFd::from).map_err(Error::file("open", &procs))
}

fn open(place: &Place, name: &str, app: &AppCgroup<'_>) -> Result<OwnedFd, Error> {
    let directory = place.parent.join(name).join(app.limits.app.as_str());
    fs::File::open(&directory).map(OwnedFd::from).map_err(Error::file("open", &directory))
}

/// A file of an app's cgroup, or of the pod's, in whichever hierarchy has it.
pub(crate) fn read(directories: &[PathBuf], app: Option<&AcName>, file: &str) -> Option<String> {
    directories.iter().find_map(|pod| {
        let cgroup = app.map_or_else(|| pod.clone(), |app| pod.join(app.as_str()));
        fs::read_to_string(cgroup.join(file)).ok()
    })
}

/// The cgroups that the pod's directory tells of, if it has any.
pub(crate) fn recorded(directory: &Path, uuid: Uuid) -> Result<Vec<PathBuf>, Error> {
    let path = directory.join(RECORD);
    let lines = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::file("read", &path))?,
    };
    let name = format!("rkt-{uuid}");
    let is_ours = |line: &&Path| line.file_name().is_some_and(|last| *last == *name);
    Ok(lines.lines().map(Path::new).filter(is_ours).map(Path::to_owned).collect())
}

/// Removes the cgroups that the pod's directory tells of, after killing whatever is left in them; those that are gone already
/// are no error.
pub fn remove_recorded(directory: &Path, uuid: Uuid) -> Result<(), Error> {
    for cgroup in recorded(directory, uuid)? {
        // Not in v1, and not before Linux 5.14: there is nothing to kill unless a process of a killed pod still dies.
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        remove(&cgroup).map_err(Error::file("remove cgroup", &cgroup))?;
    }
    Ok(())
}

/// Removes a cgroup and those below it.
fn remove(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    for _ in 0..REMOVAL_ATTEMPTS {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(REMOVAL_PAUSE),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    fs::remove_dir(directory)
}

/// The version of a hierarchy's interface, for the limits' file names.
pub(crate) type Version = CgroupVersion;
