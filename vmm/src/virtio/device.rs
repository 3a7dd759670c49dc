//! What a virtio device is to its transport: an inert description until the driver says DRIVER_OK, then a worker
//! that owns its queues. The transport hands the queues over by value, so nothing but the worker can touch them
//! while the device runs (virtio 1.2, section 3.1.1).

use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::event_loop::EventHandler;
use crate::memory::DeviceMemory;
use crate::virtio::mmio::INTERRUPT_STATUS;
use crate::virtio::window::Window;

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

/// How a device interrupts the guest: an irqfd, and the InterruptStatus register that the driver reads afterwards.
///
/// The driver reads there at any time that a buffer was used, and finds out by itself whether that is so. So nobody has to write it
/// who uses buffers, which may be the kernel, and nobody has to be told that the driver has read it.
#[derive(Clone, Debug)]
pub struct Interrupt {
    window: Window,
    irqfd: Arc<EventFd>,
}

impl Interrupt {
    /// An interrupt line of the device with this window.
    pub fn new(window: Window, irqfd: Arc<EventFd>) -> Self {
        window.set(INTERRUPT_STATUS, INTERRUPT_VRING);
        Self { window, irqfd }
    }

    /// Tells the driver that a buffer was used.
    pub fn signal_queue(&self) -> std::io::Result<()> {
        self.irqfd.write(1)
    }

    /// Tells the driver that the configuration changed.
    pub fn signal_config(&self) -> std::io::Result<()> {
        self.window.add(INTERRUPT_STATUS, INTERRUPT_CONFIG);
        self.irqfd.write(1)
    }

    /// The driver has seen these reasons.
    pub fn acknowledge(&self, reasons: u32) {
        self.window.remove(INTERRUPT_STATUS, reasons & INTERRUPT_CONFIG);
    }

    /// The line, for somebody else who uses buffers.
    pub fn line(&self) -> std::io::Result<EventFd> {
        self.irqfd.try_clone()
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
    use crate::virtio::window::Windows;

    #[test]
    fn it_always_says_that_a_buffer_was_used_and_a_change_until_that_is_acknowledged() {
        let (window, irqfd) =
            (Windows::new().unwrap().window(0), Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()));
        let interrupt = Interrupt::new(window.clone(), Arc::clone(&irqfd));
        let status = || {
            let mut word = [0; 4];
            window.read(INTERRUPT_STATUS, &mut word);
            u32::from_le_bytes(word)
        };
        assert_eq!(status(), INTERRUPT_VRING);
        interrupt.line().unwrap().write(1).unwrap();
        interrupt.signal_queue().unwrap();
        assert_eq!(irqfd.read().unwrap(), 2);
        interrupt.signal_config().unwrap();
        assert_eq!(status(), INTERRUPT_VRING | INTERRUPT_CONFIG);
        interrupt.acknowledge(INTERRUPT_VRING);
        assert_eq!(status(), INTERRUPT_VRING | INTERRUPT_CONFIG);
        interrupt.acknowledge(u32::MAX);
        assert_eq!(status(), INTERRUPT_VRING);
    }
}
