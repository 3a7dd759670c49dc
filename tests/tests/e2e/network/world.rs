//! A network namespace and a mount namespace of a test's own.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1};

/// Where libcni, and the plugins of the CNI project, keep their files, and what is of the test's own.
const KEPT: &str = "/var/lib/cni";
const OWN: &str = "/var/lib";

/// What a test has instead of the host.
pub struct World {
    pub host: Host,
    config: TempDir,
}

impl World {
    /// Runs a test in a new world, in which nothing may be left of its pods.
    pub fn run(test: impl FnOnce(&World)) {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        forget_named_namespaces();
        mount(Some("tmpfs"), OWN, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let world = Self { host: Host::new(), config: tempfile::tempdir().unwrap() };
        fs::create_dir(world.net_d()).unwrap();
        test(&world);
        drop(world);
        assert_eq!(left(), Vec::<String>::new());
    }

    pub fn net_d(&self) -> PathBuf {
        self.config.path().join("net.d")
    }

    /// Configures a network.
    pub fn configure(&self, file: &str, config: &Value) {
        fs::write(self.net_d().join(file), config.to_string()).unwrap();
    }

    /// Takes a program of the host's away, as long as this world is.
    pub fn hide(&self, program: &str) {
        let none = None::<&str>;
        mount(Some("/dev/null"), program, none, MsFlags::MS_BIND, none).unwrap();
    }

    /// A plugin that is a script, in the place that upstream has for an administrator's.
    pub fn plugin(&self, name: &str, script: &str) {
        let path = self.net_d().join(name);
        // Another process writes it, so that no other test's fork has it open for writing when it is executed.
        let script = format!("#!/bin/sh\n{script}\n");
        let written =
            Command::new("sh").args(["-c", "printf %s \"$1\" >\"$0\""]).arg(&path).arg(script).status();
        assert!(written.unwrap().success());
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// `rkt` with this world's networks.
    pub fn rkt(&self) -> Command {
        let mut command = self.host.rkt();
        command.arg(format!("--local-config={}", self.config.path().display()));
        command
    }

    /// `rkt run` of an image with this network.
    pub fn command(&self, net: &str, name: &str) -> Command {
        let mut command = self.rkt();
        let image = if name.starts_with('/') { name.to_owned() } else { image(name) };
        command.arg("run").arg(format!("--stage1={}", stage1())).args([net, &image]);
        command
    }

    pub fn finish(&self, command: &mut Command) -> Finished {
        Process::start(command).finish()
    }

    /// Starts a shell script in a pod.
    pub fn start(&self, net: &str, script: &str) -> Process {
        Process::start(self.command(net, BUSYBOX).args(["--exec=/bin/sh", "--", "-c", script]))
    }

    /// Runs one to its end.
    pub fn sh(&self, net: &str, script: &str) -> Finished {
        self.start(net, script).finish()
    }

    pub fn gc(&self) -> Finished {
        self.finish(self.rkt().args(["gc", "--grace-period=0s"]))
    }
}

/// The network `name` on a bridge of its name.
pub fn bridge(name: &str, subnet: &str) -> Value {
    json!({"cniVersion": "0.4.0", "name": name, "type": "bridge", "bridge": name, "isGateway": true,
        "ipam": {"type": "host-local", "subnet": subnet}})
}

/// The network `lan` on a bridge of its name, with addresses of both versions of IP.
pub fn both_versions() -> Value {
    let mut config = bridge("lan", "10.9.0.0/24");
    config["ipam"] = json!({"type": "host-local",
        "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]});
    config
}

/// The network `name` of lines from pods to the host.
pub fn ptp(name: &str, subnet: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "type": "ptp", "ipam": {"type": "host-local", "subnet": subnet}})
}

/// Whatever there is of pods in this thread's namespaces: cached results, addresses, interfaces, named namespaces, rules.
pub fn left() -> Vec<String> {
    let mut left = files(&Path::new(KEPT).join("results"));
    for network in entries(&Path::new(KEPT).join("networks")) {
        // host-local keeps these for good.
        let address = |path: &String| !path.ends_with("/lock") && !path.contains("/last_reserved_ip.");
        left.extend(files(&network).into_iter().filter(address));
    }
    left.extend(lines("/proc/thread-self/net/dev").filter(|line| line.trim_start().starts_with("veth")));
    left.extend(lines("/proc/thread-self/mountinfo").filter(|line| line.contains(" nsfs ")));
    let rules = Command::new("iptables").args(["-t", "nat", "-S"]).output().unwrap().stdout;
    let rules = String::from_utf8_lossy(&rules).into_owned();
    let of_pods = |rule: &&str| rule.contains("CNI-DN-") || rule.contains("name: \"");
    left.extend(rules.lines().filter(of_pods).map(str::to_owned));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables =
        tables.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    left.extend(tables.lines().filter(|table| table.contains(" rkt-ports")).map(str::to_owned));
    left
}

/// Takes away those that others on this machine have made.
fn forget_named_namespaces() {
    for line in lines("/proc/thread-self/mountinfo").filter(|line| line.contains(" nsfs ")) {
        let place = line.split(' ').nth(4).unwrap();
        umount2(place, MntFlags::MNT_DETACH).unwrap();
    }
}

fn lines(path: &str) -> impl Iterator<Item = String> {
    BufReader::new(fs::File::open(path).unwrap()).lines().map(Result::unwrap)
}

fn files(directory: &Path) -> Vec<String> {
    entries(directory).iter().map(|path| path.display().to_string()).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}
