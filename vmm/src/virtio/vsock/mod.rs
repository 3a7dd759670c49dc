//! The socket device (virtio 1.2, section 5.10): stream sockets between programs of the guest and of the host.
//!
//! On the host, each connection is a Unix stream socket. Those that the guest opens are given one by the caller, for each
//! port; those that the host opens come in on a listening socket, one a port of the guest, so that a client needs no
//! handshake and cannot tell that its peer is in a VM.
//!
//! `packet` is the wire format, `connection` the protocol without I/O, `host_end` the socket with what it has not
//! taken, `entry` joins the two, `muxer` keeps all of them, and `worker` moves packets through the queues.

mod connection;
mod entry;
mod host_end;
mod muxer;
mod packet;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use self::muxer::Muxer;
use self::worker::{Listener, Worker};
use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, RING_FEATURES};
use crate::event_loop::EventHandler;

/// Packets to the guest, packets from it, events. The device has no events to tell.
const QUEUE_SIZES: &[u16] = &[256, 256, 16];
/// Whether the device offers stream sockets; one that offers no kind at all has them too.
const VIRTIO_VSOCK_F_STREAM: u32 = 0;
/// The context IDs below are those of the hypervisor, the loopback and the host.
const FIRST_GUEST_CID: u32 = 3;

/// Yields the host's end of a new connection, or `None` to refuse it; called on the I/O thread.
pub type HostEnds = Arc<dyn Fn() -> Option<UnixStream> + Send + Sync>;

/// What a socket device connects.
pub struct VsockConfig {
    /// The guest's context ID, at least 3 and not `u32::MAX`. It need not be unique: guests reach nobody but the host.
    pub guest_cid: u32,
    /// The host's ports, and where the device's ends of connections to them come from. Connecting to any other port is
    /// refused. Ports from 2^30 on are left to the other direction.
    pub to_host: Vec<(u32, HostEnds)>,
    /// Listening sockets, made non-blocking, each with the guest's port that its clients are connected to. Clients
    /// wait in the socket's backlog until the guest's driver runs; a port that nobody listens on closes them.
    pub to_guest: Vec<(UnixListener, u32)>,
}

/// Why there can be no socket device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The context ID has a meaning of its own.
    #[error("{0} cannot be a guest's context ID: choose one from {FIRST_GUEST_CID} on, below 2^32 - 1")]
    Cid(u32),
    /// A listening socket could not be made non-blocking.
    #[error("cannot make the listener for guest port {port} non-blocking")]
    Listener {
        /// The guest's port.
        port: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// A socket device.
pub struct Vsock {
    guest_cid: u64,
    config: [u8; 8],
    to_host: BTreeMap<u32, HostEnds>,
    to_guest: Vec<(UnixListener, u32)>,
}

impl Vsock {
    /// A socket device.
    pub fn new(config: VsockConfig) -> Result<Self, VsockError> {
        let VsockConfig { guest_cid, to_host, to_guest } = config;
        if !(FIRST_GUEST_CID..u32::MAX).contains(&guest_cid) {
            return Err(VsockError::Cid(guest_cid));
        }
        for (listener, port) in &to_guest {
            listener.set_nonblocking(true).map_err(|source| VsockError::Listener { port: *port, source })?;
        }
        let guest_cid = u64::from(guest_cid);
        Ok(Self {
            guest_cid,
            config: guest_cid.to_le_bytes(),
            to_host: to_host.into_iter().collect(),
            to_guest,
        })
    }

    fn listeners(&self) -> io::Result<Vec<Listener>> {
        let listener = |(socket, guest_port): &(UnixListener, u32)| {
            Ok(Listener { socket: socket.try_clone()?, guest_port: *guest_port, watched: false })
        };
        self.to_guest.iter().map(listener).collect()
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES | 1 << VIRTIO_VSOCK_F_STREAM
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let (memory, [to_guest, from_guest, _events]) = queue::open(activation)?;
        Ok(Box::new(Worker {
            memory,
            to_guest,
            from_guest,
            listeners: self.listeners().map_err(ActivateError::Host)?,
            muxer: Muxer::new(self.guest_cid, self.to_host.clone()),
            starved: false,
            backlog: false,
            exhausted: false,
        }))
    }
}
