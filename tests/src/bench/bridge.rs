//! The networks that the benchmark has: a bridge, on which there are namespaces with nothing around them, and one whose plugin does nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::measure::run;
use crate::{Bench, Error};

/// A namespace for a program by itself, by its name for `ip netns`.
pub const FREE: &str = "bench-free";
/// One for a program with the limits of a pod.
pub const LIMITED: &str = "bench-limited";
/// The bridge: what it is asked for by name, and called itself.
pub const BRIDGE: &str = "lan";
/// The plugins: the bridge's, and one of ours (`tests/src/nothing`).
pub const PLUGINS: [&str; 2] = ["bridge", "nothing"];
/// Of the machine that the benchmark runs on, version 2.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Does that while there are the bridge and the namespaces.
pub fn with_bridge<T>(bench: &Bench, measure: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    configure(bench)?;
    let cgroup = make_cgroup()?;
    for namespace in [FREE, LIMITED] {
        run(Command::new("ip").args(["netns", "add", namespace]))?;
        plugin(bench, "bridge", "ADD", namespace)?;
    }
    let measured = measure()?;
    for namespace in [FREE, LIMITED] {
        plugin(bench, "bridge", "DEL", namespace)?;
        run(Command::new("ip").args(["netns", "del", namespace]))?;
    }
    cgroup.ancestors().take(2).try_for_each(fs::remove_dir)?;
    Ok(measured)
}

/// The directory of the configuration that `rkt` is to use beside the system's.
pub fn configuration(bench: &Bench) -> PathBuf {
    bench.work.join("config")
}

fn configuration_of(bench: &Bench, plugin: &str) -> PathBuf {
    configuration(bench).join("net.d").join(format!("10-{plugin}.conf"))
}

fn configure(bench: &Bench) -> Result<(), Error> {
    fs::create_dir_all(configuration(bench).join("net.d"))?;
    let bridge = json!({"cniVersion": "1.0.0", "name": BRIDGE, "type": "bridge", "bridge": BRIDGE, "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}});
    let nothing = json!({"cniVersion": "1.0.0", "name": "nothing", "type": "nothing"});
    let write =
        |(plugin, config): (&str, Value)| fs::write(configuration_of(bench, plugin), config.to_string());
    Ok(PLUGINS.into_iter().zip([bridge, nothing]).try_for_each(write)?)
}

/// A cgroup as deep as that of a pod's app, with the limits that apps have by default.
fn make_cgroup() -> Result<PathBuf, Error> {
    let cgroup = Path::new(CGROUPS).join("bench/app");
    fs::create_dir_all(&cgroup)?;
    let outer = cgroup.parent().ok_or("no cgroup")?;
    fs::write(outer.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
    for (file, limit) in [("memory.max", "512M"), ("cpu.max", "100000 100000"), ("pids.max", "2048")] {
        fs::write(cgroup.join(file), limit)?;
    }
    Ok(cgroup)
}

/// Where a process enters that cgroup.
pub fn limits() -> PathBuf {
    Path::new(CGROUPS).join("bench/app/cgroup.procs")
}

/// Runs a plugin by itself for a namespace; the milliseconds that it takes.
pub fn plugin(bench: &Bench, plugin: &str, verb: &str, namespace: &str) -> Result<f64, Error> {
    let plugins = bench.work.join("bin/cni");
    let mut command = Command::new(plugins.join(plugin));
    command.stdin(File::open(configuration_of(bench, plugin))?).stdout(Stdio::null());
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", namespace).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", format!("/var/run/netns/{namespace}")).env("CNI_PATH", plugins);
    let begin = Instant::now();
    let status = command.status()?;
    let elapsed = begin.elapsed();
    match status.success() {
        true => Ok(elapsed.as_secs_f64() * 1000.0),
        false => Err(format!("{verb} of the plugin {plugin}: {status}").into()),
    }
}

/// What the bridge's plugin has given to a namespace.
pub fn address_of(namespace: &str) -> Result<String, Error> {
    let told =
        run(Command::new("ip").args(["netns", "exec", namespace, "ip", "-4", "-o", "addr", "show", "eth0"]))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let network = told.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = network.and_then(|network| network.split('/').next());
    Ok(address.ok_or_else(|| format!("the namespace has no address: {told}"))?.to_owned())
}
