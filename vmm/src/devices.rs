//! Gives devices their windows, interrupts and notifications, and tells the guest where they are.

use std::fmt::Write as _;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::console::ConsoleLog;
use crate::error::Error;
use crate::event_loop::LoopHandle;
use crate::layout::{self, MAX_DEVICES, MMIO_WINDOW};
use crate::memory::DeviceMemory;
use crate::virtio::device::VirtioDevice;
use crate::virtio::mmio::{MmioTransport, NOTIFY_PORT};
use crate::virtio::window::Windows;
use crate::vm::Vm;

/// The devices of a machine, in the order in which the guest finds them.
pub struct Devices<'a, E> {
    vm: &'a Vm,
    windows: &'a Windows,
    memory: &'a DeviceMemory,
    workers: LoopHandle<E>,
    console: &'a ConsoleLog,
    transports: Vec<MmioTransport>,
}

impl<'a, E: Send + 'static> Devices<'a, E> {
    /// No devices yet. The guest will read them in `windows`; their workers will run where `workers` says, in `memory`.
    pub fn new(
        vm: &'a Vm,
        windows: &'a Windows,
        memory: &'a DeviceMemory,
        workers: LoopHandle<E>,
        console: &'a ConsoleLog,
    ) -> Self {
        Self { vm, windows, memory, workers, console, transports: Vec::new() }
    }

    /// Adds `device` in the next window.
    pub fn attach(&mut self, device: impl VirtioDevice + 'static) -> Result<(), Error> {
        let index = self.transports.len();
        if index >= MAX_DEVICES {
            return Err(Error::TooManyDevices { max: MAX_DEVICES });
        }
        let irqfd = new_eventfd()?;
        self.vm.add_interrupt(&irqfd, layout::gsi(index))?;
        let port = layout::notify_port(index);
        let mut notify = Vec::new();
        for queue in 0..device.queue_sizes().len() {
            let fd = new_eventfd()?;
            self.vm.add_notification(&fd, port, queue as u32)?;
            notify.push(fd);
        }
        let window = self.windows.window(index);
        window.set(NOTIFY_PORT, port.into());
        self.transports.push(MmioTransport::new(
            Box::new(device),
            window,
            notify,
            irqfd,
            self.memory.clone(),
            Box::new(self.workers.clone()),
            self.console.clone(),
        ));
        Ok(())
    }

    /// The devices, for the bus.
    pub fn into_transports(self) -> Vec<MmioTransport> {
        self.transports
    }
}

fn new_eventfd() -> Result<EventFd, Error> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::host("create an eventfd"))
}

/// The kernel parameters that tell a guest without ACPI where `count` devices are (Linux's virtio_mmio driver).
pub fn kernel_parameters(count: usize) -> String {
    (0..count).fold(String::new(), |mut line, index| {
        let (window, gsi) = (layout::mmio_window(index), layout::gsi(index));
        // Writing to a string does not fail.
        let _infallible = write!(line, " virtio_mmio.device={MMIO_WINDOW:#x}@{window:#x}:{gsi}");
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_each_window_and_interrupt() {
        assert_eq!(
            kernel_parameters(2),
            " virtio_mmio.device=0x1000@0xd0000000:5 virtio_mmio.device=0x1000@0xd0001000:6"
        );
        assert!(kernel_parameters(MAX_DEVICES).len() < layout::COMMAND_LINE_MAX / 2);
    }
}
