//! Tells what becomes of system calls in a pod, by its filter alone: none of them is carried out.
//!
//!     calls [i386:]FIRST[-LAST][=ARGUMENT]...
//!
//! For each number a line: the number as it was asked for, then `allowed`, `errno N` or `killed SIGNAL`.

mod probe;
mod tracer;

use std::io::Write;
use std::process::ExitCode;

use probe::{Call, Shared};

/// The calls of one argument, each with the words that stand for it.
fn parse(text: &str) -> Option<Vec<(String, Call)>> {
    let (is_i386, rest) = text.strip_prefix("i386:").map_or((false, text), |rest| (true, rest));
    let (numbers, argument) = match rest.split_once('=') {
        Some((numbers, argument)) => (numbers, argument.parse().ok()?),
        None => (rest, 0),
    };
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let numbers = first.parse().ok()?..=last.parse().ok()?;
    let words = |number| {
        if first == last { text.to_owned() } else { format!("{number}") }
    };
    Some(numbers.map(|number: u64| (words(number), Call { is_i386, number, argument })).collect())
}

fn run(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut calls = Vec::new();
    for text in arguments {
        calls.extend(parse(&text).ok_or_else(|| format!("\"{text}\" is no call"))?);
    }
    let (words, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let shared = Shared::new(calls.len()).map_err(|error| format!("memory: {error}"))?;
    tracer::probe(&calls, &shared).map_err(|error| format!("tracing: {error}"))?;
    let lines: String =
        words.iter().zip(shared.verdicts()).map(|(words, verdict)| format!("{words} {verdict}\n")).collect();
    std::io::stdout().write_all(lines.as_bytes()).map_err(|error| format!("output: {error}"))
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("calls: {error}");
            ExitCode::FAILURE
        }
    }
}
