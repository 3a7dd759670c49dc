//! When what happened in a machine's life, for the benchmark's table of phases.

use std::sync::Mutex;

use nix::time::{ClockId, clock_gettime};

/// How many marks are kept; a guest can write as many as it likes.
const MARKS_MAX: usize = 64;

/// A point in a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The machine is built: memory, processors and devices are there, nothing runs.
    Built,
    /// The first processor is about to enter the kernel.
    KernelEntry,
    /// The guest wrote this byte to the [mark port](crate::layout::MARK_PORT).
    Guest(u8),
}

/// A phase and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What began.
    pub phase: Phase,
    /// `CLOCK_MONOTONIC` in nanoseconds, which other processes on the host can compare with their own.
    pub monotonic_ns: u64,
}

/// The marks of one machine, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Timeline {
    marks: Mutex<Vec<Mark>>,
}

impl Timeline {
    /// Records that `phase` begins now. After the first 64 marks further ones are dropped.
    pub fn record(&self, phase: Phase) {
        let monotonic_ns = now();
        let Ok(mut marks) = self.marks.lock() else { return };
        if marks.len() < MARKS_MAX {
            marks.push(Mark { phase, monotonic_ns });
        }
    }

    /// The marks so far.
    pub fn marks(&self) -> Vec<Mark> {
        self.marks.lock().map(|marks| marks.clone()).unwrap_or_default()
    }
}

fn now() -> u64 {
    // The clock is always there; were it not, the marks would all be zero.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let (seconds, nanoseconds) = (time.tv_sec().max(0) as u64, time.tv_nsec().max(0) as u64);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_their_order_and_their_number_is_bounded() {
        let timeline = Timeline::default();
        timeline.record(Phase::Built);
        for byte in 0..=255 {
            timeline.record(Phase::Guest(byte));
        }
        let marks = timeline.marks();
        assert_eq!(marks.len(), MARKS_MAX);
        assert_eq!(marks[0].phase, Phase::Built);
        assert_eq!(marks[2].phase, Phase::Guest(1));
        assert!(marks.windows(2).all(|pair| pair[0].monotonic_ns <= pair[1].monotonic_ns));
    }
}
