//! The device against a simulated guest that keeps the protocol as Linux does, or breaks it.

mod breaches;
mod limits;
mod streams;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use vmm_sys_util::tempdir::TempDir;

use super::super::testing::{Arena, Driver, Piece, Watched};
use super::muxer::{MAX_CONNECTIONS, MAX_RESETS};
use super::packet::{HEADER_BYTES, Halves, Header, Operation, TYPE_STREAM};
use super::*;
use crate::event_loop::HandlerError;

const CID: u64 = 5;
const HOST_PORT: u32 = 100;
const GUEST_PORT: u32 = 2000;
const RX: usize = 0;
const TX: usize = 1;
const SEND_DONE: Halves = Halves { receive: false, send: true };
const RECEIVE_DONE: Halves = Halves { receive: true, send: false };
const ALL_DONE: Halves = Halves { receive: true, send: true };

struct Guest {
    driver: Driver,
    worker: Option<Box<dyn EventHandler>>,
    watched: Watched,
    receiver: Receiver<UnixStream>,
    directory: TempDir,
    rx_buffers: VecDeque<u64>,
    rx_len: u32,
    /// Whether used buffers are posted again at once.
    reposts: bool,
    tx_buffer: u64,
    inbox: VecDeque<(Header, Vec<u8>)>,
    window: u32,
    fwd_cnt: u32,
}

impl Guest {
    fn new() -> Self {
        Self::with_buffers(64, 4096)
    }

    fn with_buffers(count: usize, rx_len: u32) -> Self {
        let (sender, receiver) = channel();
        let hand_out = move || {
            let (ours, theirs) = UnixStream::pair().ok()?;
            sender.send(theirs).ok()?;
            Some(ours)
        };
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.as_path().join("socket")).unwrap();
        let config = VsockConfig {
            guest_cid: CID as u32,
            to_host: vec![(HOST_PORT, Arc::new(hand_out))],
            to_guest: vec![(listener, GUEST_PORT)],
        };
        let mut device = Vsock::new(config).unwrap();
        let driver = Driver::new(QUEUE_SIZES);
        let mut worker = device.activate(driver.activation(device.features())).unwrap();
        let mut watched = Watched::default();
        worker.start(&mut watched).unwrap();
        let mut arena = Arena::new();
        let mut guest = Self {
            tx_buffer: arena.take(1 << 20),
            rx_buffers: (0..count).map(|_| arena.take(rx_len)).collect(),
            driver,
            worker: Some(worker),
            watched,
            receiver,
            directory,
            rx_len,
            reposts: true,
            inbox: VecDeque::new(),
            window: 1 << 20,
            fwd_cnt: 0,
        };
        guest.post(count);
        guest
    }

    /// Offers `count` buffers; they come back in the order in which they were offered.
    fn post(&mut self, count: usize) {
        for _ in 0..count {
            let address = self.rx_buffers.pop_front().unwrap();
            self.rx_buffers.push_back(address);
            self.driver.queues[RX].add(&[Piece::Write(address, self.rx_len)]);
        }
    }

    fn try_run(&mut self) -> Result<(), HandlerError> {
        loop {
            self.watched.settle(&mut **self.worker.as_mut().unwrap())?;
            while self.driver.queues[TX].take_used().is_some() {}
            let mut again = false;
            while let Some((head, len)) = self.driver.queues[RX].take_used() {
                let address = self.posted_address(head);
                let bytes = self.driver.read(address, len as usize);
                let (header, data) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
                let header = Header::from_bytes(header);
                assert_eq!(header.len as usize, data.len());
                assert_eq!((header.src_cid, header.dst_cid), (2, CID));
                self.inbox.push_back((header, data.to_vec()));
                if self.reposts {
                    self.post(1);
                    again = true;
                }
            }
            if !again {
                return Ok(());
            }
        }
    }

    fn run(&mut self) {
        self.try_run().unwrap();
    }

    fn posted_address(&self, head: u16) -> u64 {
        let descriptor = 0x4000 + 16 * u64::from(head);
        u64::from_le_bytes(self.driver.read(descriptor, 8).try_into().unwrap())
    }

    fn header(&self, operation: Operation, guest_port: u32, host_port: u32) -> Header {
        Header {
            src_cid: CID,
            dst_cid: 2,
            src_port: guest_port,
            dst_port: host_port,
            len: 0,
            kind: TYPE_STREAM,
            op: operation as u16,
            flags: 0,
            buf_alloc: self.window,
            fwd_cnt: self.fwd_cnt,
        }
    }

    fn send_raw(&mut self, header: Header, data: &[u8]) {
        self.driver.write(self.tx_buffer, &header.to_bytes());
        self.driver.write(self.tx_buffer + 64, data);
        let mut pieces = vec![Piece::Read(self.tx_buffer, HEADER_BYTES as u32)];
        if !data.is_empty() {
            pieces.push(Piece::Read(self.tx_buffer + 64, data.len() as u32));
        }
        self.driver.queues[TX].add(&pieces);
        self.run();
    }

    fn send(&mut self, operation: Operation, guest_port: u32) {
        self.send_raw(self.header(operation, guest_port, HOST_PORT), &[]);
    }

    fn shut_down(&mut self, guest_port: u32, halves: Halves) {
        let header = self.header(Operation::Shutdown, guest_port, HOST_PORT);
        self.send_raw(Header { flags: halves.flags(), ..header }, &[]);
    }

    fn send_data(&mut self, guest_port: u32, data: &[u8]) {
        let header = self.header(Operation::Data, guest_port, HOST_PORT);
        self.send_raw(Header { len: data.len() as u32, ..header }, data);
    }

    /// Opens a connection and returns the host's end of it.
    fn connect(&mut self, guest_port: u32) -> UnixStream {
        self.send(Operation::Request, guest_port);
        assert_eq!(self.take(), [(Operation::Response, guest_port)]);
        let stream = self.receiver.try_recv().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// The operations that have arrived, each with the guest's port.
    fn take(&mut self) -> Vec<(Operation, u32)> {
        self.run();
        self.inbox.drain(..).map(|(header, _)| (header.operation().unwrap(), header.dst_port)).collect()
    }

    /// The data that has arrived, and what else.
    fn take_data(&mut self) -> (Vec<u8>, Vec<Header>) {
        self.run();
        let (data, others): (Vec<_>, Vec<_>) =
            self.inbox.drain(..).partition(|(header, _)| header.operation() == Some(Operation::Data));
        let data: Vec<u8> = data.into_iter().flat_map(|(_, data)| data).collect();
        self.fwd_cnt = self.fwd_cnt.wrapping_add(data.len() as u32);
        (data, others.into_iter().map(|(header, _)| header).collect())
    }

    fn connect_from_host(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.as_path().join("socket")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// How many sockets of connections are watched: all but the two queues and the listener.
    fn sockets_watched(&self) -> usize {
        self.watched.len() - 3
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 1000) as u8).collect()
}

fn is_eof(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

fn would_wait(stream: &mut UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let result = stream.read(&mut [0; 1]);
    stream.set_nonblocking(false).unwrap();
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
