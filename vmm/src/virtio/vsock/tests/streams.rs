//! Data and its end, in both directions.

use super::*;

#[test]
fn the_guest_connects_and_both_talk() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    guest.send_data(1, b"question");
    let mut text = [0; 8];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"question");
    host.write_all(b"answer").unwrap();
    assert_eq!(guest.take_data().0, b"answer");
    assert_eq!(guest.sockets_watched(), 1);
}

#[test]
fn ports_that_nobody_has_are_refused() {
    let mut guest = Guest::new();
    guest.send_raw(guest.header(Operation::Request, 1, HOST_PORT + 1), &[]);
    assert_eq!(guest.take(), [(Operation::Reset, 1)]);
    drop(std::mem::replace(&mut guest.receiver, channel().1));
    guest.send(Operation::Request, 1);
    assert_eq!(guest.take(), [(Operation::Reset, 1)], "the receiver is gone");
}

#[test]
fn the_host_connects_and_both_talk() {
    let mut guest = Guest::new();
    let mut host = guest.connect_from_host();
    host.write_all(b"early").unwrap();
    guest.run();
    let (request, _) = guest.inbox.pop_front().unwrap();
    assert_eq!((request.operation(), request.dst_port), (Some(Operation::Request), GUEST_PORT));
    assert!(guest.inbox.is_empty(), "no data before the guest has answered");
    guest.send_raw(guest.header(Operation::Response, GUEST_PORT, request.src_port), &[]);
    assert_eq!(guest.take_data().0, b"early");
    let reply = Header { len: 2, ..guest.header(Operation::Data, GUEST_PORT, request.src_port) };
    guest.send_raw(reply, b"ok");
    let mut text = [0; 2];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"ok");
}

#[test]
fn a_host_client_that_left_early_is_still_heard() {
    let mut guest = Guest::new();
    let mut host = guest.connect_from_host();
    host.write_all(b"bye").unwrap();
    drop(host);
    guest.run();
    let (request, _) = guest.inbox.pop_front().unwrap();
    guest.send_raw(guest.header(Operation::Response, GUEST_PORT, request.src_port), &[]);
    let (data, others) = guest.take_data();
    assert_eq!(data, b"bye");
    assert_eq!(others.last().map(|header| header.flags), Some(ALL_DONE.flags()));
}

#[test]
fn a_refused_host_client_is_closed() {
    let mut guest = Guest::new();
    let mut host = guest.connect_from_host();
    guest.run();
    let (request, _) = guest.inbox.pop_front().unwrap();
    guest.send_raw(guest.header(Operation::Reset, GUEST_PORT, request.src_port), &[]);
    assert!(is_eof(&mut host));
    assert_eq!(guest.sockets_watched(), 0);
}

/// Echoes `total` bytes between a guest with `window` bytes of credit and a host program, checking every byte.
fn echo(total: usize, buffers: usize, buffer_len: u32, window: u32) {
    let mut guest = Guest::with_buffers(buffers, buffer_len);
    guest.window = window;
    let mut host = guest.connect(1);
    let program = std::thread::spawn(move || {
        let mut buffer = vec![0; 100_000];
        loop {
            match host.read(&mut buffer).unwrap() {
                0 => return,
                count => host.write_all(&buffer[..count]).unwrap(),
            }
        }
    });
    let data = pattern(total);
    let (mut sent, mut received) = (0, 0);
    let mut credit = (256_u32 << 10, 0_u32);
    let deadline = Instant::now() + Duration::from_secs(60);
    while received < total {
        assert!(Instant::now() < deadline, "{sent} sent, {received} received");
        let room = credit.0 as usize - (sent - credit.1 as usize);
        let step = room.min(50_000).min(total - sent);
        if step > 0 {
            guest.send_data(1, &data[sent..sent + step]);
            sent += step;
        }
        guest.run();
        let consumed = guest.fwd_cnt;
        for (header, _) in &guest.inbox {
            credit = (header.buf_alloc, header.fwd_cnt);
        }
        let (bytes, _) = guest.take_data();
        assert_eq!(bytes, data[received..received + bytes.len()]);
        received += bytes.len();
        assert!(bytes.len() <= window as usize, "within the guest's credit");
        if guest.fwd_cnt != consumed {
            guest.send(Operation::CreditUpdate, 1);
        }
    }
    guest.shut_down(1, SEND_DONE);
    program.join().unwrap();
    let (_, others) = guest.take_data();
    assert_eq!(others.last().map(|header| header.flags), Some(ALL_DONE.flags()));
}

#[test]
fn ten_megabytes_both_ways() {
    echo(10 << 20, 64, 4096, 1 << 18);
}

#[test]
fn small_buffers_and_a_small_window() {
    echo(1 << 20, 3, 100, 7001);
}

#[test]
fn the_host_stops_sending_and_still_receives() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    let data = pattern(500_000);
    let (writer, expected) = (host.try_clone().unwrap(), data.clone());
    let program = std::thread::spawn(move || {
        (&writer).write_all(&data).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    let flags = loop {
        let (bytes, others) = guest.take_data();
        assert!(bytes.is_empty() || received.len() + bytes.len() <= expected.len());
        received.extend(bytes);
        if let Some(shutdown) = others.iter().find(|header| header.operation() == Some(Operation::Shutdown)) {
            break shutdown.flags;
        }
    };
    program.join().unwrap();
    assert!(received == expected, "everything before the end");
    assert_eq!(flags, SEND_DONE.flags());
    guest.send_data(1, b"thanks");
    let mut text = [0; 6];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"thanks");
    guest.shut_down(1, ALL_DONE);
    assert!(is_eof(&mut host));
    assert_eq!(guest.take(), [(Operation::Reset, 1)]);
    assert_eq!(guest.sockets_watched(), 0);
}

#[test]
fn the_guest_stops_sending_and_still_receives() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    guest.send_data(1, b"last");
    guest.shut_down(1, SEND_DONE);
    let mut text = Vec::new();
    host.read_to_end(&mut text).unwrap();
    assert_eq!(text, b"last");
    host.write_all(b"reply").unwrap();
    assert_eq!(guest.take_data().0, b"reply");
    drop(host);
    let (_, others) = guest.take_data();
    assert_eq!(others.last().map(|header| header.flags), Some(ALL_DONE.flags()));
    guest.send(Operation::Reset, 1);
    assert_eq!(guest.take(), []);
    assert_eq!(guest.sockets_watched(), 0);
}

#[test]
fn a_guest_that_stops_receiving_fails_the_hosts_writes() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    host.write_all(b"x").unwrap();
    assert_eq!(guest.take_data().0, b"x");
    guest.shut_down(1, RECEIVE_DONE);
    assert_eq!(host.write_all(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send_data(1, b"but this arrives");
    let mut text = [0; 16];
    host.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"but this arrives");
}

/// What a guest sends before it closes, resets or drops dead is all delivered, though the host reads only afterwards.
#[test]
fn the_last_bytes_are_delivered_whatever_the_end() {
    type End = fn(&mut Guest);
    let ends: [End; 3] = [
        |guest| guest.shut_down(1, ALL_DONE),
        |guest| guest.send(Operation::Reset, 1),
        |guest| guest.send_data(1, &vec![0; 300_000]),
    ];
    for end in ends {
        let mut guest = Guest::new();
        let mut host = guest.connect(1);
        // Far more than the socket takes, so that the device holds the rest.
        let data = pattern(250_000);
        let mut sent = 0;
        for part in data.chunks(50_000) {
            guest.send_data(1, part);
            sent += part.len();
        }
        assert_eq!(sent, data.len());
        end(&mut guest);
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            host.read_to_end(&mut text).unwrap();
            text
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() && Instant::now() < deadline {
            guest.run();
        }
        assert!(reader.join().unwrap() == data);
        guest.run();
        assert_eq!(guest.sockets_watched(), 0);
    }
}

/// The answer to a complete shutdown tells a guest that waits for it (SO_LINGER) that its data has been taken.
#[test]
fn the_reset_comes_after_the_last_bytes() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    let data = pattern(250_000);
    data.chunks(50_000).for_each(|part| guest.send_data(1, part));
    let filled: usize = guest.take_data().1.iter().map(|header| header.fwd_cnt as usize).max().unwrap_or(0);
    assert!(filled < data.len(), "the device holds some");
    guest.shut_down(1, ALL_DONE);
    assert!(!guest.take().contains(&(Operation::Reset, 1)));
    let reader = std::thread::spawn(move || {
        let mut text = vec![0; data.len()];
        host.read_exact(&mut text).unwrap();
        text == data
    });
    while !reader.is_finished() {
        guest.run();
    }
    assert!(reader.join().unwrap());
    assert!(guest.take().contains(&(Operation::Reset, 1)));
}

#[test]
fn the_last_bytes_survive_the_device() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    // Small pieces fill a socket sooner, and big ones the rest.
    let data = pattern(256 << 10);
    for part in data.chunks(8 << 10) {
        guest.send_data(1, part);
    }
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        host.read_to_end(&mut text).unwrap();
        text
    });
    drop(guest.worker.take());
    assert!(reader.join().unwrap() == data);
}

#[test]
fn a_stuck_host_does_not_stop_the_device_for_long() {
    let mut guest = Guest::new();
    let _host = guest.connect(1);
    for _ in 0..4 {
        guest.send_data(1, &vec![1; 64 << 10]);
    }
    let start = Instant::now();
    drop(guest.worker.take());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_port_is_free_again_when_the_reset_is_out() {
    let mut guest = Guest::new();
    let mut first = guest.connect(1);
    guest.shut_down(1, ALL_DONE);
    assert_eq!(guest.take(), [(Operation::Reset, 1)]);
    let mut second = guest.connect(1);
    assert!(is_eof(&mut first));
    guest.send_data(1, b"2");
    let mut text = [0];
    second.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"2");
}

#[test]
fn a_host_that_closes_with_data_unread_is_not_the_guests_end() {
    let mut guest = Guest::new();
    let mut host = guest.connect(1);
    guest.send_data(1, b"never read");
    host.write_all(b"final words").unwrap();
    drop(host);
    let (data, others) = guest.take_data();
    assert_eq!(data, b"final words");
    assert_eq!(others.last().map(|header| header.flags), Some(ALL_DONE.flags()));
    guest.send_data(1, b"too late");
    assert_eq!(guest.take(), [], "no RST, or the guest might lose what it has not read");
    guest.shut_down(1, ALL_DONE);
    assert_eq!(guest.take(), [(Operation::Reset, 1)]);
}
