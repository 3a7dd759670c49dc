//! Marks for `--timeline` (stage1 ABI, [`pod::abi::ENV_TIMELINE`]).

use nix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC, which every stage shares.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    now.0.unsigned_abs() * 1_000_000 + now.1.unsigned_abs() / 1000
}

/// The marks of stage0: `rkt`, its first instruction, `images`, when all images were in the store, and `exec`, just
/// before it becomes the stage1.
pub fn marks(started: u64, images: u64, exec: u64) -> String {
    format!("rkt={started},images={images},exec={exec}")
}
