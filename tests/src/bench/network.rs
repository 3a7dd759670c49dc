//! What networks cost pods at their start, and what goes through them, beside network namespaces with nothing around them that are on the
//! same bridge: one without limits, and one with those of a pod, which cost the kernel something for each packet and each wake-up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::measure::{Summary, run, time_ms};
use crate::patience::{REPEATS, first_line, run_for_a_while};
use crate::sleeping::SleepingPod;
use crate::{Bench, Error};

const RUNS: usize = 5;
/// What `tests/bench` has made: `/sender` beside busybox, and the same program beside the bench.
const IMAGE: &str = "reading.aci";
const SENDER: &str = "sender";
const STREAM_BYTES: &str = "16777216";
const ROUND_TRIPS: &str = "200";
const QUESTIONS: &str = "20";
const NAMESPACE: &str = "bench";
/// Of the machine that the benchmark runs on, version 2.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Of the bridge: what it is asked for, and whom clients ask.
const CONFIGURATION: &str = "10-lan.conf";
const SERVER: &str = "10.9.0.77";

/// What was measured of networks.
#[derive(Debug, Default)]
pub struct Network {
    /// The milliseconds that a pod of namespaces takes more with `--net=none` than with `--net=host`, each time.
    pub none_ms: Vec<f64>,
    /// Those that a program takes more in a network namespace of its own, in which it takes loopback into operation.
    pub namespace_ms: Vec<f64>,
    /// Those of the plugin by itself: ADD and DEL.
    pub plugin_ms: Vec<f64>,
    /// Those that a network takes beyond them and `--net=none`.
    pub beyond_plugin_ms: Vec<f64>,
    /// What goes through.
    pub ways: Vec<Way>,
    /// The milliseconds of a question to the metadata service, by the isolation of the pod that asks.
    pub metadata_ms: Vec<(&'static str, Vec<f64>)>,
}

/// From one end to the other.
#[derive(Debug)]
pub struct Way {
    /// Which ends.
    pub name: &'static str,
    /// MiB a second of one stream.
    pub stream: Vec<f64>,
    /// The microseconds of a byte there and back.
    pub round_trip: Vec<f64>,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug)]
enum End {
    Host,
    Namespace,
    /// The same, with the limits of a pod.
    Limited,
    Pod(&'static str),
}

/// Measures what needs no VM.
pub fn measure(bench: &Bench) -> Result<Network, Error> {
    let (limited, nspawn) = (End::Limited, End::Pod("nspawn"));
    let ways = [
        ("host to namespace", End::Host, End::Namespace),
        ("host to limited namespace", End::Host, limited),
        ("host to nspawn", End::Host, nspawn),
        ("limited namespace to nspawn", limited, nspawn),
        ("nspawn to nspawn", nspawn, nspawn),
    ];
    on_a_bridge(bench, || {
        let starts = starts(bench)?;
        Ok(Network {
            ways: measure_ways(bench, &ways)?,
            metadata_ms: metadata(bench, &["nspawn"])?,
            ..starts
        })
    })
}

/// Measures the same of VMs, and of some of the rest to compare them with. Where the emulation's clock counts instructions, guests take
/// some interrupts twice, and the more there are the sooner they stand still for good.
pub fn measure_vms(bench: &Bench) -> Result<Network, Error> {
    let (nspawn, kvm) = (End::Pod("nspawn"), End::Pod("kvm"));
    let ways = [
        ("host to limited namespace", End::Host, End::Limited),
        ("host to nspawn", End::Host, nspawn),
        ("host to kvm", End::Host, kvm),
        ("kvm to kvm", kvm, kvm),
    ];
    on_a_bridge(bench, || {
        let ways = measure_ways(bench, &ways)?;
        Ok(Network { ways, metadata_ms: metadata(bench, &["nspawn", "kvm"])?, ..Network::default() })
    })
}

/// Does that on a bridge with a namespace.
fn on_a_bridge(bench: &Bench, measure: impl FnOnce() -> Result<Network, Error>) -> Result<Network, Error> {
    configure(bench)?;
    let cgroup = make_cgroup()?;
    run(Command::new("ip").args(["netns", "add", NAMESPACE]))?;
    plugin(bench, "ADD")?;
    let network = measure()?;
    plugin(bench, "DEL")?;
    run(Command::new("ip").args(["netns", "del", NAMESPACE]))?;
    cgroup.ancestors().take(2).try_for_each(fs::remove_dir)?;
    Ok(network)
}

fn measure_ways(bench: &Bench, ways: &[(&'static str, End, End)]) -> Result<Vec<Way>, Error> {
    ways.iter().map(|(name, from, to)| way(bench, name, *from, *to)).collect()
}

/// A cgroup as deep as that of a pod's app, with the limits that apps have by default.
fn make_cgroup() -> Result<PathBuf, Error> {
    let cgroup = Path::new(CGROUPS).join(NAMESPACE).join("app");
    fs::create_dir_all(&cgroup)?;
    let outer = cgroup.parent().ok_or("no cgroup")?;
    fs::write(outer.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
    for (file, limit) in [("memory.max", "512M"), ("cpu.max", "100000 100000"), ("pids.max", "2048")] {
        fs::write(cgroup.join(file), limit)?;
    }
    Ok(cgroup)
}

fn configure(bench: &Bench) -> Result<(), Error> {
    let config = json!({"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "bridge": "lan", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}});
    let directory = bench.work.join("config/net.d");
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(CONFIGURATION), config.to_string())?)
}

/// Starts pods of namespaces with networks and without, after a round to warm up.
fn starts(bench: &Bench) -> Result<Network, Error> {
    let mut network = Network::default();
    for round in 0..=RUNS {
        let start = |net: &str| time_ms(&mut pod(bench, "nspawn", &[net], &["/bin/true"]));
        let (host, none, lan) = (start("--net=host")?, start("--net=none")?, start("--net=lan")?);
        let plugin_ms = plugin(bench, "DEL")? + plugin(bench, "ADD")?;
        let loopback =
            |own: &str| time_ms(Command::new("unshare").args([own, "ip", "link", "set", "lo", "up"]));
        let namespace_ms = loopback("--net")? - loopback("--uts")?;
        bench.collect_garbage()?;
        if round > 0 {
            network.namespace_ms.push(namespace_ms);
            network.none_ms.push(none - host);
            network.plugin_ms.push(plugin_ms);
            network.beyond_plugin_ms.push(lan - none - plugin_ms);
        }
    }
    let Network { none_ms, namespace_ms, plugin_ms, beyond_plugin_ms, .. } = &network;
    tell("--net=none, a namespace", &format!("{none_ms:.2?}, {namespace_ms:.2?} ms"));
    tell("the plugin, beyond both", &format!("{plugin_ms:.2?}, {beyond_plugin_ms:.2?} ms"));
    Ok(network)
}

/// A program in a pod, with these options of `run`.
fn pod(bench: &Bench, isolation: &str, options: &[&str], exec: &[&str]) -> Command {
    let mut command = bench.rkt();
    command.arg(format!("--local-config={}", bench.work.join("config").display()));
    command.args(["run", "--stage1", isolation]).args(options).arg(bench.images.join(IMAGE));
    if let Some((program, arguments)) = exec.split_first() {
        command.arg(format!("--exec={program}")).arg("--").args(arguments);
    }
    command
}

/// Runs the plugin by itself for the namespace, whose address is the server's; the milliseconds that it takes.
fn plugin(bench: &Bench, verb: &str) -> Result<f64, Error> {
    let mut command = Command::new(bench.work.join("bin/cni/bridge"));
    command.stdin(File::open(bench.work.join("config/net.d").join(CONFIGURATION))?).stdout(Stdio::null());
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", NAMESPACE).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", format!("/var/run/netns/{NAMESPACE}"));
    command.env("CNI_PATH", bench.work.join("bin/cni"));
    let begin = Instant::now();
    let status = command.status()?;
    let elapsed = begin.elapsed();
    match status.success() {
        true => Ok(elapsed.as_secs_f64() * 1000.0),
        false => Err(format!("the plugin's {verb}: {status}").into()),
    }
}

/// The sender, which in a pod that serves has the server's address.
fn sender(bench: &Bench, end: End, net: &str, arguments: &[&str]) -> Command {
    let program = bench.work.join("bin").join(SENDER);
    let mut command = match end {
        End::Host => Command::new(program),
        End::Namespace => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", NAMESPACE]).arg(program);
            command
        }
        End::Limited => {
            let cgroup = Path::new(CGROUPS).join(NAMESPACE).join("app/cgroup.procs");
            let mut command = Command::new("sh");
            command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]).arg(cgroup);
            command.arg(NAMESPACE).arg(program);
            command
        }
        End::Pod(isolation) => return pod(bench, isolation, &[net], &[&["/sender"], arguments].concat()),
    };
    command.args(arguments);
    command
}

/// Measures a way, after a round to warm up.
fn way(bench: &Bench, name: &'static str, from: End, to: End) -> Result<Way, Error> {
    let serve = || SleepingPod::of(&mut sender(bench, to, &format!("--net=lan:IP={SERVER}"), &["serve"]));
    let address = match to {
        End::Namespace | End::Limited => namespace_address()?,
        End::Host | End::Pod(_) => SERVER.to_owned(),
    };
    let (mut way, mut server) = (Way { name, stream: Vec::new(), round_trip: Vec::new() }, serve()?);
    let mut repeats = 0;
    while way.stream.len() <= RUNS {
        if let Some((stream, round_trip)) = round(bench, from, &address)? {
            way.stream.push(stream);
            way.round_trip.push(round_trip);
        } else if repeats < REPEATS {
            repeats += 1;
            server.kill()?;
            bench.collect_garbage()?;
            server = serve()?;
        } else {
            return Err(format!("{name}: it stands still, however often it is repeated").into());
        }
    }
    server.stop()?;
    bench.collect_garbage()?;
    way.stream.remove(0);
    way.round_trip.remove(0);
    tell(name, &format!("{:.0?} MiB/s, {:.0?} us; repeated {repeats} times", way.stream, way.round_trip));
    Ok(way)
}

/// One stream's MiB a second, and the microseconds of a byte there and back; nothing, if one of both ends stands still.
fn round(bench: &Bench, from: End, address: &str) -> Result<Option<(f64, f64)>, Error> {
    let ask = |arguments: &[&str]| run_for_a_while(&mut sender(bench, from, "--net=lan", arguments));
    let Some(stream) = ask(&["stream", address, STREAM_BYTES])? else { return Ok(None) };
    let Some(asked) = ask(&["ask", address, ROUND_TRIPS])? else { return Ok(None) };
    let ((bytes, stream_ns), (count, asked_ns)) = (told(&stream.stdout)?, told(&asked.stdout)?);
    Ok(Some((bytes / f64::from(1 << 20) / (stream_ns / 1e9), asked_ns / count / 1e3)))
}

/// Shows how far the benchmark is, which takes its time.
fn tell(what: &str, figures: &str) {
    eprintln!("bench: {what}: {figures}");
}

/// What the plugin has given to the namespace.
fn namespace_address() -> Result<String, Error> {
    let told =
        run(Command::new("ip").args(["netns", "exec", NAMESPACE, "ip", "-4", "-o", "addr", "show", "eth0"]))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let network = told.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = network.and_then(|network| network.split('/').next());
    Ok(address.ok_or_else(|| format!("the namespace has no address: {told}"))?.to_owned())
}

/// What pods wait for the metadata service, each question by a connection of its own.
fn metadata(bench: &Bench, isolations: &[&'static str]) -> Result<Vec<(&'static str, Vec<f64>)>, Error> {
    let mut service = Service::start(bench)?;
    let asked = isolations.iter().map(|isolation| Ok((*isolation, waited(bench, isolation)?))).collect();
    service.stop()?;
    asked
}

fn waited(bench: &Bench, isolation: &'static str) -> Result<Vec<f64>, Error> {
    let (mut waited, mut repeats) = (Vec::new(), 0);
    while waited.len() <= RUNS {
        let options = ["--net=lan", "--mds-register"];
        match run_for_a_while(&mut pod(bench, isolation, &options, &["/sender", "know", QUESTIONS]))? {
            Some(output) => {
                let (count, asked_ns) = told(&output.stdout)?;
                waited.push(asked_ns / count / 1e6);
            }
            None if repeats < REPEATS => repeats += 1,
            None => return Err(format!("{isolation}: pods that ask for metadata stand still").into()),
        }
    }
    bench.collect_garbage()?;
    waited.remove(0);
    tell("metadata", &format!("{isolation}: {waited:.2?} ms; repeated {repeats} times"));
    Ok(waited)
}

/// The metadata service of the machine that the benchmark runs on.
struct Service(Child);

impl Service {
    /// It runs when it has said so.
    fn start(bench: &Bench) -> Result<Self, Error> {
        let mut service = bench.rkt().arg("metadata-service").stdout(Stdio::piped()).spawn()?;
        let mut stdout = service.stdout.take().ok_or("no standard output")?;
        match first_line(&mut stdout)? {
            Some(line) if line.contains("pods are registered") => Ok(Self(service)),
            line => Err(format!("the metadata service says: {line:?}").into()),
        }
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

/// How much, and in how many nanoseconds.
fn told(stdout: &[u8]) -> Result<(f64, f64), Error> {
    let text = String::from_utf8_lossy(stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(much)), Some(Ok(ns))) => Ok((much, ns)),
        _ => Err(format!("the sender has said: {text}").into()),
    }
}

impl Network {
    /// What was measured of starts: what it is called, for people and for programs.
    pub fn starts(&self) -> [(&'static str, &'static str, Option<Summary>); 4] {
        [
            ("--net=none, beyond --net=host", "net_none_ms", Summary::of(&self.none_ms)),
            ("  a namespace with loopback by itself", "namespace_ms", Summary::of(&self.namespace_ms)),
            ("plugin by itself, ADD and DEL", "plugin_ms", Summary::of(&self.plugin_ms)),
            ("--net=lan, beyond both", "beyond_plugin_ms", Summary::of(&self.beyond_plugin_ms)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_told() {
        assert_eq!(told(b"33554432 1000\n").unwrap(), (33_554_432.0, 1000.0));
        assert!(told(b"33554432\n").is_err());
    }
}
