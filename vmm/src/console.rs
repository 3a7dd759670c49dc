//! The guest's console output: the last of it is kept for error messages, all of it can be watched.
//!
//! Everything here is written by the guest: what is kept is bounded, and what is passed on is limited in rate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// How much of the output's end is kept.
const KEPT_BYTES: usize = 16 << 10;
/// How many bytes the sink gets at once before the rate counts.
const BURST_BYTES: u64 = 1 << 20;
/// How many bytes a second the sink gets in the long run.
const BYTES_PER_SECOND: u64 = 256 << 10;
/// How many of the last lines an error message shows.
const LINES_IN_ERRORS: usize = 30;
/// What the kernel says when it gives up.
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// Where console output goes as it comes. It is called on the machine's threads, so it should not block for long.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// The console of one machine; clones are the same console.
#[derive(Clone)]
pub struct ConsoleLog {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    kept: VecDeque<u8>,
    panic_seen: PanicMatcher,
    sink: Option<Sink>,
    allowance: Allowance,
}

impl ConsoleLog {
    /// A console that keeps the end of what it gets, and passes it to `sink` if there is one.
    pub fn new(sink: Option<Sink>) -> Self {
        let inner = Inner {
            kept: VecDeque::new(),
            panic_seen: PanicMatcher::default(),
            sink,
            allowance: Allowance::new(Instant::now()),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Takes output of the guest.
    pub fn write(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.panic_seen.feed(bytes);
        inner.keep(bytes);
        inner.pass_on(bytes, Instant::now());
    }

    /// Adds a line of the machine's own.
    pub fn note(&self, text: &str) {
        self.write(format!("\r\n[vmm] {text}\r\n").as_bytes());
    }

    /// Whether the kernel has announced a panic.
    pub fn panic_seen(&self) -> bool {
        self.lock().panic_seen.found
    }

    /// The last lines, with control characters made harmless for a terminal.
    pub fn last_lines(&self) -> String {
        let inner = self.lock();
        let bytes: Vec<u8> = inner.kept.iter().copied().collect();
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| *c != '\r')
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let first = lines.len().saturating_sub(LINES_IN_ERRORS);
        lines.get(first..).unwrap_or_default().join("\n")
    }

    /// A panic in another thread's sink does not make the text unreadable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ConsoleLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleLog").finish_non_exhaustive()
    }
}

impl Inner {
    fn keep(&mut self, bytes: &[u8]) {
        let tail = bytes.get(bytes.len().saturating_sub(KEPT_BYTES)..).unwrap_or_default();
        let excess = (self.kept.len() + tail.len()).saturating_sub(KEPT_BYTES);
        self.kept.drain(..excess);
        self.kept.extend(tail);
    }

    fn pass_on(&mut self, bytes: &[u8], now: Instant) {
        let Some(sink) = self.sink.as_mut() else { return };
        let (granted, dropped_before) = self.allowance.take(bytes.len() as u64, now);
        if granted == 0 {
            return;
        }
        if dropped_before > 0 {
            sink(format!("\r\n[vmm] {dropped_before} bytes of console output left out\r\n").as_bytes());
        }
        sink(bytes.get(..granted as usize).unwrap_or_default());
    }
}

/// A token bucket of bytes.
struct Allowance {
    bytes: u64,
    refilled: Instant,
    dropped: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { bytes: BURST_BYTES, refilled: now, dropped: 0 }
    }

    /// How many of `wanted` bytes may pass, and how many were dropped since the last that did.
    fn take(&mut self, wanted: u64, now: Instant) -> (u64, u64) {
        let elapsed_ms = now.saturating_duration_since(self.refilled).as_millis().min(60_000) as u64;
        if elapsed_ms > 0 {
            self.bytes = (self.bytes + elapsed_ms * BYTES_PER_SECOND / 1000).min(BURST_BYTES);
            self.refilled = now;
        }
        let granted = wanted.min(self.bytes);
        self.bytes -= granted;
        let dropped_before = if granted > 0 { std::mem::take(&mut self.dropped) } else { 0 };
        self.dropped = self.dropped.saturating_add(wanted - granted);
        (granted, dropped_before)
    }
}

/// Finds the panic message in output that comes in pieces.
#[derive(Default)]
struct PanicMatcher {
    matched: usize,
    found: bool,
}

impl PanicMatcher {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // No proper prefix of the text but "K" is also a suffix of one, so falling back to its start is enough.
            let expected = PANIC.get(self.matched);
            self.matched = match expected {
                Some(expected) if expected == byte => self.matched + 1,
                _ => usize::from(PANIC.first() == Some(byte)),
            };
            if self.matched == PANIC.len() {
                self.found = true;
                self.matched = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_is_kept_and_no_more_than_that() {
        let console = ConsoleLog::new(None);
        for number in 0..10_000 {
            console.write(format!("line {number}\r\n").as_bytes());
        }
        let lines = console.last_lines();
        assert_eq!(lines.lines().count(), LINES_IN_ERRORS);
        assert!(lines.ends_with("line 9999"));
        console.write(&vec![b'x'; 3 * KEPT_BYTES]);
        assert_eq!(console.lock().kept.len(), KEPT_BYTES);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal_through_errors() {
        let console = ConsoleLog::new(None);
        console.write(b"\x1b[2Jhello\xff\n");
        assert_eq!(console.last_lines(), "\u{fffd}[2Jhello\u{fffd}");
    }

    #[test]
    fn a_panic_is_seen_across_pieces() {
        let console = ConsoleLog::new(None);
        console.write(b"KKernel panic -");
        assert!(!console.panic_seen());
        console.write(b" not syncing: Attempted to kill init!");
        assert!(console.panic_seen());
    }

    #[test]
    fn the_sink_gets_a_burst_then_a_rate_and_is_told_what_was_left_out() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.take(BURST_BYTES + 10, start), (BURST_BYTES, 0));
        assert_eq!(allowance.take(5, start), (0, 0));
        let later = start + Duration::from_secs(1);
        assert_eq!(allowance.take(100, later), (100, 15));
        assert_eq!(allowance.take(BURST_BYTES, later), (BYTES_PER_SECOND - 100, 0));
    }

    #[test]
    fn the_sink_sees_what_is_written() {
        let (sender, seen) = std::sync::mpsc::channel();
        let console = ConsoleLog::new(Some(Box::new(move |bytes| sender.send(bytes.to_vec()).unwrap())));
        console.write(b"booting");
        assert_eq!(seen.recv().unwrap(), b"booting");
    }
}
