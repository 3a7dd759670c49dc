//! Stalls, limits and what things cost.

use super::*;

#[test]
fn a_guest_without_buffers_stalls_quietly_and_resumes() {
    let mut guest = Guest::with_buffers(2, 1000);
    let mut host = guest.connect(1);
    guest.reposts = false;
    let data = pattern(5000);
    host.write_all(&data).unwrap();
    // Two posted buffers, then none: settling proves that nothing spins.
    let (mut received, _) = guest.take_data();
    assert_eq!(received.len(), 2 * (1000 - HEADER_BYTES));
    assert_eq!(guest.take_data().0, b"");
    guest.post(1);
    received.extend(guest.take_data().0);
    assert_eq!(received.len(), 3 * (1000 - HEADER_BYTES));
    guest.reposts = true;
    guest.post(2);
    received.extend(guest.take_data().0);
    assert!(received == data);
}

#[test]
fn a_guest_without_credit_stalls_quietly_and_resumes() {
    let mut guest = Guest::new();
    guest.window = 1000;
    let mut host = guest.connect(1);
    host.write_all(&pattern(2500)).unwrap();
    let (first, others) = guest.take_data();
    assert_eq!(first.len(), 1000);
    assert_eq!(others[0].operation(), Some(Operation::CreditRequest));
    drop(host);
    assert_eq!(guest.take_data().0, b"", "a closed host end does not make the loop spin");
    guest.send(Operation::CreditUpdate, 1);
    assert_eq!(guest.take_data().0.len(), 1000);
    guest.send(Operation::CreditUpdate, 1);
    let (last, others) = guest.take_data();
    assert_eq!(last.len(), 500);
    assert_eq!(others.last().map(|header| header.flags), Some(ALL_DONE.flags()));
}

#[test]
fn connections_of_the_guest_are_limited() {
    let mut guest = Guest::new();
    let hosts: Vec<UnixStream> = (0..MAX_CONNECTIONS as u32).map(|port| guest.connect(port)).collect();
    guest.send(Operation::Request, 10_000);
    assert_eq!(guest.take(), [(Operation::Reset, 10_000)]);
    let mut host = guest.connect_from_host();
    guest.run();
    let (request, _) = guest.inbox.pop_front().unwrap();
    assert_eq!(request.operation(), Some(Operation::Request), "the host's are counted apart");
    host.write_all(b"x").unwrap();
    drop(hosts);
    for port in 0..MAX_CONNECTIONS as u32 {
        guest.send(Operation::Reset, port);
    }
    guest.take();
    let _room_again = guest.connect(10_000);
}

#[test]
fn closed_connections_that_nobody_took_are_still_counted() {
    let mut guest = Guest::new();
    let mut refused = 0;
    for port in 0..MAX_CONNECTIONS as u32 + 10 {
        guest.send(Operation::Request, port);
        let answer = guest.take();
        refused += usize::from(answer == [(Operation::Reset, port)]);
        guest.send(Operation::Reset, port);
    }
    assert_eq!(refused, 10, "descriptors in the channel are bounded");
    while guest.receiver.try_recv().is_ok() {}
    guest.run();
    assert_eq!(guest.sockets_watched(), 0);
    let _room_again = guest.connect(1);
}

#[test]
fn connections_of_the_host_are_limited_and_wait() {
    let mut guest = Guest::with_buffers(200, 4096);
    let listener = guest.watched.len();
    let mut hosts = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        hosts.push(guest.connect_from_host());
        guest.run();
    }
    let waiting = guest.connect_from_host();
    assert_eq!(guest.take().len(), MAX_CONNECTIONS);
    assert!(guest.watched.len() < listener, "the listener is left alone");
    let first_port = 1 << 30;
    guest.send_raw(guest.header(Operation::Reset, GUEST_PORT, first_port), &[]);
    assert_eq!(guest.take(), [(Operation::Request, GUEST_PORT)]);
    drop(waiting);
}

#[test]
fn stray_packets_wait_for_room_for_their_answers() {
    const PACKETS: u32 = 3 * MAX_RESETS as u32;
    let mut guest = Guest::with_buffers(16, 64);
    guest.reposts = false;
    for port in 0..PACKETS {
        guest.driver.write(
            guest.tx_buffer + 64 * u64::from(port),
            &guest.header(Operation::Data, port, 1).to_bytes(),
        );
        guest.driver.queues[TX].add(&[Piece::Read(guest.tx_buffer + 64 * u64::from(port), 44)]);
    }
    assert_eq!(guest.take().len(), 16);
    guest.reposts = true;
    guest.post(16);
    let answered = guest.take();
    assert_eq!(answered.len(), PACKETS as usize - 16);
    assert_eq!(answered.last(), Some(&(Operation::Reset, PACKETS - 1)));
}

#[test]
fn interrupts_are_batched() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    guest.driver.interrupts();
    host.write_all(&pattern(100_000)).unwrap();
    assert_eq!(guest.take_data().0.len(), 100_000);
    let interrupts = guest.driver.interrupts();
    assert!(interrupts <= 8, "{interrupts} interrupts for 25 packets");
}

#[test]
fn a_reset_of_the_device_closes_its_connections() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    drop(guest.worker.take());
    assert!(is_eof(&mut host));
}

#[test]
fn reserved_context_ids_are_refused() {
    for guest_cid in [0, 1, 2, u32::MAX] {
        let config = VsockConfig { guest_cid, to_host: Vec::new(), to_guest: Vec::new() };
        assert!(matches!(Vsock::new(config), Err(VsockError::Cid(_))));
    }
}
