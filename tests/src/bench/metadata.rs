//! What pods wait for an answer of the metadata service, each question by a connection of its own (`tests/src/sender`).

use std::process::{Child, Stdio};

use crate::bridge::BRIDGE;
use crate::ends::pod;
use crate::patience::{first_line, run_for_a_while};
use crate::{Bench, Error, tell};

const RUNS: usize = 5;
const QUESTIONS: &str = "20";

/// The milliseconds of a question, by the isolation of the pod that asks.
pub type Waited = Vec<(&'static str, Vec<f64>)>;

/// Has pods of these isolations ask, until one stands still (`patience`).
pub fn measure(bench: &Bench, isolations: &[&'static str]) -> Result<Waited, Error> {
    let mut service = Service::start(bench)?;
    let asked = isolations.iter().map(|isolation| Ok((*isolation, waited(bench, isolation)?))).collect();
    service.stop()?;
    asked
}

fn waited(bench: &Bench, isolation: &'static str) -> Result<Vec<f64>, Error> {
    let mut waited = Vec::new();
    let options = [&format!("--net={BRIDGE}"), "--mds-register"];
    while waited.len() <= RUNS {
        match run_for_a_while(&mut pod(bench, isolation, &options, &["/sender", "know", QUESTIONS]))? {
            Some(output) => waited.push(each_ms(&output.stdout)?),
            None => break,
        }
    }
    bench.collect_garbage()?;
    // The first is to warm up.
    let waited = waited.split_off(waited.len().min(1));
    tell("metadata", &format!("{isolation}: {waited:.2?} ms"));
    Ok(waited)
}

/// The sender tells how many questions, and in how many nanoseconds.
fn each_ms(stdout: &[u8]) -> Result<f64, Error> {
    let text = String::from_utf8_lossy(stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(count)), Some(Ok(ns))) => Ok(ns / count / 1e6),
        _ => Err(format!("the sender has said: {text}").into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_told() {
        assert_eq!(each_ms(b"20 30000000\n").unwrap(), 1.5);
        assert!(each_ms(b"20\n").is_err());
    }
}
