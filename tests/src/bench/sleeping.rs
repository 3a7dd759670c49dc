//! A pod that sleeps, for what is measured of idle pods.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::memory::{Resident, of_process};
use crate::patience::{REPEATS, first_line};
use crate::{Bench, Error};

/// What such a pod runs.
pub const SLEEPS: [&str; 3] = ["/bin/sh", "-c", "echo ready; exec sleep 1000"];
/// How long an idle pod is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// A pod whose app has said that it runs and sleeps now.
#[derive(Debug)]
pub struct SleepingPod {
    parent: Child,
}

/// What an idle pod of namespaces costs.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// The memory of the pod's PID 1.
    pub supervisor: Resident,
    /// How often the pod's parent and its supervisor ran, all their threads together, in a second.
    pub wake_ups_a_second: f64,
}

impl SleepingPod {
    /// Starts busybox's sleep in a pod, with the options of its app.
    pub fn start(bench: &Bench, isolation: &str, app: &[&str]) -> Result<Self, Error> {
        Self::of(&mut bench.run_busybox(isolation, &[], app, &SLEEPS))
    }

    /// The same of any program that says "ready".
    pub fn of(command: &mut Command) -> Result<Self, Error> {
        for _ in 0..REPEATS {
            let mut pod = Self { parent: command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()? };
            let mut stdout = pod.parent.stdout.take().ok_or("no standard output")?;
            match first_line(&mut stdout)?.as_deref() {
                Some("ready\n") => return Ok(pod),
                None => pod.kill()?,
                Some(_) => {
                    pod.kill()?;
                    break;
                }
            }
        }
        Err("the pod that was to be measured did not start".into())
    }

    /// The process that was started, which rkt's stage1 became by exec.
    pub fn parent(&self) -> u32 {
        self.parent.id()
    }

    /// The only child of the pod's parent: its supervisor, or its VMM.
    pub fn child(&self) -> Result<u32, Error> {
        let parent = self.parent();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        match children.split_whitespace().collect::<Vec<_>>().as_slice() {
            [child] => Ok(child.parse()?),
            _ => Err(format!("the pod's parent has these children: {children}").into()),
        }
    }

    /// Watches a pod of namespaces for some seconds.
    pub fn watch(&self) -> Result<Idle, Error> {
        let supervisor = self.child()?;
        let runs = || -> Result<u64, Error> { Ok(times_run(self.parent())? + times_run(supervisor)?) };
        // What comes after the start is no wake-up.
        sleep(Duration::from_secs(1));
        let before = runs()?;
        sleep(WATCHED);
        let wake_ups_a_second = (runs()? - before) as f64 / WATCHED.as_secs_f64();
        Ok(Idle { supervisor: of_process(supervisor)?, wake_ups_a_second })
    }

    /// Ends it at once, as one has to be that stands still.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.parent.kill()?;
        self.parent.wait()?;
        Ok(())
    }

    /// Ends it, and waits for its end.
    pub fn stop(mut self) -> Result<(), Error> {
        kill(Pid::from_raw(self.parent().try_into()?), Signal::SIGTERM)?;
        self.parent.wait()?;
        Ok(())
    }
}

/// How often the threads of a process left the processor until now.
fn times_run(process: u32) -> Result<u64, Error> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        sum += context_switches(&fs::read_to_string(thread?.path().join("status"))?);
    }
    Ok(sum)
}

/// Of both kinds, from a thread's `status`.
fn context_switches(status: &str) -> u64 {
    let switches = |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok();
    status.lines().filter_map(switches).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_context_switches_count() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(context_switches(status), 15);
    }

    #[test]
    fn a_pod_that_does_not_start_is_an_error() {
        assert!(SleepingPod::of(Command::new("echo").arg("unready")).is_err());
    }
}
