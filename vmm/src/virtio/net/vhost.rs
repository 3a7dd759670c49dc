//! A card that the host's kernel serves (vhost-net): it moves frames between the tap and guest memory itself, by this process's
//! addresses, and no thread of this process wakes up for them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, Permissions};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::super::device::{ActivateError, Activation, ActiveQueue};
use super::super::queue::{RING_FEATURES, host};
use super::batch::in_batches;
use super::vhost_ioctl as ioctl;
use crate::error::Error;
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

/// Where the kernel is asked to serve a card.
pub const VHOST_DEVICE: &str = "/dev/vhost-net";

/// What the kernel has to know of virtio, for a driver may ask for all of it; the rest is the tap's.
const FEATURES: u64 = RING_FEATURES | 1 << VIRTIO_NET_F_MRG_RXBUF | FEATURE_VERSION_1;
/// `VIRTIO_F_VERSION_1`.
const FEATURE_VERSION_1: u64 = 1 << 32;
const TROUBLE: u32 = 0;

/// Opens the device once more, as each card needs it; `None` if this host has none.
pub fn open() -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(VHOST_DEVICE) {
        Ok(device) => Ok(Some(device)),
        // The node may be there without the module.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Ok(None),
            _ => Err(error),
        },
    }
}

/// A card's kernel end.
#[derive(Debug)]
pub struct Vhost {
    device: File,
    /// Readable when the driver has broken a queue's rules.
    trouble: EventFd,
}

impl Vhost {
    /// Has the kernel know `memory`, by the addresses of the calling process.
    pub fn new(device: File, memory: &DeviceMemory) -> Result<Self, Error> {
        let failed = Error::host("have the host's kernel serve a network card (vhost-net)");
        let trouble = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(&failed)?;
        own(&device, memory).map_err(failed)?;
        Ok(Self { device, trouble })
    }

    /// Has the kernel move frames between the queues and `tap`.
    pub fn serve(&self, activation: Activation, tap: &File) -> Result<Served, ActivateError> {
        let Activation { memory, interrupt, queues, features } = activation;
        let served = Served {
            device: self.device.try_clone().map_err(ActivateError::Host)?,
            trouble: self.trouble.try_clone().map_err(ActivateError::Host)?,
        };
        let call = interrupt.line().map_err(ActivateError::Host)?;
        ioctl::set_features(&self.device, features & FEATURES | FEATURE_VERSION_1).map_err(refused)?;
        for (index, ActiveQueue { queue, notify }) in (0..).zip(&queues) {
            let rings = Rings::of(queue, &memory).ok_or(ActivateError::Driver("its rings in its memory"))?;
            let (kick, call, trouble) = (notify.as_raw_fd(), call.as_raw_fd(), self.trouble.as_raw_fd());
            self.set_up(index, &rings, [kick, call, trouble]).map_err(refused)?;
        }
        for (index, _) in (0..).zip(&queues) {
            ioctl::set_backend(&self.device, index, Some(tap.as_raw_fd())).map_err(refused)?;
        }
        Ok(served)
    }

    fn set_up(&self, index: u32, rings: &Rings, [kick, call, trouble]: [i32; 3]) -> nix::Result<()> {
        let device = &self.device;
        ioctl::set_vring_num(device, index, rings.size)?;
        ioctl::set_vring_base(device, index, 0)?;
        ioctl::set_vring_addr(device, index, rings)?;
        ioctl::set_vring_kick(device, index, kick)?;
        ioctl::set_vring_call(device, index, call)?;
        ioctl::set_vring_err(device, index, trouble)
    }
}

fn own(device: &File, memory: &DeviceMemory) -> io::Result<()> {
    // The kernel makes a thread that moves the frames, since Linux 6.4 like one of the calling process.
    in_batches(|| ioctl::set_owner(device))??;
    let missing = FEATURES & !ioctl::features(device)?;
    if missing != 0 {
        return Err(io::Error::other(format!("it does not know the features {missing:#x}")));
    }
    Ok(ioctl::set_memory(device, memory)?)
}

fn refused(errno: Errno) -> ActivateError {
    ActivateError::Host(errno.into())
}

/// A queue's rings by this process's addresses.
pub struct Rings {
    size: u32,
    /// The table of descriptors.
    pub descriptors: u64,
    /// The ring that the driver writes.
    pub driver: u64,
    /// The ring that the device writes.
    pub device: u64,
}

impl Rings {
    /// `None` if they are not all in the guest's memory, or one that is to be written is in memory that is not. Their sizes are those of
    /// virtio 1.2, section 2.7.
    fn of(queue: &Queue, memory: &DeviceMemory) -> Option<Self> {
        let size = usize::from(queue.size());
        let address = |start, bytes, access| {
            let ring = memory.slice(GuestAddress(start), bytes, access).ok()?;
            Some(ring.ptr_guard().as_ptr() as u64)
        };
        Some(Self {
            size: u32::from(queue.size()),
            descriptors: address(queue.desc_table(), 16 * size, Permissions::Read)?,
            driver: address(queue.avail_ring(), 6 + 2 * size, Permissions::Read)?,
            device: address(queue.used_ring(), 6 + 8 * size, Permissions::Write)?,
        })
    }
}

/// Queues that the kernel serves, until this is dropped.
#[derive(Debug)]
pub struct Served {
    device: File,
    trouble: EventFd,
}

impl EventHandler for Served {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        registry.add(self.trouble.as_raw_fd(), EventSet::IN, TROUBLE).map_err(host("watching vhost-net"))
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        // The next driver begins without it.
        let _seen = self.trouble.read();
        let source = io::Error::other(
            "the driver broke the rules of a queue, or gave it memory that it does not have",
        );
        Err(HandlerError::Host { what: "serving the card by vhost-net", source })
    }
}

impl Drop for Served {
    /// When this returns the kernel uses neither the queues nor the tap.
    fn drop(&mut self) {
        for index in 0..super::QUEUE_SIZES.len() as u32 {
            // It had none, if it was not set up to the end.
            let _none = ioctl::set_backend(&self.device, index, None);
        }
    }
}
