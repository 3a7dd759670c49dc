//! The devices, each with its host's end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use vm_memory::GuestAddress;
use vmm::console::ConsoleLog;
use vmm::event_loop::EventHandler;
use vmm::virtio::balloon::Balloon;
use vmm::virtio::block::{Block, BlockConfig};
use vmm::virtio::console::Console;
use vmm::virtio::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use vmm::virtio::fs::{Fs, FsConfig};
use vmm::virtio::net::{Mover, Net, NetConfig};
use vmm::virtio::pmem::Pmem;
use vmm::virtio::rng::Rng;
use vmm::virtio::vsock::{Vsock, VsockConfig};

use crate::machine::{HostEnd, Program, ROM_BYTES, ROM_START, memory, run};

const DISK_BYTES: u64 = 32 << 10;

/// Runs the program in `data` against the device that `make` makes, given the first byte.
fn with(data: &[u8], make: impl FnOnce(u8) -> (Box<dyn VirtioDevice>, HostEnd)) {
    let Some((choice, program)) = data.split_first() else { return };
    if let Ok(program) = Program::arbitrary_take_rest(Unstructured::new(program)) {
        let (device, host) = make(*choice);
        run(program, device, host);
    }
}

fn no_host() -> HostEnd {
    Box::new(|_| ())
}

/// A disk, whose size the guest must not change.
pub fn block(data: &[u8]) {
    let disk = File::from(memfd_create(c"disk", MFdFlags::MFD_CLOEXEC).expect("a memory file"));
    disk.set_len(DISK_BYTES).expect("its size");
    let seen = disk.try_clone().expect("a duplicate");
    let make = |choice| {
        let device =
            Block::new(BlockConfig { file: disk, read_only: choice & 1 == 1, throttle: Default::default() })
                .expect("a disk");
        (Box::new(device) as Box<dyn VirtioDevice>, no_host())
    };
    with(data, make);
    assert_eq!(seen.metadata().expect("the disk").len(), DISK_BYTES);
}

/// The console; what it keeps is bounded.
pub fn console(data: &[u8]) {
    with(data, |_| (Box::new(Console::new(ConsoleLog::new(None))), no_host()));
}

/// The entropy source.
pub fn rng(data: &[u8]) {
    with(data, |_| (Box::new(Rng), no_host()));
}

/// The device that memory is given back by.
pub fn balloon(data: &[u8]) {
    with(data, |_| (Box::new(Balloon), no_host()));
}

/// Persistent memory.
pub fn pmem(data: &[u8]) {
    with(data, |_| (Box::new(Pmem::new(GuestAddress(ROM_START), ROM_BYTES)), no_host()));
}

/// A card whose tap is a datagram socket, which keeps frames apart, too; the host sends any frame.
pub fn net(data: &[u8]) {
    with(data, |_| {
        let (wire, tap) = UnixDatagram::pair().expect("sockets");
        wire.set_nonblocking(true).and_then(|()| tap.set_nonblocking(true)).expect("non-blocking sockets");
        let tap = File::from(OwnedFd::from(tap));
        let host = move |bytes: &[u8]| {
            let mut frame = [0; 0x1_1000];
            while wire.recv(&mut frame).is_ok() {}
            let (times, frame) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
            // A long frame of few bytes.
            let frame = frame.repeat(1 << (times % 12));
            let _full = wire.send(&frame[..frame.len().min(0x1_0000)]);
        };
        (
            Box::new(Card(
                Net::new(
                    NetConfig { tap, mac: [2, 0, 0, 0, 0, 1], mover: Mover::Vmm(Default::default()) },
                    &memory(),
                )
                .expect("a card"),
            )),
            Box::new(host),
        )
    });
}

/// A card on a socket, which knows no offloads.
struct Card(Net);

impl VirtioDevice for Card {
    fn kind(&self) -> DeviceKind {
        self.0.kind()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.0.queue_sizes()
    }

    fn features(&self) -> u64 {
        self.0.features()
    }

    fn config(&self) -> &[u8] {
        self.0.config()
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        self.0.handler(activation)
    }
}

/// A file system whose server answers anything, in any order.
pub fn fs(data: &[u8]) {
    with(data, |_| {
        let kind = SockType::SeqPacket;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (device, server) = socketpair(AddressFamily::Unix, kind, None, flags).expect("sockets");
        let mut server = Some(server);
        let host = move |bytes: &[u8]| {
            let Some(socket) = &server else { return };
            let mut request = vec![0; 0x1_1000];
            let _none = recv(socket.as_raw_fd(), &mut request, MsgFlags::empty());
            match bytes.split_first() {
                Some((0xff, _)) => server = None,
                // A reply that belongs to the request.
                Some((0, rest)) => {
                    let reply = [&(16 + rest.len() as u32).to_le_bytes()[..], &[0; 4], &request[8..16], rest]
                        .concat();
                    let _full = send(socket.as_raw_fd(), &reply, MsgFlags::MSG_NOSIGNAL);
                }
                _ => {
                    let _full = send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
                }
            }
        };
        let device = Fs::new(FsConfig { tag: "volume".into(), server: device }).expect("a device");
        (Box::new(device), Box::new(host))
    });
}

/// A socket device: the packets are the driver's, the host connects, writes, reads, shuts down and goes.
pub fn vsock(data: &[u8]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    with(data, |_| {
        let name = format!("rkt-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a listener");
        let streams: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let taken = Arc::clone(&streams);
        let hand_out = move || {
            let (ours, theirs) = UnixStream::pair().ok()?;
            theirs.set_nonblocking(true).ok()?;
            taken.lock().ok()?.push(theirs);
            Some(ours)
        };
        let config = VsockConfig {
            guest_cid: 3,
            to_host: vec![(1, Arc::new(hand_out)), (2, Arc::new(|| None))],
            to_guest: vec![(listener, 5)],
        };
        let host = move |bytes: &[u8]| {
            let mut streams = streams.lock().expect("the streams");
            let (action, bytes) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
            if let (0, true, Ok(stream)) =
                (action % 8, streams.len() < 32, UnixStream::connect_addr(&address))
            {
                stream.set_nonblocking(true).expect("a non-blocking stream");
                streams.push(stream);
            }
            if streams.is_empty() {
                return;
            }
            let at = usize::from(action >> 3) % streams.len();
            match action % 8 {
                1 | 2 => drop(streams[at].write(&bytes.repeat(if action % 8 == 1 { 1 } else { 4096 }))),
                3 | 4 => drop(streams[at].read(&mut vec![0; 1 << 18])),
                5 => drop(streams[at].shutdown(Shutdown::Write)),
                6 => drop(streams[at].shutdown(Shutdown::Read)),
                7 => drop(streams.swap_remove(at)),
                _ => {}
            }
        };
        (Box::new(Vsock::new(config).expect("a device")), Box::new(host))
    });
}
