//! A network namespace that stands for the host's, and a directory for everything that plugins and libcni keep.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use net::cni::{Attachment, Cache, NetworkConfig, Runtime, SearchPath};
use net::pod_network::Planned;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use tempfile::TempDir;

pub struct World {
    pub home: TempDir,
}

impl World {
    /// This thread, and what it starts, is in a new network namespace from now on.
    pub fn new() -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        net::loopback_up().unwrap();
        let home = tempfile::tempdir().unwrap();
        for name in ["plugins", "pods", "leases"] {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        Self { home }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The test's own plugins before Debian's.
    pub fn plugins(&self) -> SearchPath {
        SearchPath::new([self.path("plugins"), "/usr/lib/cni".into()])
    }

    pub fn planned(&self, attachments: Vec<Attachment>) -> Planned {
        Planned { attachments, plugins: self.plugins() }
    }

    pub fn cache(&self) -> Cache {
        Cache::new(self.path("cni"))
    }

    pub fn runtime(&self) -> Runtime<'static> {
        Runtime::new(self.plugins(), self.cache())
    }

    /// A plugin that is a script. Another process writes it: a test beside this one that forks while the file is open for
    /// writing would keep it from being executed.
    pub fn script(&self, name: &str, script: &str) {
        let path = self.path("plugins").join(name);
        let mut writer = Command::new("sh");
        writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
        let mut writer = writer.spawn().unwrap();
        write!(writer.stdin.take().unwrap(), "#!/bin/sh\n{script}\n").unwrap();
        assert!(writer.wait().unwrap().success());
    }

    /// The addresses that are taken in a network of host-local's.
    pub fn leases(&self, network: &str) -> Vec<String> {
        names(&self.path("leases").join(network)).into_iter().filter(|name| name.starts_with("10.")).collect()
    }

    pub fn cached(&self) -> Vec<String> {
        names(&self.path("cni/results"))
    }
}

/// An attachment of eth0 to a network.
pub fn attachment(config: &Value, id: &str, arguments: &[(&str, &str)]) -> Attachment {
    let network = NetworkConfig::parse_list(config.to_string().as_bytes()).unwrap();
    let arguments = arguments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Attachment::new(network, id, "eth0".parse().unwrap(), arguments)
}

/// The names of the interfaces of this thread's network namespace.
pub fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Does something in another network namespace.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let work = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap()
    })
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// An error with its causes.
pub fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
