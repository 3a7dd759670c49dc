//! Where a pod's cgroups can be, with which controllers.
//!
//! In a v1 hierarchy that is simply below this process's cgroup. In cgroup v2 a cgroup either has processes or gives
//! controllers to those below it ("no internal processes", cgroups(7)), and this process's cgroup has at least this
//! process. So in turn: its own cgroup, if it is the top or gives the controllers already; its own cgroup after this
//! process has moved into a cgroup below it, if it was alone there (a scope of its own); the nearest cgroup above.
//!
//! Devices are a controller's matter in v1 only; in cgroup v2 every cgroup can have a filter.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ::pod::devices;

use super::Version;
use super::layout::{Hierarchy, Layout};
use crate::Error;

/// A place for cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface there.
    pub version: Version,
    /// Below which cgroup.
    pub parent: PathBuf,
    /// What can be limited there.
    pub controllers: Vec<&'static str>,
}

/// Where this process's own cgroup was left for one below it.
#[derive(Debug)]
pub struct Evacuation {
    own: PathBuf,
    refuge: PathBuf,
    controllers: Vec<&'static str>,
}

/// The controller that limits nothing here, and counts.
const IO: &str = "io";
/// Not an app's name: those have no underscores.
const REFUGE: &str = "_parent";

/// Everywhere that [`find`] may make a cgroup `pod`.
pub fn candidates(layout: &Layout, pod: &str) -> Vec<PathBuf> {
    let places = layout.hierarchies.iter().flat_map(|hierarchy| match hierarchy.version {
        Version::V1 => vec![hierarchy.own.as_path()],
        Version::V2 => hierarchy.candidates().collect(),
    });
    places.map(|place| place.join(pod)).collect()
}

impl Hierarchy {
    /// This process's own cgroup, and those above it, from the inside out.
    fn candidates(&self) -> impl Iterator<Item = &Path> {
        self.own.ancestors().take_while(|cgroup| cgroup.starts_with(&self.top))
    }
}

/// The places for cgroups with these controllers; those without a place are in none. A `required` one is worth a place
/// that the others are not available in.
pub fn find(
    layout: &Layout,
    controllers: &[&'static str],
    required: impl Fn(&&'static str) -> bool,
    pod: &str,
) -> Result<(Vec<Place>, Option<Evacuation>), Error> {
    let mut places = Vec::new();
    let mut left: Vec<&'static str> = controllers.to_vec();
    for hierarchy in layout.hierarchies.iter().filter(|hierarchy| hierarchy.version == Version::V1) {
        let (here, elsewhere) =
            left.iter().partition(|controller| hierarchy.controllers.iter().any(|own| own == *controller));
        left = elsewhere;
        let here: Vec<&'static str> = here;
        if !here.is_empty() {
            places.push(Place { version: Version::V1, parent: hierarchy.own.clone(), controllers: here });
        }
    }
    let mut evacuation = None;
    if let Some(v2) = layout.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2) {
        let (filter, left): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|name| *name == devices::CONTROLLER);
        let needed: Vec<&'static str> = left.iter().copied().filter(required).collect();
        for wanted in [left, needed] {
            if wanted.is_empty() && filter.is_empty() {
                break;
            }
            if let Some((parent, moved)) = find_v2(v2, &wanted, pod)? {
                let controllers = [wanted, filter].concat();
                places.push(Place { version: Version::V2, parent, controllers });
                evacuation = moved;
                break;
            }
        }
    }
    Ok((places, evacuation))
}

fn find_v2(
    hierarchy: &Hierarchy,
    controllers: &[&'static str],
    pod: &str,
) -> Result<Option<(PathBuf, Option<Evacuation>)>, Error> {
    for cgroup in hierarchy.candidates() {
        if enable(cgroup, controllers).is_ok() {
            let pod_cgroup = cgroup.join(pod);
            return prepare(&pod_cgroup, controllers).map(|()| Some((cgroup.to_owned(), None)));
        }
        if cgroup == hierarchy.own
            && let Some(evacuation) = Evacuation::of(cgroup, controllers, pod)
        {
            let pod_cgroup = cgroup.join(pod);
            return prepare(&pod_cgroup, controllers).map(|()| Some((cgroup.to_owned(), Some(evacuation))));
        }
    }
    Ok(None)
}

/// Makes the pod's cgroup, which gives the controllers to its apps'.
///
/// What the apps read and write is counted where the cgroups above do that already.
fn prepare(pod: &Path, controllers: &[&'static str]) -> Result<(), Error> {
    let prepared = make(pod).and_then(|()| {
        let available = fs::read_to_string(pod.join("cgroup.controllers")).unwrap_or_default();
        let io = available.split_whitespace().any(|name| name == IO).then_some(IO);
        enable(pod, &controllers.iter().copied().chain(io).collect::<Vec<_>>())
    });
    prepared.map_err(Error::file("make cgroup", pod))
}

fn make(cgroup: &Path) -> io::Result<()> {
    match fs::create_dir(cgroup) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Gives controllers to the cgroups below one.
///
/// Where there are processes, the kernel takes "cpu" and "pids" all the same, but as controllers of threads, and the cgroups
/// below can be given no others (cgroups(7), "Thread mode").
fn enable(cgroup: &Path, controllers: &[&str]) -> io::Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    let missing = |controller: &&&str| !enabled.split_whitespace().any(|enabled| enabled == **controller);
    let missing: Vec<String> = controllers.iter().filter(missing).map(|name| format!("+{name}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if has_processes(cgroup) {
        return Err(ErrorKind::ResourceBusy.into());
    }
    fs::write(file, missing.join(" "))
}

/// Of the top's it does not matter, and only that has no type.
fn has_processes(cgroup: &Path) -> bool {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    !processes.is_empty() && cgroup.join("cgroup.type").exists()
}

impl Evacuation {
    /// Moves this process out of `own`, if it is alone there and that helps.
    fn of(own: &Path, controllers: &[&'static str], pod: &str) -> Option<Self> {
        let processes = fs::read_to_string(own.join("cgroup.procs")).ok()?;
        if processes.trim() != std::process::id().to_string() {
            return None;
        }
        let (pod, refuge) = (own.join(pod), own.join(pod).join(REFUGE));
        let evacuation = Self { own: own.to_owned(), refuge, controllers: controllers.to_vec() };
        let moved =
            make(&pod).and_then(|()| make(&evacuation.refuge)).and_then(|()| enter(&evacuation.refuge));
        if moved.and_then(|()| enable(own, controllers)).is_ok() {
            return Some(evacuation);
        }
        evacuation.undo();
        let _ = fs::remove_dir(pod);
        None
    }

    /// Moves this process back, so that its refuge can be removed.
    pub fn undo(&self) {
        let disable: Vec<String> = self.controllers.iter().map(|name| format!("-{name}")).collect();
        // From below: a cgroup takes no controller from one that gives it on.
        for cgroup in self.refuge.parent().into_iter().chain([self.own.as_path()]) {
            let _ = fs::write(cgroup.join("cgroup.subtree_control"), disable.join(" "));
        }
        let _ = enter(&self.own);
        let _ = fs::remove_dir(&self.refuge);
    }
}

fn enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), super::THIS_PROCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(version: Version, controllers: &[&str], own: &str) -> Hierarchy {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Hierarchy { version, controllers, top: "/nowhere".into(), own: own.into() }
    }

    #[test]
    fn controllers_are_found_in_their_hierarchies() {
        let layout = Layout {
            hierarchies: vec![
                hierarchy(Version::V1, &["rw", "cpu", "cpuacct"], "/nowhere/cpu/a"),
                hierarchy(Version::V1, &["rw", "memory"], "/nowhere/memory/b"),
                hierarchy(Version::V2, &[], "/nowhere/unified"),
            ],
        };
        let (places, evacuation) = find(&layout, &["cpu", "memory"], |_| true, "rkt-x").unwrap();
        let found: Vec<_> =
            places.iter().map(|p| (p.parent.display().to_string(), p.controllers.clone())).collect();
        assert_eq!(
            found,
            [("/nowhere/cpu/a".to_owned(), vec!["cpu"]), ("/nowhere/memory/b".to_owned(), vec!["memory"]),]
        );
        assert!(evacuation.is_none());
    }

    #[test]
    fn devices_are_a_controllers_matter_in_v1_and_any_cgroups_in_v2() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("cgroup.subtree_control"), "").unwrap();
        fs::create_dir(top.path().join("rkt-x")).unwrap();
        fs::write(top.path().join("rkt-x/cgroup.subtree_control"), "").unwrap();
        let path = top.path().to_str().unwrap();
        let v2 = Hierarchy { top: path.into(), ..hierarchy(Version::V2, &[], path) };
        let v1 = hierarchy(Version::V1, &["rw", "devices"], "/nowhere/devices/a");
        for (hierarchies, version) in [(vec![v1, v2.clone()], Version::V1), (vec![v2], Version::V2)] {
            let (places, _) = find(&Layout { hierarchies }, &["devices"], |_| true, "rkt-x").unwrap();
            assert!(
                matches!(&places[..], [place] if place.version == version && place.controllers == ["devices"]),
                "{places:?}"
            );
        }
        let enabled = fs::read_to_string(top.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, "", "there is no such controller");
    }

    #[test]
    fn a_v2_cgroup_that_gives_the_controllers_already() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("user/own");
        fs::create_dir_all(&own).unwrap();
        for (cgroup, enabled) in [(top.path().to_owned(), "cpu memory"), (own.clone(), "cpu")] {
            fs::write(cgroup.join("cgroup.subtree_control"), enabled).unwrap();
        }
        assert!(enable(&own, &["cpu"]).is_ok());
        assert_eq!(fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "cpu", "left as it was");
        assert!(enable(&top.path().join("nowhere"), &["cpu"]).is_err());
        fs::write(own.join("cgroup.type"), "domain").unwrap();
        fs::write(own.join("cgroup.procs"), "7\n").unwrap();
        assert!(enable(&own, &["cpu"]).is_ok() && enable(&own, &["pids"]).is_err(), "it has processes");
        assert!(enable(top.path(), &["pids"]).is_ok());
    }

    #[test]
    fn wherever_a_cgroup_may_be_is_known_before_it_is_made() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("user/own");
        fs::create_dir_all(&own).unwrap();
        for cgroup in own.ancestors().take(3) {
            fs::write(cgroup.join("cgroup.subtree_control"), "cpu").unwrap();
        }
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let v2 = Hierarchy { top: path(top.path()).into(), ..hierarchy(Version::V2, &[], &path(&own)) };
        let layout =
            Layout { hierarchies: vec![hierarchy(Version::V1, &["rw", "memory"], "/nowhere/b"), v2] };
        let candidates = candidates(&layout, "rkt-x");
        assert_eq!(candidates.first().unwrap(), Path::new("/nowhere/b/rkt-x"));
        assert_eq!(candidates.last().unwrap(), &top.path().join("rkt-x"));
        assert_eq!(candidates.len(), 4);
    }

    #[test]
    fn no_hierarchy() {
        let (places, _) = find(&Layout { hierarchies: Vec::new() }, &["cpu"], |_| false, "rkt-x").unwrap();
        assert_eq!(places, []);
    }
}
