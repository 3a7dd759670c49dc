use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use nix::sys::mman::ProtFlags;
use proptest::prelude::*;
use vm_memory::GuestAddress;
use vmm_sys_util::tempfile::TempFile;

use super::super::queue::RING_FEATURES;
use super::super::testing::{Arena, Driver, Piece, Watched, drain};
use super::*;
use crate::memory::{HUGE_PAGE_SIZE, Mapping, PAGE_SIZE, Region};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const UNTOUCHED: u8 = 0xee;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const SECTORS: u64 = 64;

struct Machine {
    driver: Driver,
    worker: Box<dyn EventHandler>,
    watched: Watched,
    file: File,
    header: u64,
    status: u64,
    data: u64,
}

impl Machine {
    fn new(read_only: bool) -> Self {
        Self::with_driver(Driver::new(QUEUE_SIZES), read_only)
    }

    fn with_driver(driver: Driver, read_only: bool) -> Self {
        let file = TempFile::new().unwrap().into_file();
        file.write_all_at(&pattern(SECTORS as usize * 512), 0).unwrap();
        let mut block = Block::new(BlockConfig {
            file: file.try_clone().unwrap(),
            read_only,
            throttle: Throttle::default(),
        })
        .unwrap();
        let mut worker = block.activate(driver.activation(block.features())).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        let mut arena = Arena::new();
        let (header, status, data) = (arena.take(16), arena.take(16), arena.take(1 << 20));
        Self { driver, worker, watched, file, header, status, data }
    }

    /// Runs one request and returns its status and the used length.
    fn run(&mut self, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.driver.write(self.header, &header);
        let mut pieces = vec![Piece::Read(self.header, 16)];
        pieces.extend_from_slice(data);
        pieces.push(Piece::Write(self.status, 1));
        self.raw(&pieces)
    }

    fn raw(&mut self, pieces: &[Piece]) -> (u8, u32) {
        self.driver.write(self.status, &[UNTOUCHED]);
        self.driver.queues[0].add(pieces);
        self.watched.settle(&mut *self.worker).unwrap();
        let used = drain(&mut self.driver.queues[0]);
        assert_eq!(used.len(), 1);
        (self.driver.read(self.status, 1)[0], used[0].1)
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> (u8, u32) {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|(sector, count, flags)| {
                [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
            })
            .collect();
        self.driver.write(self.data, &bytes);
        self.run(kind, 0, &[Piece::Read(self.data, bytes.len() as u32)])
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512 + at % 251 + 1) as u8 | 1).collect()
}

#[test]
fn reads_scatter_the_file_into_guest_memory() {
    let mut machine = Machine::new(true);
    let data = machine.data;
    let pieces = [Piece::Write(data, 500), Piece::Write(data + 1000, 1036)];
    assert_eq!(machine.run(IN, 3, &pieces), (OK, 1537));
    let expected = &pattern(SECTORS as usize * 512)[3 * 512..6 * 512];
    assert_eq!(machine.driver.read(data, 500), expected[..500]);
    assert_eq!(machine.driver.read(data + 1000, 1036), expected[500..]);
}

#[test]
fn writes_gather_and_flush() {
    let mut machine = Machine::new(false);
    let data = machine.data;
    machine.driver.write(data, &[7; 512]);
    machine.driver.write(data + 1000, &[8; 512]);
    let pieces = [Piece::Read(data, 512), Piece::Read(data + 1000, 512)];
    assert_eq!(machine.run(OUT, 62, &pieces), (OK, 1));
    assert_eq!(machine.run(FLUSH, 0, &[]), (OK, 1));
    let mut back = [0; 1024];
    machine.file.read_exact_at(&mut back, 62 * 512).unwrap();
    assert_eq!(back, [[7; 512], [8; 512]].concat()[..]);
}

#[test]
fn the_capacity_bounds_every_request() {
    let mut machine = Machine::new(false);
    let data = machine.data;
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (0, 100),
        (1 << 55, 512),
    ] {
        assert_eq!(machine.run(IN, sector, &[Piece::Write(data, len)]), (IO_ERROR, 1), "{sector} {len}");
        assert_eq!(machine.run(OUT, sector, &[Piece::Read(data, len)]), (IO_ERROR, 1), "{sector} {len}");
    }
    for range in [(SECTORS, 1, 0), (SECTORS - 1, 2, 0), (u64::MAX, 1, 0), (0, MAX_RANGE_SECTORS + 1, 0)] {
        assert_eq!(machine.ranges(DISCARD, &[range]), (IO_ERROR, 1), "{range:?}");
        assert_eq!(machine.ranges(WRITE_ZEROES, &[range]), (IO_ERROR, 1), "{range:?}");
    }
    assert_eq!(machine.file.metadata().unwrap().len(), SECTORS * 512, "the file has not grown");
}

#[test]
fn a_file_that_was_truncated_is_an_error() {
    let mut machine = Machine::new(false);
    machine.file.set_len(512).unwrap();
    let data = machine.data;
    assert_eq!(machine.run(IN, 0, &[Piece::Write(data, 1024)]), (IO_ERROR, 1));
}

#[test]
fn a_read_only_disk_refuses_to_change() {
    let mut machine = Machine::new(true);
    let data = machine.data;
    assert_eq!(machine.run(OUT, 0, &[Piece::Read(data, 512)]), (IO_ERROR, 1));
    assert_eq!(machine.ranges(DISCARD, &[(0, 8, 0)]), (UNSUPPORTED, 1));
    assert_eq!(machine.ranges(WRITE_ZEROES, &[(0, 8, 0)]), (UNSUPPORTED, 1));
    assert_eq!(machine.run(FLUSH, 0, &[]), (OK, 1));
    let mut back = vec![0; SECTORS as usize * 512];
    machine.file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, pattern(back.len()));
}

#[test]
fn discarding_gives_space_back() {
    let mut machine = Machine::new(false);
    let before = machine.file.metadata().unwrap().blocks();
    assert_eq!(machine.ranges(DISCARD, &[(8, 8, 0), (16, 16, 0)]), (OK, 1));
    let after = machine.file.metadata().unwrap();
    assert!(after.blocks() < before, "{} is less than {before}", after.blocks());
    assert_eq!(after.len(), SECTORS * 512);
    let mut back = vec![0; 64 * 512];
    machine.file.read_exact_at(&mut back, 0).unwrap();
    let expected = pattern(back.len());
    assert_eq!(back[..8 * 512], expected[..8 * 512]);
    assert!(back[8 * 512..32 * 512].iter().all(|byte| *byte == 0));
    assert_eq!(back[32 * 512..], expected[32 * 512..]);
}

#[test]
fn zeros_are_written_with_and_without_unmapping() {
    let mut machine = Machine::new(false);
    assert_eq!(machine.ranges(WRITE_ZEROES, &[(1, 1, 0), (3, 1, 1)]), (OK, 1));
    let mut back = [1; 4 * 512];
    machine.file.read_exact_at(&mut back, 512).unwrap();
    assert!(back[..512].iter().all(|byte| *byte == 0));
    assert!(back[512..1024].iter().all(|byte| *byte != 0));
    assert!(back[1024..1536].iter().all(|byte| *byte == 0));
    assert_eq!(machine.ranges(WRITE_ZEROES, &[(1, 1, 2)]), (UNSUPPORTED, 1));
    assert_eq!(machine.ranges(DISCARD, &[(1, 1, 1)]), (UNSUPPORTED, 1));
    assert_eq!(machine.ranges(DISCARD, &[]), (IO_ERROR, 1));
    assert_eq!(machine.ranges(DISCARD, &[(0, 0, 0); MAX_RANGES]), (OK, 1));
    assert_eq!(machine.ranges(DISCARD, &[(0, 0, 0); MAX_RANGES + 1]), (IO_ERROR, 1));
    let data = machine.data;
    assert_eq!(machine.run(DISCARD, 0, &[Piece::Read(data, 17)]), (IO_ERROR, 1));
}

#[test]
fn the_id_is_text_of_twenty_bytes() {
    let mut machine = Machine::new(true);
    let data = machine.data;
    assert_eq!(machine.run(GET_ID, 0, &[Piece::Write(data, 20)]), (OK, 21));
    let id = machine.driver.read(data, 20);
    assert!(id[0].is_ascii_hexdigit());
    assert_eq!(machine.run(GET_ID, 0, &[Piece::Write(data, 19)]), (IO_ERROR, 1));
}

#[test]
fn other_requests_are_unsupported() {
    let mut machine = Machine::new(false);
    for kind in [2, 3, 5, 7, 9, 14, 15, 1 << 31, u32::MAX] {
        assert_eq!(machine.run(kind, 0, &[]), (UNSUPPORTED, 1));
    }
}

#[test]
fn malformed_requests_are_returned_with_nothing_written() {
    let mut machine = Machine::new(false);
    let (header, status, data) = (machine.header, machine.status, machine.data);
    let malformed: [&[Piece]; 5] = [
        &[Piece::Read(header, 15), Piece::Write(status, 1)],
        &[Piece::Read(header, 16)],
        &[Piece::Write(status, 1)],
        &[Piece::Read(1 << 50, 16), Piece::Write(status, 1)],
        &[Piece::Read(header, 16), Piece::Write(data, 512), Piece::Write(1 << 50, 1)],
    ];
    for pieces in malformed {
        assert_eq!(machine.raw(pieces), (UNTOUCHED, 0), "{pieces:?}");
    }
}

#[test]
fn data_outside_memory_and_huge_transfers_are_errors() {
    let mut machine = Machine::new(false);
    let data = machine.data;
    assert_eq!(machine.run(IN, 0, &[Piece::Write(1 << 50, 512)]), (IO_ERROR, 1));
    assert_eq!(machine.run(OUT, 0, &[Piece::Read(u64::MAX - 511, 512)]), (IO_ERROR, 1));
    assert_eq!(machine.run(OUT, 0, &[Piece::Read(data, u32::MAX - 511)]), (IO_ERROR, 1));
    assert_eq!(machine.run(IN, 0, &[Piece::Write(data, MAX_TRANSFER_BYTES as u32 + 512)]), (IO_ERROR, 1));
}

#[test]
fn reading_into_read_only_memory_is_an_error_and_no_fault() {
    const ROM: u64 = 0x1000_0000;
    let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let ram = Mapping::anonymous(16 * HUGE_PAGE_SIZE, writable).unwrap();
    let rom = Mapping::anonymous(PAGE_SIZE, ProtFlags::PROT_READ).unwrap();
    let region = |start, mapping| Region { start: GuestAddress(start), mapping: Arc::new(mapping) };
    let memory = DeviceMemory::new(vec![region(0, ram)], vec![region(ROM, rom)]).unwrap();
    let mut machine = Machine::with_driver(Driver::with_memory(memory, QUEUE_SIZES), false);
    assert_eq!(machine.run(IN, 0, &[Piece::Write(ROM, 512)]), (IO_ERROR, 1));
    assert_eq!(machine.run(OUT, 0, &[Piece::Read(ROM, 512)]), (OK, 1), "it can be read");
}

#[test]
fn the_configuration_tells_the_limits() {
    let file = TempFile::new().unwrap().into_file();
    file.set_len(10 * 512 + 511).unwrap();
    let block = Block::new(BlockConfig { file, read_only: false, throttle: Throttle::default() }).unwrap();
    let config = block.config();
    let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
    assert_eq!(u64::from_le_bytes(config[..8].try_into().unwrap()), 10);
    assert_eq!((word(8), word(12), word(20)), (128 << 10, 126, 512));
    assert_eq!((word(36), word(40), word(44)), (4 << 20, 16, 8));
    assert_eq!((word(48), word(52), config[56]), (4 << 20, 16, 1));
    assert_eq!(block.features() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(block.features() & RING_FEATURES, RING_FEATURES);
}

#[test]
fn a_reset_leaves_the_disk_usable() {
    let driver = Driver::new(QUEUE_SIZES);
    let file = TempFile::new().unwrap().into_file();
    file.set_len(4096).unwrap();
    let mut block =
        Block::new(BlockConfig { file, read_only: false, throttle: Throttle::default() }).unwrap();
    for _ in 0..3 {
        drop(block.activate(driver.activation(0)).unwrap());
    }
}

proptest! {
    #[test]
    fn random_requests_never_panic(
        kind in prop_oneof![0..16_u32, any::<u32>()],
        sector in prop_oneof![0..70_u64, any::<u64>()],
        reads in proptest::collection::vec((0..0x8000_u64, 0..1030_u32), 0..4),
        writes in proptest::collection::vec((prop_oneof![0..0x8000_u64, any::<u64>()], 0..1030_u32), 0..4),
        read_only in any::<bool>()
    ) {
        let mut machine = Machine::new(read_only);
        let data = machine.data;
        let mut header = [kind.to_le_bytes(), [0; 4]].concat();
        header.extend(sector.to_le_bytes());
        machine.driver.write(machine.header, &header);
        let mut pieces = vec![Piece::Read(machine.header, 16)];
        pieces.extend(reads.iter().map(|(at, len)| Piece::Read(data + at, *len)));
        // Never over the rings, which would be another test.
        pieces.extend(writes.iter().map(|(at, len)| Piece::Write(data.saturating_add(*at), *len)));
        machine.raw(&pieces);
    }
}
