//! Which cgroups there are, and so which limits and what device policy can be enforced.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use pod::devices::CONTROLLER;

use super::{Need, Row};

/// The controllers that the limits of apps are written to.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub fn rows() -> Vec<Row> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchies = Hierarchies::of(&mounts, &|directory| {
        fs::read_to_string(format!("{directory}/cgroup.controllers")).unwrap_or_default()
    });
    let mut rows =
        vec![hierarchies.row("cgroup v2", &hierarchies.v2), hierarchies.row("cgroup v1", &hierarchies.v1)];
    rows.extend(CONTROLLERS.map(|controller| hierarchies.controller_row(controller)));
    rows.push(hierarchies.device_policy_row(devices::check));
    rows
}

/// The controllers by version; `None` where no hierarchy is mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    v2: Option<BTreeSet<String>>,
    v1: Option<BTreeSet<String>>,
}

impl Hierarchies {
    /// From /proc/self/mountinfo (proc(5)): after " - " come the type, the source, and the options of the file system, which
    /// for v1 name the controllers.
    fn of(mountinfo: &str, controllers_in: &dyn Fn(&str) -> String) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let mut file_system = file_system.split(' ');
            match (file_system.next(), mount.split(' ').nth(4), file_system.nth(1)) {
                (Some("cgroup2"), Some(directory), _) => {
                    let names = controllers_in(directory);
                    found.v2.get_or_insert_default().extend(names.split_whitespace().map(str::to_owned));
                }
                (Some("cgroup"), _, Some(options)) => {
                    let names = options.split(',').filter(|name| !matches!(*name, "rw" | "ro" | "xattr"));
                    let names = names.filter(|name| !name.contains('=')).map(str::to_owned);
                    found.v1.get_or_insert_default().extend(names);
                }
                _ => {}
            }
        }
        found
    }

    fn row(&self, name: &str, controllers: &Option<BTreeSet<String>>) -> Row {
        match controllers {
            Some(names) if names.is_empty() => Row::ok(name, Need::Optional, "mounted, without controllers"),
            Some(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Row::ok(name, Need::Optional, names.join(", "))
            }
            None if self.v1.is_some() || self.v2.is_some() => {
                Row::ok(name, Need::Optional, "not mounted; the other version is")
            }
            None => Row::missing(name, Need::Optional, "not mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
        }
    }

    fn controller_row(&self, controller: &str) -> Row {
        let name = format!("{controller} limits");
        match (has(&self.v2, controller), has(&self.v1, controller)) {
            (true, _) => Row::ok(name, Need::Optional, "by cgroup v2"),
            (false, true) => Row::ok(name, Need::Optional, "by cgroup v1"),
            (false, false) => Row::missing(
                name,
                Need::Optional,
                "no controller: pods of --stage1=nspawn that ask for this limit are refused",
                format!("boot a kernel with the {controller} controller, and mount its cgroups"),
            ),
        }
    }

    /// What keeps apps from devices: a controller in v1, a program in v2, which `check` knows of.
    fn device_policy_row(&self, check: impl FnOnce() -> Result<(), devices::Error>) -> Row {
        const NAME: &str = "device policy";
        let missing = |found: String, remedy: &str| {
            let consent = "or let apps use every device with --insecure-options=paths";
            Row::missing(NAME, Need::Nspawn, found, format!("{remedy}, {consent}"))
        };
        match (has(&self.v1, CONTROLLER), &self.v2) {
            (true, _) => Row::ok(NAME, Need::Nspawn, "by cgroup v1"),
            (false, None) => missing("no cgroups for it".into(), "mount -t cgroup2 none /sys/fs/cgroup"),
            (false, Some(_)) => match check() {
                Ok(()) => Row::ok(NAME, Need::Nspawn, "by cgroup v2"),
                Err(error) => {
                    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                    let found = format!("no device filter of cgroup v2{cause}");
                    missing(found, "as root, boot a kernel with CONFIG_CGROUP_BPF")
                }
            },
        }
    }
}

fn has(names: &Option<BTreeSet<String>>, controller: &str) -> bool {
    names.as_ref().is_some_and(|names| names.contains(controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:28 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

    #[test]
    fn hierarchies() {
        let found = Hierarchies::of(HYBRID, &|_| "memory pids\n".into());
        let set = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(found, Hierarchies { v2: set(&["memory", "pids"]), v1: set(&["cpu", "cpuacct"]) });
        assert_eq!(found.controller_row("cpu").found, "by cgroup v1");
        assert_eq!(found.controller_row("memory").found, "by cgroup v2");
        let nothing = Hierarchies::of("", &|_| String::new());
        assert!(!nothing.controller_row("cpu").ok && !nothing.row("cgroup v2", &nothing.v2).ok);
    }

    #[test]
    fn the_device_policy() {
        let with = |v1: Option<&[&str]>, v2: Option<&[&str]>| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Hierarchies { v1: v1.map(set), v2: v2.map(set) }
        };
        let never = || panic!("v1 needs no program");
        let refused = || Err(devices::Error::Load(nix::Error::EINVAL));
        let hybrid = with(Some(&["devices"]), Some(&[]));
        assert_eq!(hybrid.device_policy_row(never).found, "by cgroup v1");
        let v2 = with(Some(&["cpu"]), Some(&[]));
        assert_eq!(v2.device_policy_row(|| Ok(())).found, "by cgroup v2");
        assert!(v2.device_policy_row(refused).found.contains("EINVAL"));
        let row = with(Some(&["cpu"]), None).device_policy_row(|| Ok(()));
        assert!(!row.ok && row.remedy.unwrap().contains("--insecure-options=paths"));
    }
}
