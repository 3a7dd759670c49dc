//! Crashes at every point: a command runs as often as it makes a system call that changes something, and is killed just before
//! another one each time (`tests/src/crash`). Whatever it leaves, `rkt gc` and `rkt image gc` clean up, and the store is whole.

mod pods;
mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

use crate::harness::{Finished, Host, Process, effort};

/// `tests/src/crash`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_crash");

/// Whose system calls are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// The process that the user has started.
    First,
    /// It, and all that come from it.
    All,
}

/// How many of the points are tried.
#[derive(Clone, Copy)]
pub enum Points {
    /// All, or where everything is emulated, every tenth.
    All,
    /// So many, evenly spread.
    Some(usize),
}

impl Points {
    fn choose(self, all: usize) -> Vec<usize> {
        let count = match self {
            Self::All => effort(all, all.div_ceil(10)),
            Self::Some(count) => count.min(all),
        };
        (0..count).map(|index| 1 + index * all / count).collect()
    }
}

/// Something that is done, and may end anywhere.
pub struct Scenario<'a> {
    /// For the report.
    pub name: &'a str,
    pub victims: Victims,
    pub points: Points,
}

impl Scenario<'_> {
    /// Does once to its end what `begin` makes ready, and then with a crash at each point. Each time the outcome is examined.
    pub fn crash<T>(&self, begin: impl Fn() -> (T, Command), examine: impl Fn(T, &str)) {
        let (world, command) = begin();
        let calls = self.run(&command, None);
        examine(world, &format!("{}: no crash", self.name));
        let points = self.points.choose(calls.len());
        for point in &points {
            let (world, command) = begin();
            self.run(&command, Some(*point));
            let call = calls.get(point - 1).map_or("", String::as_str);
            examine(world, &format!("{}: crash at {point} of {}, {call}", self.name, calls.len()));
        }
        println!("{}: {} kill points of {}", self.name, points.len(), calls.len());
        assert!(!points.is_empty());
    }

    /// Runs the command, up to a point; returns the calls that it was about to make.
    fn run(&self, command: &Command, point: Option<usize>) -> Vec<String> {
        let file = NamedTempFile::new().unwrap();
        let finished = Process::start(&mut self.traced(command, file.path(), point)).finish();
        match (point, finished.code) {
            (None, 0) | (Some(_), 0 | 1) => {
                fs::read_to_string(file.path()).unwrap().lines().map(str::to_owned).collect()
            }
            _ => panic!("{}: {finished:?}", self.name),
        }
    }

    fn traced(&self, command: &Command, calls: &Path, point: Option<usize>) -> Command {
        let mut traced = Command::new(PROGRAM);
        if self.victims == Victims::All {
            traced.arg("--follow");
        }
        traced.args(point.map(|point| format!("--at={point}")));
        traced.arg(calls).arg(command.get_program()).args(command.get_args());
        traced
    }
}

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

/// What must hold after a crash.
fn examine(host: Host, when: &str) {
    println!("{when}");
    host.leaves_nothing();
    let store = host.path().join("cas");
    assert_eq!(files(&store.join("tmp")), Vec::<PathBuf>::new(), "{when}");
    for image in fs::read_dir(store.join("images")).into_iter().flatten() {
        let id = image.unwrap().file_name().to_string_lossy().into_owned();
        rkt(&host, &["image", "verify", &id]).success();
    }
    rkt(&host, &["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(files(&store), Vec::<PathBuf>::new(), "{when}");
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
