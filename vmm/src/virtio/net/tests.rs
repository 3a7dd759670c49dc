//! The card over a pair of datagram sockets, which keep frames apart as a tap does, and over a real tap.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::super::testing::{Arena, Driver, Piece, Watched, drain};
use super::tap::{HEADER_BYTES, Queues};
use super::worker::{MAX_FRAME_BYTES, MAX_FRAMES_PER_CALL};
use super::*;
use crate::event_loop::HandlerError;

pub const RX: usize = 0;
pub const TX: usize = 1;

pub struct Card {
    pub driver: Driver,
    worker: Worker,
    pub watched: Watched,
    pub wire: UnixDatagram,
    tap_fd: i32,
    pub arena: Arena,
}

impl Card {
    fn new(mergeable: bool, features: u64) -> Self {
        Self::with_sizes(mergeable, features, QUEUE_SIZES)
    }

    fn with_sizes(mergeable: bool, features: u64, sizes: &[u16]) -> Self {
        Self::limited(mergeable, features, sizes, Throttles::default())
    }

    pub fn limited(mergeable: bool, features: u64, sizes: &[u16], throttles: Throttles) -> Self {
        let (wire, tap) = UnixDatagram::pair().unwrap();
        wire.set_nonblocking(true).unwrap();
        tap.set_nonblocking(true).unwrap();
        let tap = File::from(OwnedFd::from(tap));
        let tap_fd = tap.as_raw_fd();
        let driver = Driver::new(sizes);
        let (memory, [to_guest, from_guest]) = queue::open(driver.activation(features)).unwrap();
        let mut worker = Worker::new(memory, to_guest, from_guest, tap, mergeable, throttles);
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        Self { driver, worker, watched, wire, tap_fd, arena: Arena::new() }
    }

    pub fn run(&mut self) {
        self.watched.settle(&mut self.worker).unwrap();
    }

    /// Posts `count` buffers of `len` bytes; returns where they are.
    pub fn post(&mut self, count: usize, len: u32) -> Vec<u64> {
        let addresses: Vec<u64> = (0..count).map(|_| self.arena.take(len)).collect();
        for address in &addresses {
            self.driver.queues[RX].add(&[Piece::Write(*address, len)]);
        }
        addresses
    }

    pub fn tap_is_watched(&self) -> bool {
        self.watched.is_watched(self.tap_fd)
    }

    pub fn received(&mut self) -> Vec<u32> {
        self.run();
        drain(&mut self.driver.queues[RX]).into_iter().map(|(_, len)| len).collect()
    }
}

pub fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 3 + at / 256) as u8).collect();
    frame[..HEADER_BYTES].fill(0);
    frame
}

#[test]
fn frames_go_out_as_they_are() {
    let mut card = Card::new(true, RING_FEATURES);
    let sent = frame(1000);
    let address = card.arena.take(2000);
    card.driver.write(address, &sent[..12]);
    card.driver.write(address + 100, &sent[12..]);
    card.driver.queues[TX].add(&[Piece::Read(address, 12), Piece::Read(address + 100, 988)]);
    card.run();
    let mut seen = [0; 2000];
    assert_eq!(card.wire.recv(&mut seen).unwrap(), 1000);
    assert_eq!(seen[..1000], sent);
    assert_eq!(drain(&mut card.driver.queues[TX]), [(0, 0)]);
}

#[test]
fn frames_that_cannot_be_sent_are_lost_and_their_buffers_returned() {
    let mut card = Card::new(true, 0);
    let address = card.arena.take(100_000);
    let bad = [
        vec![Piece::Read(address, 11)],
        vec![Piece::Read(address, MAX_FRAME_BYTES as u32 + 1)],
        vec![Piece::Read(address, u32::MAX)],
        vec![Piece::Read(1 << 40, 100)],
        vec![Piece::Read(address, 12), Piece::Read(u64::MAX, 100)],
        vec![Piece::Write(address, 100)],
    ];
    for pieces in &bad {
        card.driver.queues[TX].add(pieces);
    }
    card.driver.queues[TX].add(&[Piece::Read(address, MAX_FRAME_BYTES as u32)]);
    card.run();
    let mut seen = vec![0; 100_000];
    assert_eq!(card.wire.recv(&mut seen).unwrap(), MAX_FRAME_BYTES, "the longest frame is sent");
    assert!(card.wire.recv(&mut seen).is_err(), "and nothing else");
    assert_eq!(drain(&mut card.driver.queues[TX]).len(), bad.len() + 1);
}

#[test]
fn frames_come_in_over_as_many_buffers_as_they_need() {
    for features in [0, RING_FEATURES] {
        let mut card = Card::new(true, features);
        let buffers = card.post(70, 1000);
        let (short, long) = (frame(60), frame(2500));
        card.wire.send(&short).unwrap();
        card.wire.send(&long).unwrap();
        assert_eq!(card.received(), [60, 1000, 1000, 500]);
        let mut expected = short;
        expected[10] = 1;
        assert_eq!(card.driver.read(buffers[0], 60), expected);
        let mut expected = long;
        expected[10] = 3;
        let seen: Vec<u8> = buffers[1..4].iter().flat_map(|at| card.driver.read(*at, 1000)).collect();
        assert_eq!(seen[..2500], expected);
        assert_eq!(card.driver.interrupts(), 1);
        assert!(card.tap_is_watched());
    }
}

#[test]
fn the_longest_frame_fits_and_longer_ones_are_lost() {
    let mut card = Card::new(true, 0);
    card.post(40, 4096);
    for len in [MAX_FRAME_BYTES + 1, MAX_FRAME_BYTES, 100] {
        card.wire.send(&frame(len)).unwrap();
    }
    let received = card.received();
    assert_eq!(received.len(), 18);
    assert_eq!(received.iter().take(17).sum::<u32>() as usize, MAX_FRAME_BYTES);
    assert_eq!(received[17], 100);
}

#[test]
fn without_merging_a_frame_takes_one_buffer() {
    let mut card = Card::new(false, 0);
    let buffers = card.post(3, 1526);
    for len in [1527, 1526, 60] {
        card.wire.send(&frame(len)).unwrap();
    }
    assert_eq!(card.received(), [1526, 60]);
    assert_eq!(card.driver.read(buffers[0] + 10, 2), [1, 0]);
    assert_eq!(card.driver.read(buffers[1] + 10, 2), [1, 0]);
}

/// A full queue must stop the card from polling the tap, and new buffers must start it again (CVE-2020-16843).
#[test]
fn a_stall_ends_with_the_guests_notification() {
    for features in [0, RING_FEATURES] {
        let mut card = Card::new(false, features);
        assert!(card.tap_is_watched());
        for round in 0..20 {
            for _ in 0..4 {
                card.wire.send(&frame(100)).unwrap();
            }
            assert!(card.received().is_empty(), "round {round}: no buffers");
            assert!(!card.tap_is_watched(), "a tap that nothing can be done about is left alone");
            card.post(3, 2000);
            assert_eq!(card.received(), [100; 3]);
            assert!(!card.tap_is_watched());
            card.post(2, 2000);
            assert_eq!(card.received(), [100]);
            assert!(card.tap_is_watched(), "a buffer is left");
            card.wire.send(&frame(100)).unwrap();
            assert_eq!(card.received(), [100]);
        }
    }
}

#[test]
fn merged_buffers_are_waited_for_until_the_longest_frame_fits() {
    let mut card = Card::new(true, RING_FEATURES);
    card.post(16, 4096);
    card.wire.send(&frame(100)).unwrap();
    assert!(card.received().is_empty());
    assert!(!card.tap_is_watched());
    card.post(1, 4096);
    assert_eq!(card.received(), [100]);
}

#[test]
fn a_small_queue_makes_do_with_what_it_holds() {
    let mut card = Card::with_sizes(true, 0, &[4, 4]);
    card.post(4, 1000);
    card.wire.send(&frame(4001)).unwrap();
    card.wire.send(&frame(1500)).unwrap();
    assert_eq!(card.received(), [1000, 500], "what does not fit all of it is lost");
}

#[test]
fn a_call_receives_a_limited_number_of_frames() {
    let mut card = Card::new(false, 0);
    card.post(200, 100);
    let mut sent = 0;
    while sent < 8 && card.wire.send(&frame(50)).is_ok() {
        sent += 1;
    }
    card.watched.turn(&mut card.worker).unwrap();
    let mut total = drain(&mut card.driver.queues[RX]).len();
    assert_eq!(total, sent.min(MAX_FRAMES_PER_CALL));
    for _ in 0..20 {
        while card.wire.send(&frame(50)).is_ok() {}
        total += card.received().len();
    }
    assert_eq!(total, 200);
}

#[test]
fn buffers_that_are_no_memory_or_too_short_stop_the_card() {
    for (address, len) in [(1 << 40, 2000), (u64::MAX - 10, 2000), (0x10_0000, 11)] {
        let mut card = Card::new(false, 0);
        card.driver.queues[RX].add(&[Piece::Write(address, len)]);
        card.wire.send(&frame(100)).unwrap();
        let error = card.watched.settle(&mut card.worker).unwrap_err();
        assert!(matches!(error, HandlerError::Queue { queue: 0, .. }), "{error}");
    }
}

#[test]
fn segments_are_left_to_the_guest_only_with_checksums() {
    let all = FEATURES.into_iter().fold(0, |features, bit| features | 1 << bit);
    assert_eq!(offloads(all), tap::Offloads { checksum: true, tso4: true, tso6: true });
    assert_eq!(offloads(all & !(1 << VIRTIO_NET_F_GUEST_CSUM)), tap::Offloads::default());
    let only4 = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4;
    assert_eq!(offloads(only4), tap::Offloads { checksum: true, tso4: true, tso6: false });
}

fn card(tap: &File, mover: Mover, driver: &Driver) -> Result<Net, Error> {
    let tap = tap.try_clone().unwrap();
    Net::new(NetConfig { tap, mac: [2, 0, 0, 0, 0, 1], mover }, &driver.memory)
}

#[test]
fn what_is_no_vhost_is_refused() {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
    let refused = card(&null(), Mover::Kernel(null()), &Driver::new(QUEUE_SIZES)).unwrap_err();
    assert!(refused.to_string().contains("vhost-net"), "{refused}");
}

/// Where the kernel has vhost-net, and this process may make taps; elsewhere there is nothing to try.
#[test]
fn the_kernel_moves_frames() {
    let in_namespace = std::thread::spawn(|| {
        if !matches!(vhost::open(), Ok(Some(_))) {
            return;
        }
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tap = tap::open("rkt-test", Queues::One).unwrap();
        // A device that is reset starts anew.
        for _ in 0..2 {
            let mut driver = Driver::new(QUEUE_SIZES);
            let mut net = card(&tap, Mover::Kernel(vhost::open().unwrap().unwrap()), &driver).unwrap();
            for _ in 0..2 {
                drop(net.activate(driver.activation(net.features())).unwrap());
            }
            let mut served = net.activate(driver.activation(net.features())).unwrap();
            driver.queues[TX].add(&[Piece::Read(0x20_0000, 100)]);
            driver.queues[TX].notify.write(1).unwrap();
            // The interface is down, so that the frame is lost, and its buffer returned.
            while drain(&mut driver.queues[TX]).is_empty() {
                std::thread::yield_now();
            }
            // A driver that breaks the rules is told to reset the device.
            let mut watched = Watched::default();
            served.start(&mut watched).unwrap();
            assert_eq!(watched.settle(served.as_mut()).unwrap(), 0);
            driver.queues[TX].add(&[Piece::Read(1 << 40, 100)]);
            driver.queues[TX].notify.write(1).unwrap();
            while watched.settle(served.as_mut()).is_ok() {
                std::thread::yield_now();
            }
        }
    });
    in_namespace.join().unwrap();
}

/// Needs the right to make network namespaces and taps; where that is missing there is nothing to try.
#[test]
fn a_real_tap_carries_frames() {
    let in_namespace = std::thread::spawn(|| {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        let tap = match tap::open("rkt-test", Queues::One) {
            Ok(tap) => tap,
            Err(tap::TapError::Open(_)) => return,
            Err(error) => panic!("{error}"),
        };
        let second = tap::open("rkt-test", Queues::One).unwrap_err();
        assert!(second.to_string().contains("rkt-test"), "{second}");
        let many = [(); 2].map(|()| tap::open("rkt-many", Queues::Many));
        assert!(many.iter().all(Result::is_ok), "{many:?}");
        assert!(tap::open("rkt-many", Queues::One).is_err(), "it is what it was made");
        let driver = Driver::new(QUEUE_SIZES);
        let mut net = card(&tap, Mover::Vmm(Throttles::default()), &driver).unwrap();
        assert_eq!(net.config(), [2, 0, 0, 0, 0, 1]);
        for features in [0, net.features(), 1 << VIRTIO_NET_F_GUEST_CSUM] {
            assert!(net.activate(driver.activation(features)).is_ok());
        }
        assert_eq!((&tap).read(&mut [0; 2000]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let down = (&tap).write(&frame(100)).unwrap_err();
        assert_eq!(down.raw_os_error(), Some(nix::libc::EIO), "the interface is down");
    });
    in_namespace.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_chains_never_panic(
        buffers in proptest::collection::vec((any::<bool>(), 0..0x20_0000_u64, prop_oneof![0..3000_u32, any::<u32>()]), 1..20),
        frames in proptest::collection::vec(12..3000_usize, 0..8),
        mergeable in any::<bool>()
    ) {
        let mut card = Card::new(mergeable, RING_FEATURES);
        for (send, offset, len) in buffers {
            let address = 0x10_0000 + offset;
            let (queue, piece) = if send { (TX, Piece::Read(address, len)) } else { (RX, Piece::Write(address, len)) };
            card.driver.queues[queue].add(&[piece]);
        }
        for len in frames {
            let _full = card.wire.send(&frame(len));
        }
        let _either_way = card.watched.settle(&mut card.worker);
    }
}
