//! The benchmark: `rkt` beside other runtimes, and where the time and memory of a VM pod go. `tests/bench` runs it where
//! the clock counts instructions, so that its figures repeat within a few percent on any machine.
//!
//!     bench fetch RKT WORK FETCH.json
//!     bench RKT IMAGES WORK FETCH.json OUTPUT.json
//!
//! The first is for where the clock is that of the machine, WORK a directory of the disk. Of the second IMAGES is what `tests/images` has
//! built, WORK a directory on a tmpfs, and FETCH.json what the first has written.

mod aci;
mod crowd;
mod fetch;
mod measure;
mod memory;
mod namespaces;
mod network;
mod reading;
mod report;
mod sleeping;
mod timeline;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use fetch::Fetch;

/// What goes wrong here is for a person to read.
type Error = Box<dyn std::error::Error>;

/// What is measured, and where.
#[derive(Debug)]
struct Bench {
    rkt: PathBuf,
    images: PathBuf,
    work: PathBuf,
    fetch: PathBuf,
    output: PathBuf,
}

impl Bench {
    fn from_arguments(arguments: &[PathBuf]) -> Result<Self, Error> {
        let [rkt, images, work, fetch, output] = arguments else {
            return Err("usage: bench RKT IMAGES WORK FETCH.json OUTPUT.json".into());
        };
        let [rkt, images, work, fetch, output] = [rkt, images, work, fetch, output].map(PathBuf::clone);
        Ok(Self { rkt, images, work, fetch, output })
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
        let namespaces = namespaces::compare(self)?;
        let (idle, vm, reading) = (namespaces::idle(self)?, vm::measure(self)?, reading::measure(self)?);
        let network = network::measure(self)?;
        // What it makes is left, and would be in the others' way.
        let crowd = crowd::measure(self)?;
        let fetch = Fetch::read(&self.fetch)?;
        let results = Results { namespaces, idle, crowd, fetch, vm, reading, network };
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
    crowd: crowd::Crowd,
    fetch: Fetch,
    vm: vm::Vm,
    reading: reading::Reading,
    network: network::Network,
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let result = match arguments.as_slice() {
        [word, rkt, work, result] if word == Path::new("fetch") => {
            Fetch::measure(rkt, work).and_then(|fetch| fetch.write(result))
        }
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
