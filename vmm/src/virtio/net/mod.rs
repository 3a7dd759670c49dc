//! The network card (virtio 1.2, section 5.1) over a tap interface of the host.
//!
//! Frames go straight between the tap and guest memory, moved by the I/O thread or, with [`vhost`], by the host's kernel. With the offloads, a frame between guest and host, or between
//! two guests, may be a segment of 64 KiB without a checksum: `tap` passes the header that says so through.

mod batch;
pub mod tap;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod throttle_tests;
pub mod vhost;
mod vhost_ioctl;
mod worker;

use std::fs::File;

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
};

use self::vhost::Vhost;
use self::worker::Worker;
use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, RING_FEATURES};
use super::throttle::Throttle;
use crate::error::Error;
use crate::event_loop::EventHandler;
use crate::memory::DeviceMemory;

/// The kernel parameter by which a guest's receive buffers may grow to half of 32 KiB, which is how it allocates them, so that a frame of
/// 64 KiB takes five and not 17 (`kernel-config/patches`).
pub const KERNEL_PARAMETER: &str = " virtio_net.rx_buffer_max=16000";

/// Frames to the guest, frames from it.
const QUEUE_SIZES: &[u16] = &[256, 256];
const FEATURES: [u32; 8] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MRG_RXBUF,
];

/// What a network card is made of.
#[derive(Debug)]
pub struct NetConfig {
    /// A tap as [`tap::open`] yields it: non-blocking, with a virtio header of 12 bytes before each frame.
    pub tap: File,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// Who moves frames between the tap and the guest.
    pub mover: Mover,
}

impl NetConfig {
    /// What it has open.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let vhost = match &self.mover {
            Mover::Kernel(device) => Some(device),
            Mover::Vmm(_) => None,
        };
        std::iter::once(&self.tap).chain(vhost)
    }
}

/// Who moves a card's frames.
#[derive(Debug)]
pub enum Mover {
    /// The I/O thread, which keeps limits; bytes are those of frames without their virtio headers.
    Vmm(Throttles),
    /// The host's kernel: [`vhost::VHOST_DEVICE`], opened for this card alone.
    Kernel(File),
}

/// The limits of a card's two directions, each of its own.
#[derive(Clone, Debug, Default)]
pub struct Throttles {
    /// Of frames to the guest: what is too much for the tap's queue meanwhile is lost.
    pub to_guest: Throttle,
    /// Of frames from it, which wait in its own queue.
    pub from_guest: Throttle,
}

/// A network card.
#[derive(Debug)]
pub struct Net {
    tap: File,
    /// The start of `struct virtio_net_config`; the rest belongs to features not offered.
    config: [u8; 6],
    mover: Prepared,
}

/// A [`Mover`] that knows the guest's memory.
#[derive(Debug)]
enum Prepared {
    Vmm(Throttles),
    Kernel(Vhost),
}

impl Net {
    /// A network card of a guest that has this memory.
    pub fn new(config: NetConfig, memory: &DeviceMemory) -> Result<Self, Error> {
        let mover = match config.mover {
            Mover::Vmm(throttles) => Prepared::Vmm(throttles),
            Mover::Kernel(device) => Prepared::Kernel(Vhost::new(device, memory)?),
        };
        Ok(Self { tap: config.tap, config: config.mac, mover })
    }

    /// The handler for a driver's queues. It asks the tap for no offloads, so that any descriptor that keeps frames
    /// apart will do.
    pub fn handler(&self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let throttles = match &self.mover {
            Prepared::Vmm(throttles) => throttles.clone(),
            Prepared::Kernel(vhost) => return Ok(Box::new(vhost.serve(activation, &self.tap)?)),
        };
        let mergeable = has(activation.features, VIRTIO_NET_F_MRG_RXBUF);
        let (memory, [to_guest, from_guest]) = queue::open(activation)?;
        let tap = self.tap.try_clone().map_err(ActivateError::Host)?;
        Ok(Box::new(Worker::new(memory, to_guest, from_guest, tap, mergeable, throttles)))
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURES.into_iter().fold(RING_FEATURES, |features, bit| features | 1 << bit)
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        tap::set_offloads(&self.tap, offloads(activation.features)).map_err(ActivateError::Host)?;
        self.handler(activation)
    }
}

/// What the host may leave to a driver that accepted `features`. Segments are cut only together with checksums.
fn offloads(features: u64) -> tap::Offloads {
    let checksum = has(features, VIRTIO_NET_F_GUEST_CSUM);
    tap::Offloads {
        checksum,
        tso4: checksum && has(features, VIRTIO_NET_F_GUEST_TSO4),
        tso6: checksum && has(features, VIRTIO_NET_F_GUEST_TSO6),
    }
}

fn has(features: u64, bit: u32) -> bool {
    features & 1 << bit != 0
}
