//! Time stamps that nothing comes between, and what is told of several measurements.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// In which the kernel takes apart what has ended: its namespaces and cgroups.
const SETTLED: Duration = Duration::from_millis(50);

/// Waits for that, which would be counted with what comes next.
pub fn settle() {
    std::thread::sleep(SETTLED);
}

/// Makes this process run before all others as soon as it can run, so that it takes its time stamps at once. The
/// processes that it starts are ordinary ones.
pub fn become_real_time() -> Result<(), Error> {
    let parameter = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the call reads the parameter, which lives until it returns.
    let result = unsafe { libc::sched_setscheduler(0, policy, &parameter) };
    nix::errno::Errno::result(result)
        .map_err(|errno| format!("cannot become a real-time process: {errno}"))?;
    Ok(())
}

/// Runs a command to its end, without input; an error unless it succeeds.
pub fn run(command: &mut Command) -> Result<Output, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{text}", output.status).into());
    }
    Ok(output)
}

/// The milliseconds from a command's start to its end; an error unless it succeeds.
pub fn time_ms(command: &mut Command) -> Result<f64, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let begin = Instant::now();
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    let elapsed = begin.elapsed();
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(elapsed.as_secs_f64() * 1000.0)
}

/// What several measurements come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle one; of an even number, the lower.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Summary {
    /// Of these measurements, in any order; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()? })
    }

    /// For the JSON file.
    pub fn json(self) -> serde_json::Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        serde_json::json!({ "median": round(self.median), "min": round(self.min), "max": round(self.max) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Summary::of(&[4.0, 1.0]).unwrap().median, 1.0);
    }

    #[test]
    fn a_failing_command_is_no_measurement() {
        assert!(time_ms(&mut Command::new("false")).is_err());
        assert!(time_ms(&mut Command::new("true")).unwrap() > 0.0);
    }
}
