//! Where the time of a VM pod goes, and what memory its VMM takes.

use std::time::Instant;

use crate::measure::{Summary, run};
use crate::memory::{Resident, beyond_guest, of_process};
use crate::sleeping::SleepingPod;
use crate::{Bench, Error, timeline};

const RUNS: usize = 5;
/// What a pod gets that says nothing.
const DISK_BYTES: u64 = 8 << 30;
/// A guest of 128 MiB, which is what other VMMs are measured with; rkt adds what the guest's kernel takes.
const MEMORY: &[&str] = &["--memory=78Mi"];

/// What was measured of VM pods.
#[derive(Debug)]
pub struct Vm {
    /// Each mark of the timeline, in the order of the first run, and the milliseconds to it since the start.
    pub marks: Vec<(String, Summary)>,
    /// The milliseconds that formatting its disk takes, each time.
    pub format_ms: Vec<f64>,
    /// The VMM's memory without the guest's, while the pod sleeps.
    pub vmm: Resident,
    /// That of the pod's parent; they share the program.
    pub parent: Resident,
}

/// Runs busybox's /bin/true some times after once to warm up, then looks at a pod that sleeps.
pub fn measure(bench: &Bench) -> Result<Vm, Error> {
    let mut runs = Vec::new();
    for round in 0..=RUNS {
        let output = run(&mut bench.run_busybox("kvm", &["--timeline"], MEMORY, &["/bin/true"]))?;
        if round > 0 {
            runs.push(timeline::parse(&String::from_utf8_lossy(&output.stderr)));
        }
        bench.collect_garbage()?;
    }
    let (vmm, parent) = resident(bench)?;
    Ok(Vm { marks: summarise(&runs), format_ms: format_ms(bench)?, vmm, parent })
}

/// Formats disks of the size that pods have, where their directories are.
fn format_ms(bench: &Bench) -> Result<Vec<f64>, Error> {
    let time = |_| {
        let file = tempfile::tempfile_in(&bench.work)?;
        let begin = Instant::now();
        scratch::format(&file, DISK_BYTES, [7; 16])?;
        Ok(begin.elapsed().as_secs_f64() * 1000.0)
    };
    (0..RUNS).map(time).collect()
}

/// The marks that every run has made.
fn summarise(runs: &[Vec<(String, f64)>]) -> Vec<(String, Summary)> {
    let times = |name: &str| -> Option<Vec<f64>> {
        runs.iter().map(|run| run.iter().find(|mark| mark.0 == name).map(|mark| mark.1)).collect()
    };
    let names = runs.first().into_iter().flatten().map(|mark| &mark.0);
    names.filter_map(|name| Some((name.clone(), Summary::of(&times(name)?)?))).collect()
}

/// The VMM, which is the only child of the pod's parent, and that.
fn resident(bench: &Bench) -> Result<(Resident, Resident), Error> {
    let pod = SleepingPod::start(bench, "kvm", MEMORY)?;
    let read = || -> Result<(Resident, Resident), Error> {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", pod.child()?))?;
        Ok((beyond_guest(&smaps), of_process(pod.parent())?))
    };
    let resident = read();
    pod.stop()?;
    bench.collect_garbage()?;
    resident
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_a_run_lacks_are_left_out() {
        let run = |marks: &[(&str, f64)]| marks.iter().map(|mark| (mark.0.to_owned(), mark.1)).collect();
        let runs =
            [run(&[("start", 0.0), ("init", 3.0), ("odd", 4.0)]), run(&[("start", 0.0), ("init", 5.0)])];
        let marks = summarise(&runs);
        assert_eq!(marks.len(), 2);
        assert_eq!(marks[1], ("init".to_owned(), Summary { median: 3.0, min: 3.0, max: 5.0 }));
    }
}
