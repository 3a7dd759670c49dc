//! Reads a file for the benchmark, in a pod: its first half in pages in a random order, its second half in MiB from beginning to end.
//!
//!     reader FILE
//!
//! Prints a line for each half: `random` or `sequential`, the bytes, the nanoseconds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Instant;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// An odd number: its multiples, modulo a power of two, are all numbers below that, in no order that a kernel would expect.
const STRIDE: u64 = 0x9e37_79b1;

/// Reads a block of `buffer` at each offset, and prints how long that took.
fn read(
    name: &str,
    file: &File,
    buffer: &mut [u8],
    offsets: impl Iterator<Item = u64>,
) -> std::io::Result<()> {
    let (begin, mut bytes) = (Instant::now(), 0);
    for offset in offsets {
        file.read_exact_at(buffer, offset)?;
        bytes += buffer.len();
    }
    println!("{name} {bytes} {}", begin.elapsed().as_nanos());
    Ok(())
}

fn run(path: &str) -> std::io::Result<()> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    // The largest power of two that is in each half.
    let pages = 1_u64 << (size / 2 / PAGE).max(1).ilog2();
    let random = (0..pages).map(|index| index.wrapping_mul(STRIDE) % pages * PAGE);
    read("random", &file, &mut [0; PAGE as usize], random)?;
    let blocks = size / 2 / MIB;
    read("sequential", &file, &mut vec![0; MIB as usize], (blocks..2 * blocks).map(|block| block * MIB))
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: reader FILE");
        return ExitCode::FAILURE;
    };
    match run(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reader: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}
