//! Runs a command, and kills one of its processes just before it makes a certain system call: what a crash at that point would
//! leave. Of the calls those count that change something.
//!
//!     crash [--follow] [--at=N] CALLS PROGRAM [ARGUMENTS...]
//!
//! N counts from 1, over all processes with `--follow`, else over the first one. The calls that were seen are written to
//! the file CALLS, a name each line. Exit status: 0 if nothing was killed, 1 if the N-th was, 2 if this program fails.

#![allow(clippy::print_stderr, reason = "what is wrong is for a person to read")]

mod calls;
mod tracer;

use std::ffi::CString;
use std::process::ExitCode;

type Error = Box<dyn std::error::Error>;

/// What to run, and what is to become of it.
#[derive(Debug)]
pub struct Plan {
    /// Its children are traced, too.
    pub follow: bool,
    /// The number of the call that is not made.
    pub kill_at: Option<usize>,
    /// The file for the calls' names.
    calls: String,
    /// The program.
    pub program: CString,
    /// Its arguments, its name first.
    pub arguments: Vec<CString>,
}

impl Plan {
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut arguments = arguments.peekable();
        let follow = arguments.next_if(|word| word == "--follow").is_some();
        let kill_at = arguments.next_if(|word| word.starts_with("--at="));
        let kill_at = kill_at.map(|word| word.trim_start_matches("--at=").parse()).transpose()?;
        let usage = "usage: crash [--follow] [--at=N] CALLS PROGRAM [ARGUMENTS...]";
        let calls = arguments.next().ok_or(usage)?;
        let arguments = arguments.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let program = arguments.first().cloned().ok_or(usage)?;
        Ok(Self { follow, kill_at, calls, program, arguments })
    }
}

fn attempt() -> Result<bool, Error> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let seen = tracer::run(&plan)?;
    std::fs::write(&plan.calls, seen.calls.join("\n") + "\n")?;
    Ok(seen.killed)
}

fn main() -> ExitCode {
    match attempt() {
        Ok(killed) => ExitCode::from(u8::from(killed)),
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::from(2)
        }
    }
}
