//! Guests that break the protocol.

use proptest::prelude::*;

use super::*;

#[test]
fn breaches_of_credit_are_reset() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    let stuffed: usize = 600_000;
    let mut reset = false;
    for _ in 0..stuffed / 50_000 {
        guest.send_data(1, &[1; 50_000]);
        reset |= guest.take().contains(&(Operation::Reset, 1));
    }
    assert!(reset, "a host that reads nothing stops the guest at the window and the socket's own buffer");
    // What was within the credit is delivered.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        host.read_to_end(&mut text).unwrap();
        text.len()
    });
    while !reader.is_finished() {
        guest.run();
    }
    assert!(reader.join().unwrap() >= 250_000);
}

#[test]
fn packets_of_no_connection_are_answered_with_reset() {
    let mut guest = Guest::new();
    for operation in [
        Operation::Response,
        Operation::Shutdown,
        Operation::Data,
        Operation::CreditUpdate,
        Operation::CreditRequest,
    ] {
        guest.send(operation, 9);
        assert_eq!(guest.take(), [(Operation::Reset, 9)], "{operation:?}");
    }
    guest.send(Operation::Reset, 9);
    assert_eq!(guest.take(), [], "a reset is not answered");
}

#[test]
fn wrong_addresses_are_dropped_and_wrong_kinds_reset() {
    let mut guest = Guest::new();
    let request = guest.header(Operation::Request, 1, HOST_PORT);
    for wrong in [
        Header { src_cid: CID + 1, ..request },
        Header { src_cid: CID | 1 << 32, ..request },
        Header { dst_cid: 3, ..request },
        Header { dst_cid: 0, ..request },
    ] {
        guest.send_raw(wrong, &[]);
        assert_eq!(guest.take(), []);
    }
    for wrong in [
        Header { kind: 2, ..request },
        Header { kind: 0, ..request },
        Header { op: 0, ..request },
        Header { op: 8, ..request },
    ] {
        guest.send_raw(wrong, &[]);
        assert_eq!(guest.take(), [(Operation::Reset, 1)]);
    }
    assert!(guest.receiver.try_recv().is_err());
    let mut host = guest.connect(1);
    guest.send(Operation::Request, 1);
    assert_eq!(guest.take(), [(Operation::Reset, 1)], "a second request");
    assert!(is_eof(&mut host));
}

/// A length in the header that the descriptors do not back (CVE-2019-18960).
#[test]
fn lengths_are_checked_against_the_buffers() {
    for len in [5, 1 << 16, 200_000] {
        let mut guest = Guest::new();
        let mut host = guest.connect(1);
        let header = Header { len, ..guest.header(Operation::Data, 1, HOST_PORT) };
        guest.send_raw(header, b"four");
        assert_eq!(guest.take(), [(Operation::Reset, 1)]);
        assert!(is_eof(&mut host));
    }
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    let header = Header { len: 2, ..guest.header(Operation::Data, 1, HOST_PORT) };
    guest.send_raw(header, b"four");
    let mut text = [0; 2];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"fo");
    assert!(would_wait(&mut host), "no more than the header says");
}

#[test]
fn headers_that_are_short_or_no_memory_are_passed_over() {
    let mut guest = Guest::new();
    let at = guest.tx_buffer;
    for pieces in [vec![Piece::Read(at, 43)], vec![Piece::Read(1 << 40, 44)], vec![Piece::Write(at, 44)]] {
        guest.driver.queues[TX].add(&pieces);
        guest.run();
    }
    assert_eq!(guest.take(), []);
    let _works_on = guest.connect(1);
}

#[test]
fn data_that_is_no_memory_resets() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    let header = Header { len: 100, ..guest.header(Operation::Data, 1, HOST_PORT) };
    guest.driver.write(guest.tx_buffer, &header.to_bytes());
    let pieces = [Piece::Read(guest.tx_buffer, 44), Piece::Read(1 << 40, 100)];
    guest.driver.queues[TX].add(&pieces);
    assert_eq!(guest.take(), [(Operation::Reset, 1)]);
    assert!(is_eof(&mut host));
}

#[test]
fn receive_buffers_without_room_stop_the_device() {
    let mut guest = Guest::with_buffers(1, 43);
    guest.driver.write(guest.tx_buffer, &guest.header(Operation::Request, 1, HOST_PORT).to_bytes());
    guest.driver.queues[TX].add(&[Piece::Read(guest.tx_buffer, 44)]);
    assert!(matches!(guest.try_run(), Err(HandlerError::Queue { queue: RX, .. })));
}

fn any_packet() -> impl Strategy<Value = (Header, usize)> {
    let ports = (0..3_u32, prop_oneof![4 => Just(HOST_PORT), 1 => Just(1 << 30), 1 => any::<u32>()]);
    let numbers = (0..9_u16, prop_oneof![9 => Just(1_u16), 1 => any::<u16>()], any::<u32>());
    let credit = (prop_oneof![0..10_000_u32, any::<u32>()], prop_oneof![0..10_000_u32, any::<u32>()]);
    (ports, numbers, credit, prop_oneof![0..2000_u32, any::<u32>()], 0..2000_usize).prop_map(
        |((guest, host), (op, kind, flags), (buf_alloc, fwd_cnt), len, size)| {
            let header = Header {
                src_cid: CID,
                dst_cid: 2,
                src_port: if host == 1 << 30 { GUEST_PORT } else { guest },
                dst_port: host,
                len,
                kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt,
            };
            (header, size)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_packets_never_panic_nor_spin(packets in proptest::collection::vec(any_packet(), 1..60)) {
        let mut guest = Guest::new();
        let mut client = guest.connect_from_host();
        let mut hosts = Vec::new();
        for (at, (header, size)) in packets.into_iter().enumerate() {
            guest.send_raw(header, &vec![1; size]);
            hosts.extend(guest.receiver.try_recv());
            for host in [&client].into_iter().chain(&hosts) {
                let _closed = (&*host).write(&[2; 100]);
            }
            if at % 16 == 15 {
                hosts.pop();
                client = guest.connect_from_host();
            }
        }
        guest.run();
        prop_assert!(guest.sockets_watched() <= 2 * MAX_CONNECTIONS);
    }
}
