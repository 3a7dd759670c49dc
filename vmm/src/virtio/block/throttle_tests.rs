//! The disk under a limit: what is taken when, by a clock that the tests move.

use std::time::Duration;

use vmm_sys_util::tempfile::TempFile;

use super::super::queue::RING_FEATURES;
use super::super::testing::{Driver, Piece, Watched, drain, throttle};
use super::*;

const HEADER: u64 = 0x10_0000;
const STATUS: u64 = 0x10_1000;
const DATA: u64 = 0x10_2000;
const SECOND: Duration = Duration::from_secs(1);

struct Limited {
    block: Block,
    driver: Driver,
    worker: Box<dyn EventHandler>,
    watched: Watched,
}

impl Limited {
    fn new(bytes: u64, operations: u64) -> Self {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(1 << 20).unwrap();
        let throttle = throttle(bytes, operations);
        let mut block = Block::new(BlockConfig { file, read_only: false, throttle }).unwrap();
        let (driver, worker, watched) = activate(&mut block, Duration::ZERO);
        Self { block, driver, worker, watched }
    }

    /// The driver starts the device anew.
    fn reset(&mut self) {
        let now = self.watched.now();
        (self.driver, self.worker, self.watched) = activate(&mut self.block, now);
    }

    /// Has the driver ask for a read of `bytes`.
    fn ask(&mut self, bytes: u32) {
        // A read of sector 0 is a header of zeros.
        self.driver.queues[0].add(&[
            Piece::Read(HEADER, 16),
            Piece::Write(DATA, bytes),
            Piece::Write(STATUS, 1),
        ]);
    }

    /// How many requests are done at this time.
    fn done(&mut self, now: Duration) -> usize {
        self.watched.set_clock(now);
        self.watched.settle(&mut *self.worker).unwrap();
        drain(&mut self.driver.queues[0]).len()
    }
}

fn activate(block: &mut Block, now: Duration) -> (Driver, Box<dyn EventHandler>, Watched) {
    let driver = Driver::new(QUEUE_SIZES);
    let mut worker = block.activate(driver.activation(RING_FEATURES)).unwrap();
    let mut watched = Watched::default();
    watched.set_clock(now);
    worker.start(&mut watched).unwrap();
    (driver, worker, watched)
}

#[test]
fn requests_wait_for_operations_and_go_on_without_a_notification() {
    let mut disk = Limited::new(0, 2);
    for _ in 0..7 {
        disk.ask(512);
    }
    assert_eq!(disk.done(Duration::ZERO), 2);
    let mut total = 2;
    let mut wakes = 0;
    while total < 7 {
        let at = disk.watched.wakes_at().expect("requests are left, so the worker has to be woken");
        assert_eq!(disk.done(at - Duration::from_nanos(1)), 0);
        total += disk.done(at);
        wakes += 1;
    }
    assert!(wakes <= 6, "{wakes}");
    // Two in the first moment, two a second, and the one that a part of a token lets in.
    assert!(disk.watched.now() >= SECOND * 2 && disk.watched.now() < SECOND * 3);
}

#[test]
fn a_large_request_passes_and_those_after_it_wait_as_long_as_it_takes() {
    let mut disk = Limited::new(1024, 0);
    disk.ask(8192);
    disk.ask(512);
    assert_eq!(disk.done(Duration::ZERO), 1);
    assert_eq!(disk.done(SECOND * 7), 0, "the debt is 7 seconds'");
    assert_eq!(disk.done(SECOND * 7 + Duration::from_nanos(1)), 1);
}

#[test]
fn a_request_that_claims_more_than_any_may_move_owes_no_more_than_that() {
    let mut disk = Limited::new(MAX_TRANSFER_BYTES as u64, 0);
    disk.ask(u32::MAX - 511);
    disk.ask(u32::MAX - 511);
    disk.ask(512);
    assert_eq!(disk.done(Duration::ZERO), 1);
    assert_eq!(disk.done(Duration::from_nanos(1)), 1);
    assert_eq!(disk.done(SECOND), 0);
    assert_eq!(disk.done(SECOND + Duration::from_nanos(1)), 1);
}

#[test]
fn notifications_do_not_get_around_the_limit_nor_keep_the_loop_busy() {
    let mut disk = Limited::new(0, 1);
    disk.ask(512);
    disk.ask(512);
    assert_eq!(disk.done(Duration::ZERO), 1);
    assert_eq!(disk.done(Duration::from_nanos(1)), 1);
    for _ in 0..10 {
        disk.ask(512);
        disk.driver.queues[0].notify.write(1).unwrap();
        // Settling ends only if nothing is left ready.
        assert_eq!(disk.done(SECOND / 2), 0);
    }
    assert_eq!(disk.done(SECOND * 2), 1);
}

#[test]
fn after_the_queue_was_empty_under_a_limit_a_notification_starts_it_again() {
    let mut disk = Limited::new(0, 1);
    disk.ask(512);
    assert_eq!(disk.done(Duration::ZERO), 1);
    assert_eq!(disk.done(SECOND * 5), 0);
    assert_eq!(disk.watched.wakes_at(), None, "there is nothing to wake for");
    disk.ask(512);
    assert_eq!(disk.done(SECOND * 5), 1);
}

#[test]
fn a_reset_brings_no_tokens() {
    let mut disk = Limited::new(1024, 0);
    disk.ask(4096);
    disk.ask(512);
    assert_eq!(disk.done(Duration::ZERO), 1);
    for _ in 0..3 {
        disk.reset();
        disk.ask(512);
        assert_eq!(disk.done(SECOND * 2), 0);
    }
    assert_eq!(disk.done(SECOND * 4), 1);
}

#[test]
fn without_a_limit_nothing_is_to_be_woken() {
    let mut disk = Limited::new(0, 0);
    for _ in 0..40 {
        disk.ask(4096);
    }
    assert_eq!(disk.done(Duration::ZERO), 40);
    assert_eq!(disk.watched.wakes_at(), None);
}
