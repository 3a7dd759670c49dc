//! The benchmark: `rkt` beside other runtimes, and where the time and memory of a VM pod go. `tests/bench` runs it where
//! the clock counts instructions, so that its figures repeat within a few percent on any machine.
//!
//!     bench RKT IMAGES WORK OUTPUT.json
//!
//! IMAGES is what `tests/images` has built, WORK a directory on a tmpfs.

mod measure;
mod memory;
mod namespaces;
mod network;
mod reading;
mod report;
mod sleeping;
mod timeline;
mod vm;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What goes wrong here is for a person to read.
type Error = Box<dyn std::error::Error>;

/// What is measured, and where.
#[derive(Debug)]
struct Bench {
    rkt: PathBuf,
    images: PathBuf,
    work: PathBuf,
    output: PathBuf,
}

impl Bench {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut next =
            || arguments.next().map(PathBuf::from).ok_or("usage: bench RKT IMAGES WORK OUTPUT.json");
        Ok(Self { rkt: next()?, images: next()?, work: next()?, output: next()? })
    }

    fn rkt(&self) -> Command {
        let mut command = Command::new(&self.rkt);
        command.arg(format!("--dir={}", self.work.join("rkt").display())).arg("--insecure-options=image");
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
        let namespaces = namespaces::compare(self)?;
        let (idle, vm, reading) = (namespaces::idle(self)?, vm::measure(self)?, reading::measure(self)?);
        let network = network::measure(self)?;
        let results = Results { namespaces, idle, vm, reading, network };
        print!("{}", report::table(&results));
        let json = serde_json::to_string_pretty(&report::json(&results))?;
        Ok(std::fs::write(&self.output, json + "\n")?)
    }
}

/// All that was measured.
#[derive(Debug)]
struct Results {
    namespaces: namespaces::Rounds,
    idle: sleeping::Idle,
    vm: vm::Vm,
    reading: reading::Reading,
    network: network::Network,
}

fn main() -> ExitCode {
    match Bench::from_arguments(std::env::args().skip(1)).and_then(|bench| bench.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
