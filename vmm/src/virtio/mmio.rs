//! The virtio-mmio transport (virtio 1.2, section 4.2), version 2: a window of registers for each device.
//!
//! This is the only place that knows how far a driver has come, and so the only one that decides what it may
//! do: features change only before FEATURES_OK, queues only between FEATURES_OK and DRIVER_OK, and from DRIVER_OK
//! to the next reset the queues belong to the worker alone. A reset returns when the worker is gone.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::console::ConsoleLog;
use crate::event_loop::{WorkerId, Workers};
use crate::memory::DeviceMemory;
use crate::virtio::device::{
    ActivateError, Activation, ActiveQueue, INTERRUPT_CONFIG, Interrupt, VirtioDevice,
};
use crate::virtio::window::Window;

/// Where the driver reads the port at which it announces new buffers without a visit to this process. It is no register of the specification:
/// drivers that do not know it take [`QUEUE_NOTIFY`] (`kernel-config/patches`).
pub const NOTIFY_PORT: u64 = 0xf0;
/// Where the driver announces new buffers.
const QUEUE_NOTIFY: u64 = 0x50;
/// Where the driver reads what it was interrupted for.
pub const INTERRUPT_STATUS: u64 = 0x60;
/// Where it says that it has read that. If all of it is that buffers were used, nobody needs to know ([`Interrupt`]).
const INTERRUPT_ACK: u64 = 0x64;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "rkt", by which a driver knows that there is a [`NOTIFY_PORT`].
const VENDOR: u32 = 0x0074_6b72;
/// Where the configuration space starts.
const CONFIG: u64 = 0x100;
/// The registers that change.
const DEVICE_FEATURES: u64 = 0x10;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_READY: u64 = 0x44;
const STATUS: u64 = 0x70;
/// SHMLen and SHMBase: a region that does not exist has all ones (section 4.2.2).
const SHARED_MEMORY: [u64; 4] = [0xb0, 0xb4, 0xb8, 0xbc];

/// `VIRTIO_F_VERSION_1`: the driver knows virtio 1.x; there is no legacy interface here.
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Device status bits (section 2.1).
mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;

    /// The states in the order in which a driver goes through them.
    pub const FOUND: u32 = ACKNOWLEDGE | DRIVER;
    pub const NEGOTIATED: u32 = FOUND | FEATURES_OK;
    pub const RUNNING: u32 = NEGOTIATED | DRIVER_OK;
}

/// A queue as the driver has described it so far.
#[derive(Debug)]
struct QueueSetup {
    notify: EventFd,
    size_max: u16,
    size: u16,
    ready: bool,
    descriptors: u64,
    driver_ring: u64,
    device_ring: u64,
}

impl QueueSetup {
    fn new(size_max: u16, notify: EventFd) -> Self {
        Self {
            notify,
            size_max,
            size: size_max,
            ready: false,
            descriptors: 0,
            driver_ring: 0,
            device_ring: 0,
        }
    }

    fn reset(&mut self) {
        (self.size, self.ready) = (self.size_max, false);
        (self.descriptors, self.driver_ring, self.device_ring) = (0, 0, 0);
    }

    /// The queue for the worker; `None` if the driver has not set it up properly.
    fn build(&self, memory: &DeviceMemory) -> Option<Queue> {
        let mut queue = Queue::new(self.size_max).ok()?;
        queue.try_set_size(self.size).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver_ring)).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.device_ring)).ok()?;
        queue.set_ready(self.ready);
        queue.is_valid(memory).then_some(queue)
    }
}

/// A device's window, and what is behind it.
pub struct MmioTransport {
    window: Window,
    device: Box<dyn VirtioDevice>,
    memory: DeviceMemory,
    workers: Box<dyn Workers>,
    console: ConsoleLog,
    /// What the driver has set; without NEEDS_RESET, which is the device's to set, in the window alone.
    status: u32,
    interrupt: Interrupt,
    features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueSetup>,
    worker: Option<WorkerId>,
}

impl MmioTransport {
    /// Shows `device` in `window`. Its queues are notified through `notify`, one each, and it interrupts by `irqfd`.
    /// What goes wrong with the device later is noted on `console`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        window: Window,
        notify: Vec<EventFd>,
        irqfd: EventFd,
        memory: DeviceMemory,
        workers: Box<dyn Workers>,
        console: ConsoleLog,
    ) -> Self {
        let sizes = device.queue_sizes();
        let queues = sizes.iter().zip(notify).map(|(size, notify)| QueueSetup::new(*size, notify)).collect();
        let constant = [(0, MAGIC), (4, VERSION), (8, device.kind() as u32), (0xc, VENDOR)];
        let no_memory = SHARED_MEMORY.map(|register| (register, u32::MAX));
        constant.into_iter().chain(no_memory).for_each(|(register, value)| window.set(register, value));
        // No configuration here changes while the machine runs, and so ConfigGeneration is 0.
        window.fill(CONFIG, device.config());
        let transport = Self {
            device,
            memory,
            workers,
            console,
            status: 0,
            interrupt: Interrupt::new(window.clone(), Arc::new(irqfd)),
            window,
            features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
            worker: None,
        };
        transport.show();
        transport
    }

    /// The driver writes `data` at `offset` of the window. The configuration spaces here have no writable field.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let (true, Ok(word)) = (offset < CONFIG, <[u8; 4]>::try_from(data)) {
            self.write_register(offset, u32::from_le_bytes(word));
            self.show();
        }
    }

    /// Lets the driver read how far it has come.
    fn show(&self) {
        let selected = self.queues.get(self.queue_select as usize);
        self.window.set(DEVICE_FEATURES, word_of(self.offered(), self.features_select));
        self.window.set(QUEUE_SIZE_MAX, selected.map_or(0, |queue| queue.size_max.into()));
        self.window.set(QUEUE_READY, selected.map_or(0, |queue| queue.ready.into()));
        self.window.set_except(STATUS, status::NEEDS_RESET, self.status);
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            0x14 => self.features_select = value,
            0x20 => self.set_driver_features(value),
            0x24 => self.driver_features_select = value,
            0x30 => self.queue_select = value,
            0x38 => self.configure(|queue| queue.size = u16::try_from(value).unwrap_or(0)),
            QUEUE_READY => self.set_ready(value == 1),
            QUEUE_NOTIFY => self.notify(value),
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            STATUS => self.set_status(value),
            0x80 => self.configure(|queue| set_low(&mut queue.descriptors, value)),
            0x84 => self.configure(|queue| set_high(&mut queue.descriptors, value)),
            0x90 => self.configure(|queue| set_low(&mut queue.driver_ring, value)),
            0x94 => self.configure(|queue| set_high(&mut queue.driver_ring, value)),
            0xa0 => self.configure(|queue| set_low(&mut queue.device_ring, value)),
            0xa4 => self.configure(|queue| set_high(&mut queue.device_ring, value)),
            _ => {}
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | FEATURE_VERSION_1
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.status != status::FOUND {
            return;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            // Features from 64 up are not offered; a driver that asks for one nevertheless gets no FEATURES_OK.
            _ if value != 0 => self.driver_features |= !self.offered(),
            _ => {}
        }
    }

    /// There are new buffers in a queue.
    fn notify(&self, queue: u32) {
        if let Some(queue) = self.queues.get(queue as usize) {
            // A counter that is full has not been read yet.
            let _full = queue.notify.write(1);
        }
    }

    /// Changes the selected queue, if this is the time for it and the driver has not called it ready.
    fn configure(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if self.status != status::NEGOTIATED {
            return;
        }
        if let Some(queue) = self.queues.get_mut(self.queue_select as usize).filter(|queue| !queue.ready) {
            change(queue);
        }
    }

    fn set_ready(&mut self, ready: bool) {
        if self.status != status::NEGOTIATED {
            return;
        }
        if let Some(queue) = self.queues.get_mut(self.queue_select as usize) {
            queue.ready = ready;
        }
    }

    /// The driver's status only ever goes forward a step, to FAILED, or to nothing (section 3.1.1); all else is ignored.
    fn set_status(&mut self, value: u32) {
        let value = value & !status::NEEDS_RESET;
        match (self.status, value) {
            (_, 0) => self.reset(),
            (0, status::ACKNOWLEDGE) | (status::ACKNOWLEDGE, status::FOUND) => self.status = value,
            (status::FOUND, status::NEGOTIATED) if self.features_acceptable() => self.status = value,
            (status::NEGOTIATED, status::RUNNING) => {
                self.status = value;
                self.activate();
            }
            (current, _) if value == current | status::FAILED => self.status = value,
            _ => {}
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & FEATURE_VERSION_1 != 0
    }

    fn activate(&mut self) {
        if let Err(error) = self.start_worker() {
            let name = self.device.kind();
            self.console.note(&format!("the {name:?} device cannot start: {}", chain_of(&error)));
            ask_for_reset(&self.window, &self.interrupt);
        }
    }

    fn start_worker(&mut self) -> Result<(), ActivateError> {
        let mut queues = Vec::with_capacity(self.queues.len());
        for setup in &self.queues {
            let queue = setup.build(&self.memory).ok_or(ActivateError::Driver("a queue"))?;
            let notify = setup.notify.try_clone().map_err(ActivateError::Host)?;
            queues.push(ActiveQueue { queue, notify });
        }
        let handler = self.device.activate(Activation {
            memory: self.memory.clone(),
            interrupt: self.interrupt.clone(),
            queues,
            features: self.driver_features,
        })?;
        let (window, interrupt) = (self.window.clone(), self.interrupt.clone());
        let (console, name) = (self.console.clone(), self.device.kind());
        let on_failure = Box::new(move |error| {
            console.note(&format!("the {name:?} device has stopped: {}", chain_of(&error)));
            ask_for_reset(&window, &interrupt);
        });
        let ended = || ActivateError::Host(std::io::Error::other("the I/O thread takes no more handlers"));
        self.worker = Some(self.workers.add(handler, on_failure).ok_or_else(ended)?);
        Ok(())
    }

    /// Back to the beginning. The worker goes first: until it is dropped it may still use queues and memory.
    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.workers.remove(worker);
        }
        self.status = 0;
        self.window.remove(STATUS, status::NEEDS_RESET);
        self.interrupt.acknowledge(INTERRUPT_CONFIG);
        (self.features_select, self.driver_features_select, self.queue_select) = (0, 0, 0);
        self.driver_features = 0;
        self.queues.iter_mut().for_each(QueueSetup::reset);
    }
}

/// Tells the driver that the device has failed (section 2.1.2): it reads NEEDS_RESET when the interrupt reaches it.
fn ask_for_reset(window: &Window, interrupt: &Interrupt) {
    window.add(STATUS, status::NEEDS_RESET);
    // Without the interrupt the driver finds out when it next reads the status.
    let _late_news = interrupt.signal_config();
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn word_of(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_low(field: &mut u64, value: u32) {
    *field = *field & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(field: &mut u64, value: u32) {
    *field = *field & u64::from(u32::MAX) | u64::from(value) << 32;
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
