use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::mman::ProtFlags;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::tempfile::TempFile;

use super::super::testing::{Driver, INDIRECT, NEXT, Piece, WRITE, Watched, drain};
use super::*;
use crate::memory::{HUGE_PAGE_SIZE, Mapping, PAGE_SIZE, Region, Sharing};

const MIB: u64 = 1 << 20;
const LOW_BYTES: u64 = 128 * MIB;
/// RAM goes on here, behind a gap.
const HIGH: u64 = 256 * MIB;
const HIGH_BYTES: u64 = 8 * MIB;
const PMEM: u64 = 512 * MIB;
/// Where the tests' pages are, above the rings.
const PAGES: u64 = MIB;
const PAGE: u32 = PAGE_SIZE as u32;

/// A balloon at work in a machine of two regions of RAM and one of pmem.
struct Setup {
    ram: Vec<Region>,
    driver: Driver,
    worker: Box<dyn EventHandler>,
    watched: Watched,
}

fn region(start: u64, mapping: Mapping) -> Region {
    Region { start: GuestAddress(start), mapping: Arc::new(mapping) }
}

impl Setup {
    fn new() -> Self {
        let anonymous = |bytes| {
            let mapping = Mapping::anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).unwrap();
            mapping.advise_huge_pages(0..bytes, false);
            mapping
        };
        let ram = vec![region(0, anonymous(LOW_BYTES)), region(HIGH, anonymous(HIGH_BYTES))];
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(&[7; PAGE_SIZE as usize]).unwrap();
        let mut pmem = Mapping::anonymous(HUGE_PAGE_SIZE, ProtFlags::PROT_READ).unwrap();
        pmem.overlay(0, &file, 0, PAGE_SIZE, Sharing::Shared).unwrap();
        let memory = DeviceMemory::new(ram.clone(), vec![region(PMEM, pmem)]).unwrap();
        let driver = Driver::with_memory(memory, QUEUE_SIZES);
        let (worker, watched) = start(&driver);
        Self { ram, driver, worker, watched }
    }

    /// Fills whole pages.
    fn fill(&self, address: u64, pages: u64) {
        self.driver.write(address, &vec![0xaa; (pages * PAGE_SIZE) as usize]);
    }

    /// Which of these pages the host has, without touching any.
    fn resident(&self, address: u64, pages: u64) -> Vec<bool> {
        let inside = |region: &&Region| region.start.0 <= address;
        let region = self.ram.iter().rfind(inside).unwrap();
        let mut flags = vec![0_u8; pages as usize];
        let host = region.mapping.host_address() + (address - region.start.0);
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let result = unsafe {
            libc::mincore(host as *mut libc::c_void, (pages * PAGE_SIZE) as usize, flags.as_mut_ptr())
        };
        assert_eq!(result, 0);
        flags.into_iter().map(|flag| flag & 1 == 1).collect()
    }

    fn report(&mut self, pieces: &[Piece]) {
        self.driver.queues[REPORT as usize].add(pieces);
        self.watched.settle(&mut *self.worker).unwrap();
    }

    fn returned(&mut self, queue: u32) -> Vec<(u16, u32)> {
        drain(&mut self.driver.queues[queue as usize]).into()
    }
}

fn start(driver: &Driver) -> (Box<dyn EventHandler>, Watched) {
    let mut worker = Balloon.activate(driver.activation(FEATURE_REPORTING)).unwrap();
    let mut watched = Watched::default();
    worker.start(&mut watched).unwrap();
    (worker, watched)
}

#[test]
fn reported_pages_go_back_to_the_host_and_come_again_as_zeros() {
    let mut setup = Setup::new();
    for address in [PAGES, HIGH] {
        setup.fill(address, 6);
        assert_eq!(setup.resident(address, 6), [true; 6]);
    }
    setup.report(&[Piece::Write(PAGES + PAGE_SIZE, 2 * PAGE), Piece::Write(HIGH, 3 * PAGE)]);
    assert_eq!(setup.returned(REPORT), [(0, 0)]);
    assert_eq!(setup.driver.interrupts(), 1);
    assert_eq!(setup.resident(PAGES, 6), [true, false, false, true, true, true]);
    assert_eq!(setup.resident(HIGH, 6), [false, false, false, true, true, true]);
    let page = PAGE_SIZE as usize;
    let bytes = setup.driver.read(PAGES, 4 * page);
    assert!(bytes[..page].iter().chain(&bytes[3 * page..]).all(|byte| *byte == 0xaa));
    assert!(bytes[page..3 * page].iter().all(|byte| *byte == 0));
    setup.fill(PAGES + PAGE_SIZE, 1);
    assert_eq!(setup.driver.read(PAGES + PAGE_SIZE, page), vec![0xaa; page]);
}

#[test]
fn only_whole_pages_are_taken() {
    let mut setup = Setup::new();
    setup.fill(PAGES, 4);
    let before = setup.driver.read(PAGES, 4 * PAGE_SIZE as usize);
    setup.report(&[
        Piece::Write(PAGES + 1, PAGE),
        Piece::Write(PAGES, PAGE - 1),
        Piece::Write(PAGES + PAGE_SIZE, 1),
        Piece::Write(PAGES + 5, 10),
    ]);
    assert_eq!(setup.driver.read(PAGES, 4 * PAGE_SIZE as usize), before);
    setup.report(&[Piece::Write(PAGES + 1, 3 * PAGE)]);
    assert_eq!(setup.resident(PAGES, 4), [true, false, false, true]);
}

#[test]
fn what_is_no_ram_is_left_alone_and_the_rest_of_the_report_is_not() {
    let mut setup = Setup::new();
    setup.fill(PAGES, 1);
    setup.fill(HIGH, 1);
    setup.fill(LOW_BYTES - PAGE_SIZE, 1);
    let wild = [
        (LOW_BYTES, PAGE),
        (LOW_BYTES - PAGE_SIZE, 2 * PAGE),
        (HIGH - PAGE_SIZE, 2 * PAGE),
        (HIGH, u32::MAX),
        (PMEM, PAGE),
        (HIGH + HIGH_BYTES - PAGE_SIZE, 2 * PAGE),
        (1 << 40, PAGE),
        (u64::MAX - 4095, PAGE),
        (u64::MAX - 4095, 2 * PAGE),
        (u64::MAX, u32::MAX),
        (PAGES, 0),
        (u64::MAX, 0),
    ];
    for (address, bytes) in wild {
        setup.report(&[Piece::Write(address, bytes)]);
    }
    assert_eq!(setup.returned(REPORT).len(), wild.len());
    for address in [PAGES, HIGH, LOW_BYTES - PAGE_SIZE] {
        assert_eq!(setup.resident(address, 1), [true], "{address:#x}");
    }
    assert_eq!(setup.driver.read(PMEM, 2), [7, 7]);
    setup.report(&[Piece::Write(PMEM, PAGE), Piece::Write(PAGES, PAGE), Piece::Write(u64::MAX, PAGE)]);
    assert_eq!(setup.resident(PAGES, 1), [false]);
}

#[test]
fn what_the_device_may_only_read_is_not_taken() {
    let mut setup = Setup::new();
    setup.fill(PAGES, 2);
    setup.report(&[Piece::Read(PAGES, PAGE)]);
    setup.report(&[Piece::Read(PAGES, PAGE), Piece::Write(PAGES + PAGE_SIZE, PAGE)]);
    assert_eq!(setup.resident(PAGES, 2), [true, false]);
    assert_eq!(setup.returned(REPORT).len(), 2);
}

#[test]
fn broken_chains_stop_the_device() {
    let breaks: [fn(&mut Setup); 4] = [
        // More bytes than a chain may have (virtio 1.2, section 2.7.5).
        |setup| {
            setup.driver.queues[2].set_descriptor(0, PAGES, PAGE, WRITE | NEXT, 1);
            setup.driver.queues[2].set_descriptor(1, PAGES, u32::MAX, WRITE, 0);
        },
        // A chain that loops.
        |setup| setup.driver.queues[2].set_descriptor(0, PAGES, PAGE, WRITE | NEXT, 0),
        // A next descriptor that is none.
        |setup| setup.driver.queues[2].set_descriptor(0, PAGES, PAGE, WRITE | NEXT, 999),
        // What is read after what is written.
        |setup| {
            setup.driver.queues[2].set_descriptor(0, PAGES, PAGE, WRITE | NEXT, 1);
            setup.driver.queues[2].set_descriptor(1, PAGES, PAGE, 0, 0);
        },
    ];
    for break_it in breaks {
        let mut setup = Setup::new();
        setup.fill(PAGES, 1);
        break_it(&mut setup);
        setup.driver.queues[2].offer(0, 1);
        setup.driver.queues[2].notify.write(1).unwrap();
        let broken = setup.watched.settle(&mut *setup.worker);
        assert!(matches!(broken, Err(HandlerError::Queue { queue: 2, .. })), "{broken:?}");
        assert_eq!(setup.resident(PAGES, 1), [true]);
    }
}

#[test]
fn a_table_of_descriptors_is_as_long_as_the_queue_at_most() {
    for (count, fits) in [(32_u64, true), (33, false)] {
        let mut setup = Setup::new();
        setup.fill(PAGES, 1);
        let table = 2 * PAGES;
        for index in 0..count {
            let (flags, next) = if index + 1 < count { (WRITE | NEXT, index as u16 + 1) } else { (WRITE, 0) };
            let descriptor = virtio_queue::desc::split::Descriptor::new(PAGES, PAGE, flags, next);
            setup.driver.memory.write_obj(descriptor, GuestAddress(table + 16 * index)).unwrap();
        }
        let reports = &mut setup.driver.queues[REPORT as usize];
        reports.set_descriptor(0, table, 16 * count as u32, INDIRECT, 0);
        reports.offer(0, 1);
        reports.notify.write(1).unwrap();
        assert_eq!(setup.watched.settle(&mut *setup.worker).is_ok(), fits, "{count}");
        assert_eq!(setup.resident(PAGES, 1), [!fits]);
    }
}

#[test]
fn a_large_report_is_worked_off_in_steps() {
    let mut setup = Setup::new();
    let (step, steps) = (STEP_BYTES as u64, 3);
    let touched: Vec<u64> = (0..steps).map(|index| PAGES + index * step + step / 2).collect();
    touched.iter().for_each(|address| setup.fill(*address, 1));
    let states = |setup: &Setup| -> Vec<bool> {
        touched.iter().flat_map(|address| setup.resident(*address, 1)).collect()
    };
    setup.driver.queues[REPORT as usize].add(&[Piece::Write(PAGES, (steps * step) as u32)]);
    for done in 1..=steps as usize {
        assert_eq!(setup.returned(REPORT), [], "not before all is done");
        assert_eq!(setup.watched.turn(&mut *setup.worker).unwrap(), 1);
        assert_eq!(states(&setup), (0..3).map(|index| index >= done).collect::<Vec<_>>());
    }
    assert_eq!(setup.returned(REPORT), [(0, 0)]);
    setup.watched.settle(&mut *setup.worker).unwrap();

    // However much is claimed, it ends: a chain has less than 4 GiB.
    setup.report(&[Piece::Write(PAGES, u32::MAX)]);
    assert_eq!(setup.returned(REPORT).len(), 1);
}

#[test]
fn a_reset_in_the_middle_of_a_report_ends_it() {
    let mut setup = Setup::new();
    let last = PAGES + 3 * STEP_BYTES as u64 - PAGE_SIZE;
    setup.fill(last, 1);
    setup.driver.queues[REPORT as usize].add(&[Piece::Write(PAGES, 3 * STEP_BYTES as u32)]);
    setup.watched.turn(&mut *setup.worker).unwrap();
    let (ram, memory) = (setup.ram.clone(), setup.driver.memory.clone());
    drop(setup);
    let driver = Driver::with_memory(memory, QUEUE_SIZES);
    let (worker, watched) = start(&driver);
    let mut setup = Setup { ram, driver, worker, watched };
    setup.watched.settle(&mut *setup.worker).unwrap();
    assert_eq!(setup.resident(last, 1), [true]);
    setup.report(&[Piece::Write(last, PAGE)]);
    assert_eq!(setup.resident(last, 1), [false]);
}

#[test]
fn who_inflates_the_balloon_keeps_the_pages() {
    let mut setup = Setup::new();
    setup.fill(PAGES, 2);
    let numbers = 4 * PAGES;
    setup.driver.write(numbers, &(PAGES as u32 >> 12).to_le_bytes());
    for queue in [INFLATE, DEFLATE] {
        let balloon = &mut setup.driver.queues[queue as usize];
        balloon.add(&[Piece::Read(numbers, 4)]);
        balloon.add(&[Piece::Read(u64::MAX - 3, u32::MAX)]);
        balloon.add(&[Piece::Write(PAGES, PAGE)]);
        setup.watched.settle(&mut *setup.worker).unwrap();
        assert_eq!(setup.returned(queue), [(0, 0), (1, 0), (2, 0)]);
    }
    assert_eq!(setup.resident(PAGES, 2), [true, true]);
}

#[test]
fn it_asks_for_nothing_and_has_three_queues() {
    assert_eq!(Balloon.config(), [0; 8]);
    assert_eq!(Balloon.features() & FEATURE_REPORTING, FEATURE_REPORTING);
    let driver = Driver::new(&[16, 16]);
    assert!(Balloon.activate(driver.activation(0)).is_err());
    let setup = Setup::new();
    assert_eq!(setup.watched.len(), 3);
    let watched = |queue: &super::super::testing::DriverQueue| queue.notify.as_raw_fd();
    assert!(setup.driver.queues.iter().map(watched).all(|fd| fd >= 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_report_comes_back(ranges in proptest::collection::vec((any::<u64>(), 0..u32::MAX / 16, any::<bool>()), 1..16)) {
        let mut setup = Setup::new();
        // Beyond what the rings are in, or beyond everything.
        let address = |at: u64, near: bool| PAGES + if near { at % PMEM } else { at % (u64::MAX - PAGES) };
        let pieces: Vec<Piece> =
            ranges.iter().map(|(at, bytes, near)| Piece::Write(address(*at, *near), *bytes)).collect();
        setup.report(&pieces);
        prop_assert_eq!(setup.returned(REPORT), [(0, 0)]);
    }
}
