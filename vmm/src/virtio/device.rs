//! What a virtio device is to its transport: an inert description until the driver says DRIVER_OK, then a worker
//! that owns its queues. The transport hands the queues over by value, so nothing but the worker can touch them
//! while the device runs (virtio 1.2, section 3.1.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::event_loop::EventHandler;
use crate::memory::DeviceMemory;

/// Virtio device IDs (virtio 1.2, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// Network card.
    Net = 1,
    /// Block device.
    Block = 2,
    /// Console.
    Console = 3,
    /// Entropy source.
    Rng = 4,
    /// Memory balloon.
    Balloon = 5,
    /// Socket device.
    Vsock = 19,
    /// File system device.
    Fs = 26,
    /// Persistent memory.
    Pmem = 27,
}

/// `VIRTIO_MMIO_INT_VRING`: the device has used a buffer.
pub const INTERRUPT_VRING: u32 = 1;
/// `VIRTIO_MMIO_INT_CONFIG`: the device's configuration has changed, or it needs a reset.
pub const INTERRUPT_CONFIG: u32 = 2;

/// In the register, but not for the driver: that the interrupt is raised by somebody who does not write it.
const HANDED_OVER: u32 = 1 << 31;

/// What the driver reads of the register.
pub fn shown(status: u32) -> u32 {
    if status & HANDED_OVER != 0 { status & !HANDED_OVER | INTERRUPT_VRING } else { status }
}

/// What is left of the register when the driver acknowledges `reasons`.
pub fn acknowledged(reasons: u32) -> u32 {
    !reasons | HANDED_OVER
}

/// How a device interrupts the guest: an irqfd, and the InterruptStatus register that the driver reads afterwards.
#[derive(Clone, Debug)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    irqfd: Arc<EventFd>,
}

impl Interrupt {
    /// An interrupt line with the register `status` that the transport shows to the driver.
    pub fn new(status: Arc<AtomicU32>, irqfd: Arc<EventFd>) -> Self {
        Self { status, irqfd }
    }

    /// Tells the driver that a buffer was used.
    pub fn signal_queue(&self) -> std::io::Result<()> {
        self.signal(INTERRUPT_VRING)
    }

    /// Tells the driver that the configuration changed.
    pub fn signal_config(&self) -> std::io::Result<()> {
        self.signal(INTERRUPT_CONFIG)
    }

    /// Leaves the line to somebody who cannot write the register, until the device is reset. The driver reads there that a buffer
    /// was used whenever it is interrupted; it finds out by itself whether that is so.
    pub fn hand_over(&self) -> std::io::Result<EventFd> {
        self.status.fetch_or(HANDED_OVER, Ordering::SeqCst);
        self.irqfd.try_clone()
    }

    fn signal(&self, reason: u32) -> std::io::Result<()> {
        self.status.fetch_or(reason, Ordering::SeqCst);
        self.irqfd.write(1)
    }
}

/// A queue that the driver has set up, and the ioeventfd by which it notifies of new buffers.
#[derive(Debug)]
pub struct ActiveQueue {
    /// The queue; it validates every index and address that it reads from guest memory.
    pub queue: Queue,
    /// Readable when the driver has made buffers available.
    pub notify: EventFd,
}

/// Everything a device gets when the driver sets DRIVER_OK.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory. Parts of it are read-only (pmem): vm-memory's and virtio-queue's readers and writers
    /// get an error for a write there, so treat a failed access as a broken request and never take host addresses
    /// without asking for the right [`vm_memory::Permissions`]. In tests: `DeviceMemory::from(GuestMemoryMmap)`.
    pub memory: DeviceMemory,
    /// The device's interrupt line.
    pub interrupt: Interrupt,
    /// The ready queues, in the order of [`VirtioDevice::queue_sizes`]; the transport has checked that all are ready.
    pub queues: Vec<ActiveQueue>,
    /// The features that the driver accepted, a subset of those offered.
    pub features: u64,
}

/// Why a device cannot start; the transport answers by setting DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// A host resource of the device could not be duplicated or registered.
    #[error("cannot set up the device's host side")]
    Host(#[source] std::io::Error),
    /// The driver left out something that the device cannot do without.
    #[error("the driver did not set up {0}")]
    Driver(&'static str),
}

/// A device behind the transport. Between activations it is only described; `activate` yields the worker that runs
/// on the I/O thread. A reset drops the worker, after which `activate` may be called again, so a device keeps its
/// own descriptors and gives the worker duplicates.
pub trait VirtioDevice: Send {
    /// The device ID.
    fn kind(&self) -> DeviceKind;

    /// The largest size of each queue, a power of two each; the length is the number of queues.
    fn queue_sizes(&self) -> &[u16];

    /// The features offered beside `VIRTIO_F_VERSION_1`, which the transport adds.
    fn features(&self) -> u64;

    /// The configuration space as the driver reads it; the transport answers reads past its end with zeros.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// Starts the device: returns the handler to run on the I/O thread.
    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError>;
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn a_line_that_is_handed_over_says_that_a_buffer_was_used_whatever_is_acknowledged() {
        let status = Arc::new(AtomicU32::new(0));
        let irqfd = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let interrupt = Interrupt::new(Arc::clone(&status), Arc::clone(&irqfd));
        assert_eq!(shown(status.load(Ordering::SeqCst)), 0);
        interrupt.hand_over().unwrap().write(1).unwrap();
        assert_eq!(irqfd.read().unwrap(), 1);
        interrupt.signal_config().unwrap();
        assert_eq!(shown(status.load(Ordering::SeqCst)), INTERRUPT_VRING | INTERRUPT_CONFIG);
        status.fetch_and(acknowledged(u32::MAX), Ordering::SeqCst);
        assert_eq!(shown(status.load(Ordering::SeqCst)), INTERRUPT_VRING);
    }
}
