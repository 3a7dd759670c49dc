//! What networks cost pods at their start, and what goes through them, beside network namespaces with nothing around them that are on the
//! same bridge: one without limits, and one with those of a pod, which cost the kernel something for each packet and each wake-up; and
//! beside VMs of Firecracker.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use crate::bridge::{FREE, plugin, with_bridge};
use crate::ends::{End, pod};
use crate::measure::{Summary, settle, time_ms};
use crate::metadata::{self, Waited};
use crate::ways::{self, Amount, Way};
use crate::{Bench, Error, boots, tell};

/// Of starts, which differ by less than a millisecond.
const STARTS: usize = 15;
const AMOUNT: Amount = Amount { stream_mib: 256, rounds: 5 };
/// In each boot of the machine.
const AMOUNT_OF_VMS: Amount = Amount { stream_mib: 256, rounds: 3 };

/// What was measured of networks.
#[derive(Debug, Default)]
pub struct Network {
    /// The milliseconds that a pod of namespaces takes more with `--net=none` than with `--net=host`, each time.
    pub none_ms: Vec<f64>,
    /// Those that the kernel takes by itself: a thread gets a network namespace, and takes loopback into operation there.
    pub namespace_ms: Vec<f64>,
    /// Those of the bridge's plugin by itself: ADD and DEL.
    pub bridge_ms: Vec<f64>,
    /// Those of the plugin that does nothing.
    pub nothing_ms: Vec<f64>,
    /// Those that a network takes beyond that plugin and `--net=none`.
    pub beyond_plugin_ms: Vec<f64>,
    /// What goes through.
    pub ways: Vec<Way>,
    /// What questions to the metadata service take.
    pub metadata_ms: Waited,
}

/// Ways, that of a peer that each is to be compared with, and who that is.
const PEERS: [[&str; 3]; 3] = [
    ["host to nspawn", "host to limited namespace", "ip netns exec"],
    ["host to kvm", "host to firecracker", "firecracker"],
    ["kvm to kvm", "firecracker to firecracker", "firecracker"],
];

/// What pods wait for an answer of the metadata service, beside [`VM_WAYS`].
const METADATA: &str = "metadata";
/// Ways of VMs.
pub const VM_WAYS: [(&str, End, End); 4] = [
    ("host to kvm", End::Host, End::Pod("kvm")),
    ("host to firecracker", End::Host, End::Firecracker),
    ("kvm to kvm", End::Pod("kvm"), End::Pod("kvm")),
    ("firecracker to firecracker", End::Firecracker, End::Firecracker),
];

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
    with_bridge(bench, || {
        let starts = starts(bench)?;
        let metadata_ms = metadata::measure(bench, &["nspawn"])?;
        Ok(Network { ways: ways::measure(bench, &ways, AMOUNT, |_| Ok(()))?, metadata_ms, ..starts })
    })
}

/// Measures the same of VMs, and writes down what there is after each round. Where the emulation's clock counts instructions, guests take
/// some interrupts twice, and the more there are the sooner they stand still for good: it takes several boots (`boots`), in each of which
/// only some is `wanted`, by the names of ways.
pub fn measure_vms(bench: &Bench, wanted: &[PathBuf]) -> Result<(), Error> {
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == Path::new(name));
    let known = VM_WAYS.iter().map(|(name, ..)| *name).chain([METADATA]);
    if known.filter(|name| is_wanted(name)).count() != wanted.len() {
        return Err(format!("not all of {wanted:?} is known").into());
    }
    let ways: Vec<_> = VM_WAYS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    with_bridge(bench, || {
        let note = |ways: &[Way]| boots::write(&bench.output, ways, &Vec::new());
        let ways = ways::measure(bench, &ways, AMOUNT_OF_VMS, note)?;
        let isolations: &[_] = if is_wanted(METADATA) { &["nspawn", "kvm"] } else { &[] };
        boots::write(&bench.output, &ways, &metadata::measure(bench, isolations)?)
    })
}

/// Starts pods of namespaces with networks and without, after a round to warm up.
fn starts(bench: &Bench) -> Result<Network, Error> {
    let mut network = Network::default();
    for round in 0..=STARTS {
        let start = |net: &str| {
            settle();
            time_ms(&mut pod(bench, "nspawn", &[net], &["/bin/true"]))
        };
        let (host, none, with_nothing) =
            (start("--net=host")?, start("--net=none")?, start("--net=nothing")?);
        let nothing_ms = plugin(bench, "nothing", "ADD", FREE)? + plugin(bench, "nothing", "DEL", FREE)?;
        let bridge_ms = plugin(bench, "bridge", "DEL", FREE)? + plugin(bench, "bridge", "ADD", FREE)?;
        bench.collect_garbage()?;
        settle();
        let namespace_ms = namespace_ms()?;
        if round > 0 {
            network.namespace_ms.push(namespace_ms);
            network.none_ms.push(none - host);
            network.bridge_ms.push(bridge_ms);
            network.nothing_ms.push(nothing_ms);
            network.beyond_plugin_ms.push(with_nothing - none - nothing_ms);
        }
    }
    let Network { none_ms, namespace_ms, bridge_ms, nothing_ms, beyond_plugin_ms, .. } = &network;
    tell("--net=none, the kernel by itself", &format!("{none_ms:.2?}, {namespace_ms:.2?} ms"));
    tell("the plugins", &format!("{bridge_ms:.2?}, {nothing_ms:.2?} ms"));
    tell("beyond", &format!("{beyond_plugin_ms:.2?} ms"));
    Ok(network)
}

fn namespace_ms() -> Result<f64, Error> {
    let thread = std::thread::spawn(|| {
        let begin = Instant::now();
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
        net::loopback_up().map_err(|error| error.to_string())?;
        Ok(begin.elapsed())
    });
    let elapsed: Result<Duration, String> = thread.join().map_err(|_| "the thread panicked")?;
    Ok(elapsed?.as_secs_f64() * 1000.0)
}

impl Network {
    /// What was measured of starts: what it is called, for people and for programs.
    pub fn starts(&self) -> [(&'static str, &'static str, Option<Summary>); 5] {
        [
            ("--net=none, beyond --net=host", "net_none_ms", Summary::of(&self.none_ms)),
            ("  the kernel's own work for that, by itself", "namespace_ms", Summary::of(&self.namespace_ms)),
            ("plugin bridge by itself, ADD and DEL", "bridge_ms", Summary::of(&self.bridge_ms)),
            ("plugin without work by itself", "nothing_ms", Summary::of(&self.nothing_ms)),
            ("  a network of it, beyond both", "beyond_plugin_ms", Summary::of(&self.beyond_plugin_ms)),
        ]
    }

    /// Each of [`PEERS`] whose way was measured: its stream and its round trip in the peer's units, unless there is no such peer here.
    pub fn ratios(&self) -> impl Iterator<Item = ([&'static str; 3], Option<[Option<Summary>; 2]>)> {
        let way = |name| self.ways.iter().find(|way| way.name == name);
        PEERS.into_iter().filter_map(move |peer| {
            let [ours, theirs, _] = peer;
            let ours = way(ours)?;
            Some((peer, way(theirs).map(|theirs| ours.of(theirs))))
        })
    }
}
