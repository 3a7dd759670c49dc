//! The benchmark: `rkt` beside other runtimes, and where the time and memory of a VM pod go. `tests/bench` runs it where
//! the clock counts instructions, so that its figures repeat within a few percent on any machine.
//!
//!     bench by-clock RKT IMAGES WORK CLOCK.json
//!     bench RKT IMAGES WORK CLOCK.json OUTPUT.json [PART...]
//!     bench network-vm RKT IMAGES WORK BOOT.json WAY...
//!     bench join OUTPUT.json BOOT.json...
//!
//! IMAGES is what `tests/images` has built. The first is for where the clock is that of the machine, WORK a directory of the disk. Of the
//! others WORK is a directory on a tmpfs, and CLOCK.json what the first has written. A PART is one of namespaces, vm, reading, network, crowd
//! and by-clock; without any, it is all of them. The third measures networks of VMs in one boot of the machine, the last tells what
//! several boots have measured.

mod aci;
mod boots;
mod bridge;
mod by_clock;
mod crowd;
mod ends;
mod fetch;
mod firecracker;
mod measure;
mod memory;
mod metadata;
mod namespaces;
mod network;
mod patience;
mod reading;
mod report;
mod sleeping;
mod timeline;
mod tools;
mod vm;
mod ways;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use by_clock::ByClock;

/// What goes wrong here is for a person to read.
type Error = Box<dyn std::error::Error>;

/// What is measured, and where.
#[derive(Debug)]
struct Bench {
    rkt: PathBuf,
    images: PathBuf,
    work: PathBuf,
    by_clock: PathBuf,
    output: PathBuf,
    /// What is wanted; all of it, if this is nothing.
    parts: Vec<PathBuf>,
}

impl Bench {
    fn from_arguments(arguments: &[PathBuf]) -> Result<Self, Error> {
        let [rkt, images, work, by_clock, output, parts @ ..] = arguments else {
            return Err("usage: bench RKT IMAGES WORK CLOCK.json OUTPUT.json [PART...]".into());
        };
        if let Some(unknown) = parts.iter().find(|part| PARTS.iter().all(|known| Path::new(known) != *part)) {
            return Err(format!("no part \"{}\"; there are {}", unknown.display(), PARTS.join(", ")).into());
        }
        let [rkt, images, work, by_clock, output] = [rkt, images, work, by_clock, output].map(PathBuf::clone);
        Ok(Self { rkt, images, work, by_clock, output, parts: parts.to_vec() })
    }

    /// Measures a part, if it is wanted.
    fn part<T>(
        &self,
        name: &str,
        measure: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let is_chosen = self.parts.iter().any(|part| part == Path::new(name));
        let wanted = is_chosen || self.parts.is_empty();
        wanted.then(|| measure(self)).transpose()
    }

    fn rkt(&self) -> Command {
        Self::rkt_in(&self.rkt, &self.work.join("rkt"))
    }

    /// This rkt with a data directory.
    fn rkt_in(rkt: &Path, data: &Path) -> Command {
        let mut command = Command::new(rkt);
        command.arg(format!("--dir={}", data.display())).arg("--insecure-options=image");
        command
    }

    /// busybox in a pod of `isolation`, with further options of `run` and of the app.
    fn run_busybox(&self, isolation: &str, options: &[&str], app: &[&str], exec: &[&str]) -> Command {
        let mut command = self.rkt();
        command
            .args(["run", "--stage1", isolation])
            .args(options)
            .arg(self.images.join("busybox.aci"))
            .args(app);
        if let Some((program, arguments)) = exec.split_first() {
            command.arg(format!("--exec={program}")).arg("--").args(arguments);
        }
        command
    }

    /// Removes finished pods, which is not timed.
    fn collect_garbage(&self) -> Result<(), Error> {
        measure::run(self.rkt().args(["gc", "--grace-period=0s"])).map(drop)
    }

    fn run(&self) -> Result<(), Error> {
        measure::become_real_time()?;
        let results = Results {
            namespaces: self
                .part("namespaces", |bench| Ok((namespaces::compare(bench)?, namespaces::idle(bench)?)))?,
            vm: self.part("vm", vm::measure)?,
            reading: self.part("reading", reading::measure)?,
            network: self.part("network", network::measure)?,
            network_vm: None,
            // What it makes is left, and would be in the others' way.
            crowd: self.part("crowd", crowd::measure)?,
            by_clock: self.part(BY_CLOCK, |bench| ByClock::read(&bench.by_clock))?,
        };
        results.tell(&self.output)
    }
}

/// Measures networks of VMs in one boot of the machine.
fn boot(rkt: &Path, images: &Path, work: &Path, output: &Path, wanted: &[PathBuf]) -> Result<(), Error> {
    measure::become_real_time()?;
    let [rkt, images, work, output] = [rkt, images, work, output].map(Path::to_owned);
    let bench = Bench { rkt, images, work, by_clock: PathBuf::new(), output, parts: Vec::new() };
    network::measure_vms(&bench, wanted)
}

/// Tells what several boots have measured.
fn join(output: &Path, boots: &[PathBuf]) -> Result<(), Error> {
    Results { network_vm: Some(boots::join(boots)?), ..Results::default() }.tell(output)
}

/// Shows how far the benchmark is, which takes its time.
fn tell(what: &str, figures: &str) {
    eprintln!("bench: {what}: {figures}");
}

/// The parts, by name.
const PARTS: [&str; 6] = ["namespaces", "vm", "reading", "network", "crowd", BY_CLOCK];
const NETWORK_VM: &str = "network-vm";
const JOIN: &str = "join";
const BY_CLOCK: &str = "by-clock";

/// What was measured.
#[derive(Debug, Default)]
struct Results {
    namespaces: Option<(namespaces::Rounds, sleeping::Idle)>,
    crowd: Option<crowd::Crowd>,
    by_clock: Option<ByClock>,
    vm: Option<vm::Vm>,
    reading: Option<reading::Reading>,
    network: Option<network::Network>,
    network_vm: Option<network::Network>,
}

impl Results {
    /// Prints the table, and writes the same as JSON.
    fn tell(&self, output: &Path) -> Result<(), Error> {
        print!("{}", report::table(self));
        let json = serde_json::to_string_pretty(&report::json(self))?;
        Ok(std::fs::write(output, json + "\n")?)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match arguments.as_slice() {
        [word, rkt, images, work, result] if word == Path::new(BY_CLOCK) => {
            ByClock::measure(rkt, images, work).and_then(|measured| measured.write(result))
        }
        [word, rkt, images, work, result, wanted @ ..] if word == Path::new(NETWORK_VM) => {
            boot(rkt, images, work, result, wanted)
        }
        [word, output, boots @ ..] if word == Path::new(JOIN) => join(output, boots),
        arguments => Bench::from_arguments(arguments).and_then(|bench| bench.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
