use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::super::testing::{Arena, Driver, Piece, Watched, drain};
use super::*;

struct Fixture {
    driver: Driver,
    worker: Box<dyn EventHandler>,
    watched: Watched,
    server: Option<OwnedFd>,
    arena: Arena,
}

impl Fixture {
    fn new() -> Self {
        let (near, far) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let driver = Driver::new(QUEUE_SIZES);
        let mut device = Fs::new(FsConfig { tag: "v".into(), server: near }).unwrap();
        let mut worker = device.activate(driver.activation(0)).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        // The device has the guest's end; only the test has the server's.
        Self { driver, worker, watched, server: Some(far), arena: Arena::new() }
    }

    /// Offers a request of `len` bytes that begins with `mark`, with `room` for its reply, whose address is returned.
    fn ask(&mut self, queue: usize, mark: u8, len: u32, room: u32) -> u64 {
        let (request, reply) = (self.arena.take(len), self.arena.take(room));
        self.driver.write(request, &vec![mark; len as usize]);
        let pieces = [Piece::Read(request, len), Piece::Write(reply, room)];
        self.driver.queues[queue].add(if room == 0 { &pieces[..1] } else { &pieces });
        reply
    }

    fn settle(&mut self) {
        self.watched.settle(&mut *self.worker).unwrap();
    }

    fn served(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2 * MAX_REQUEST_BYTES];
        let server = self.server.as_ref().unwrap().as_raw_fd();
        let count = recv(server, &mut packet, MsgFlags::MSG_DONTWAIT).ok()?;
        packet.truncate(count);
        Some(packet)
    }

    fn reply(&self, bytes: &[u8]) {
        send(self.server.as_ref().unwrap().as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
    }
}

#[test]
fn tags() {
    let device = |tag: &str| {
        let server = UnixStream::pair().unwrap().0.into();
        Fs::new(FsConfig { tag: tag.into(), server })
    };
    assert_eq!(&device("data").unwrap().config()[..6], b"data\0\0");
    assert_eq!(device(&"x".repeat(36)).unwrap().config()[36..], [1, 0, 0, 0]);
    assert!(device("").is_err() && device("a\0b").is_err() && device(&"x".repeat(37)).is_err());
}

#[test]
fn replies_belong_to_requests_in_their_order_over_both_queues() {
    let mut fixture = Fixture::new();
    let first = fixture.ask(1, 1, 100, 64);
    fixture.settle();
    fixture.ask(0, 2, 48, 0);
    fixture.settle();
    let third = fixture.ask(1, 3, 40, 16);
    fixture.settle();
    for (mark, len) in [(1, 100), (2, 48), (3, 40)] {
        assert_eq!(fixture.served(), Some(vec![mark; len]));
    }
    assert_eq!(fixture.driver.interrupts(), 0);
    fixture.reply(&[7; 20]);
    fixture.reply(&[0]);
    fixture.reply(&[9; 17]);
    fixture.settle();
    assert_eq!(drain(&mut fixture.driver.queues[1]), [(0, 20), (2, 16)]);
    assert_eq!(drain(&mut fixture.driver.queues[0]), [(0, 0)]);
    assert_eq!(fixture.driver.read(first, 21)[19..], [7, 0]);
    assert_eq!(fixture.driver.read(third, 17)[15..], [9, 0]);
    assert!(fixture.driver.interrupts() > 0);
}

#[test]
fn what_is_no_request_never_gets_to_the_server() {
    let mut fixture = Fixture::new();
    let short = fixture.ask(1, 5, 39, 64);
    let long = fixture.ask(1, 6, MAX_REQUEST_BYTES as u32 + 1, 64);
    fixture.driver.queues[1].add(&[Piece::Read(1 << 40, 100), Piece::Write(1 << 40, 100)]);
    fixture.settle();
    assert_eq!(fixture.served(), None);
    assert_eq!(drain(&mut fixture.driver.queues[1]), [(0, 16), (2, 16), (4, 0)]);
    for (reply, mark) in [(short, 5), (long, 6)] {
        let mut expected = vec![16, 0, 0, 0];
        expected.extend((-libc::EIO).to_le_bytes());
        expected.extend([mark; 8]);
        assert_eq!(fixture.driver.read(reply, 16), expected);
    }
}

#[test]
fn a_reply_to_nowhere_is_taken_away() {
    let mut fixture = Fixture::new();
    let request = fixture.arena.take(40);
    fixture.driver.queues[1].add(&[Piece::Read(request, 40), Piece::Write(1 << 40, 100)]);
    let good = fixture.ask(1, 1, 40, 64);
    fixture.settle();
    fixture.reply(&[8; 50]);
    fixture.reply(&[9; 50]);
    fixture.settle();
    assert_eq!(drain(&mut fixture.driver.queues[1]), [(0, 0), (2, 50)]);
    assert_eq!(fixture.driver.read(good, 1), [9]);
}

#[test]
fn requests_wait_for_a_server_that_is_slow() {
    let mut fixture = Fixture::new();
    for mark in 0..20 {
        fixture.ask(1, mark, MAX_REQUEST_BYTES as u32, 16);
    }
    fixture.settle();
    for mark in 0..20 {
        assert_eq!(fixture.served().map(|packet| (packet[0], packet.len())), Some((mark, MAX_REQUEST_BYTES)));
        fixture.reply(&[mark; 16]);
        fixture.settle();
    }
    assert_eq!(drain(&mut fixture.driver.queues[1]).len(), 20);
}

#[test]
fn without_a_server_every_request_fails() {
    let mut fixture = Fixture::new();
    let waiting = fixture.ask(1, 1, 40, 64);
    fixture.settle();
    fixture.server = None;
    fixture.settle();
    let late = fixture.ask(1, 2, 40, 64);
    fixture.settle();
    assert_eq!(drain(&mut fixture.driver.queues[1]), [(0, 16), (2, 16)]);
    for reply in [waiting, late] {
        assert_eq!(fixture.driver.read(reply + 4, 4), (-libc::EIO).to_le_bytes());
    }
}
