//! Where this process's cgroups are: cgroup v2, a v1 hierarchy a controller, or both (hybrid).

use std::path::{Path, PathBuf};

use ::pod::abi::CgroupPath;

use super::Version;
use crate::Error;

/// The option of the hierarchy that systemd has for itself in v1.
const SYSTEMD: &str = "name=systemd";

/// A hierarchy, and this process's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// The controllers of a v1 hierarchy; a v2 hierarchy's are in a file of every cgroup.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub top: PathBuf,
    /// This process's cgroup.
    pub own: PathBuf,
}

/// All hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// In the order of their mounts.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// As /proc has it.
    pub fn of_this_process() -> Result<Self, Error> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(Error::file("read", Path::new(path)));
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// As if this process were in the cgroup `parent` of each hierarchy that these controllers need; nothing above that is
    /// looked at.
    pub fn move_below(&mut self, parent: &CgroupPath, controllers: &[&str]) -> Result<(), Error> {
        let has = |hierarchy: &Hierarchy, wanted: &str| hierarchy.controllers.iter().any(|own| own == wanted);
        let in_v1 = |wanted: &&str| self.hierarchies.iter().any(|hierarchy| has(hierarchy, wanted));
        let needs_v2 = !controllers.iter().all(in_v1);
        for hierarchy in &mut self.hierarchies {
            let needed = match hierarchy.version {
                Version::V1 => controllers.iter().any(|wanted| has(hierarchy, wanted)),
                Version::V2 => needs_v2,
            };
            let path = parent.below(&hierarchy.top);
            if needed && !path.is_dir() {
                return Err(Error::NoCgroupParent { path });
            }
            (hierarchy.top, hierarchy.own) = (path.clone(), path);
        }
        Ok(())
    }

    /// The hierarchies that systemd knows its units by, the first where each has its place: its own of v1, which has no controller,
    /// and cgroup v2, or only that.
    pub fn of_systemd(&self) -> impl Iterator<Item = &Hierarchy> {
        let named = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|own| own == SYSTEMD);
        let v2 = |hierarchy: &&Hierarchy| hierarchy.version == Version::V2;
        self.hierarchies.iter().filter(named).chain(self.hierarchies.iter().filter(v2))
    }

    /// Whether a controller of v1 that limits nothing here can be had at no cost to anybody else.
    pub fn counts(&self, counter: &str) -> bool {
        let counter = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|own| own == counter);
        self.hierarchies.iter().filter(counter).any(|hierarchy| hierarchy.own.is_dir())
    }

    /// From the texts of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)).
    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(hierarchy) = mount.hierarchy(cgroup) else { continue };
            // The same hierarchy may be mounted in several places.
            let known = |other: &Hierarchy| {
                other.version == hierarchy.version && other.controllers == hierarchy.controllers
            };
            if !hierarchies.iter().any(known) {
                hierarchies.push(hierarchy);
            }
        }
        Self { hierarchies }
    }
}

/// A line of mountinfo.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    file_system: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        Some(Self { root, point: PathBuf::from(unescape(point)), file_system: kind, options })
    }

    fn hierarchy(&self, cgroup: &str) -> Option<Hierarchy> {
        let (version, controllers) = match self.file_system {
            "cgroup2" => (Version::V2, Vec::new()),
            "cgroup" => (Version::V1, self.options.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        let path = cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let ours = match version {
                Version::V2 => names.is_empty(),
                Version::V1 => {
                    names.split(',').any(|name| !name.is_empty() && controllers.iter().any(|c| c == name))
                }
            };
            ours.then_some(path)
        })?;
        // The mount shows the hierarchy from its root on; a process outside of that is shown nothing.
        let below = Path::new(path).strip_prefix(self.root).ok()?;
        Some(Hierarchy { version, controllers, own: self.point.join(below), top: self.point.clone() })
    }
}

/// Blanks, tabs, newlines and backslashes stand as three octal digits in mountinfo.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const HYBRID: &str = "\
        31 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:29 /lxc /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory\n\
        34 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        35 31 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn unified() {
        let layout = Layout::parse(V2, "0::/user.slice/session-1.scope\n");
        let own = PathBuf::from("/sys/fs/cgroup/user.slice/session-1.scope");
        let top = PathBuf::from("/sys/fs/cgroup");
        let hierarchy = Hierarchy { version: Version::V2, controllers: Vec::new(), top, own };
        assert!(layout.of_systemd().eq([&hierarchy]));
        assert_eq!(layout.hierarchies, [hierarchy]);
    }

    #[test]
    fn hybrid() {
        let cgroup = "4:name=systemd:/s\n3:memory:/lxc/box/x\n2:cpu,cpuacct:/a\n0::/\n";
        let layout = Layout::parse(HYBRID, cgroup);
        let own: Vec<_> = layout.hierarchies.iter().map(|h| h.own.display().to_string()).collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/cpu,cpuacct/a",
                "/sys/fs/cgroup/my memory/box/x",
                "/sys/fs/cgroup/systemd/s",
                "/sys/fs/cgroup/unified/",
            ]
        );
        assert_eq!(layout.hierarchies[1].version, Version::V1);
        assert!(layout.of_systemd().eq(&layout.hierarchies[2..]));
    }

    #[test]
    fn below_another_cgroup() {
        let tops = tempfile::tempdir().unwrap();
        let hierarchy = |version, name: &str, controllers: &[&str]| Hierarchy {
            version,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            top: tops.path().join(name),
            own: tops.path().join(name).join("own"),
        };
        let mut layout = Layout {
            hierarchies: vec![
                hierarchy(Version::V1, "cpu", &["cpu"]),
                hierarchy(Version::V2, "unified", &[]),
            ],
        };
        std::fs::create_dir_all(tops.path().join("cpu/a/b")).unwrap();
        let parent: CgroupPath = "/a/b".parse().unwrap();
        let error = layout.clone().move_below(&parent, &["cpu", "memory"]).unwrap_err().to_string();
        assert!(error.contains("unified/a/b"), "{error}");
        layout.move_below(&parent, &["cpu"]).unwrap();
        assert!(layout.hierarchies.iter().all(|hierarchy| hierarchy.own.ends_with("a/b")));
        assert_eq!(layout.hierarchies[0].top, layout.hierarchies[0].own);
    }

    #[test]
    fn a_cgroup_outside_of_what_is_mounted() {
        assert_eq!(Layout::parse(HYBRID, "3:memory:/elsewhere\n").hierarchies, []);
        assert_eq!(Layout::parse("", "0::/\n").hierarchies, []);
        assert_eq!(Layout::parse("nonsense\n1 2 - x", "").hierarchies, []);
    }
}
