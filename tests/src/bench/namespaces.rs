//! A pod of namespaces beside other runtimes' containers: busybox's /bin/true, from start to exit, in turn in one boot.
//!
//! All get the same namespaces, root and limits. What differs: rkt puts a writable layer over the image (an overlay),
//! and imports and records the image; runc and crun run a root that is there as a tree, read-only.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::measure::{Summary, run, time_ms};
use crate::sleeping::{Idle, SleepingPod};
use crate::{Bench, Error};

/// What rkt is compared with; both are Debian packages.
pub const PEERS: [&str; 2] = ["crun", "runc"];

const ROUNDS: usize = 15;
/// An app's limits by default.
const MEMORY_BYTES: u64 = 512 << 20;
const CPU_PERIOD_US: u64 = 100_000;

/// The milliseconds of each round.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Of rkt.
    pub rkt: Vec<f64>,
    /// Of rkt with a user namespace of the pod's own. The peers have none.
    pub private_users: Vec<f64>,
    /// Of each of [`PEERS`].
    pub peers: [Vec<f64>; PEERS.len()],
}

impl Rounds {
    /// What rkt takes for each unit of a peer's time, pair by pair.
    pub fn ratio(&self, peer: &[f64]) -> Option<Summary> {
        ratio(&self.rkt, peer)
    }

    /// The same with a user namespace.
    pub fn private_users_ratio(&self, peer: &[f64]) -> Option<Summary> {
        ratio(&self.private_users, peer)
    }
}

fn ratio(rkt: &[f64], peer: &[f64]) -> Option<Summary> {
    let ratios: Vec<f64> = rkt.iter().zip(peer).map(|(rkt, peer)| rkt / peer).collect();
    Summary::of(&ratios)
}

/// What a pod costs that sleeps.
pub fn idle(bench: &Bench) -> Result<Idle, Error> {
    let pod = SleepingPod::start(bench, "nspawn", &[])?;
    let idle = pod.watch();
    pod.stop()?;
    bench.collect_garbage()?;
    idle
}

/// Times all of them in turn, after a round to warm up.
pub fn compare(bench: &Bench) -> Result<Rounds, Error> {
    let bundle = bench.work.join("bundle");
    make_bundle(&bench.images, &bundle)?;
    let mut rounds = Rounds::default();
    for round in 0..=ROUNDS {
        let rkt = |options: &[&str]| time_ms(&mut bench.run_busybox("nspawn", options, &[], &["/bin/true"]));
        let (shared, private) = (rkt(&[])?, rkt(&["--private-users"])?);
        let mut peers = [0.0; PEERS.len()];
        for (time, peer) in peers.iter_mut().zip(PEERS) {
            let mut command = Command::new(peer);
            command.arg("run").arg("--bundle").arg(&bundle).arg(format!("bench-{round}"));
            *time = time_ms(&mut command)?;
        }
        bench.collect_garbage()?;
        if round > 0 {
            rounds.rkt.push(shared);
            rounds.private_users.push(private);
            rounds.peers.iter_mut().zip(peers).for_each(|(times, time)| times.push(time));
        }
    }
    Ok(rounds)
}

/// An OCI bundle of busybox's root, with the runtime's own defaults for all else.
fn make_bundle(images: &Path, bundle: &Path) -> Result<(), Error> {
    fs::create_dir_all(bundle)?;
    run(Command::new("runc").arg("spec").arg("--bundle").arg(bundle))?;
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let replacements = [
        ("/process/terminal", json!(false)),
        ("/process/args", json!(["/bin/true"])),
        ("/root/path", json!(images.join("rootfs"))),
    ];
    for (pointer, value) in replacements {
        *config.pointer_mut(pointer).ok_or_else(|| format!("`runc spec` writes no {pointer}"))? = value;
    }
    let resources = config.pointer_mut("/linux/resources").and_then(Value::as_object_mut);
    let resources = resources.ok_or("`runc spec` writes no /linux/resources")?;
    resources.insert("memory".into(), json!({ "limit": MEMORY_BYTES }));
    resources.insert("cpu".into(), json!({ "quota": CPU_PERIOD_US, "period": CPU_PERIOD_US }));
    Ok(fs::write(&path, serde_json::to_vec(&config)?)?)
}
