//! Tells whether this host can run a machine, and how long it took to find out.

use std::time::Instant;

fn main() {
    let start = Instant::now();
    let answer = vmm::probe::preflight().map(drop);
    let elapsed_us = start.elapsed().as_micros();
    match answer {
        Ok(()) => println!("this host can run machines ({elapsed_us} us)"),
        Err(problem) => println!("{problem} ({elapsed_us} us): {problem:?}"),
    }
}
