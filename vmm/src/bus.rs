//! What answers when the guest touches an address or a port that is not memory.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::console::ConsoleLog;
use crate::ioapic::{Ioapic, Registers};
use crate::layout::{IOAPIC_START, MARK_PORT, MMIO_START, MMIO_WINDOW, PURPOSE_PORT, SERIAL_PORT};
use crate::purpose::Answer;
use crate::timeline::{Phase, Timeline};
use crate::virtio::mmio::MmioTransport;

/// The serial port's line status register, and its answer: ready to transmit, nothing received.
const LINE_STATUS_PORT: u16 = SERIAL_PORT + 5;
const TRANSMITTER_EMPTY: u8 = 0x60;

/// The machine's devices by address. What nobody answers reads as all ones, and writes to it are ignored, as on a PC.
pub struct Bus {
    devices: Vec<Mutex<MmioTransport>>,
    ioapic: Mutex<Ioapic>,
    pmem: Rom,
    console: ConsoleLog,
    timeline: Arc<Timeline>,
    purpose: Answer,
}

impl Bus {
    /// A bus with `devices` in their windows, in order, and the read-only memory `pmem`. Who asks for the machine's purpose
    /// gets the answer.
    pub fn new(
        devices: Vec<MmioTransport>,
        ioapic: Ioapic,
        pmem: Rom,
        purpose: Answer,
        console: ConsoleLog,
        timeline: Arc<Timeline>,
    ) -> Self {
        let devices = devices.into_iter().map(Mutex::new).collect();
        Self { devices, ioapic: Mutex::new(ioapic), pmem, console, timeline, purpose }
    }

    /// The guest reads where nobody is: devices' registers are memory to it ([`crate::virtio::window`]).
    pub fn mmio_read(&self, data: &mut [u8]) {
        data.fill(0xff);
    }

    /// The guest writes memory-mapped registers, or tries to write pmem: the slot is read-only, so KVM reports it here.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.window(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        } else if let Some(offset) = ioapic_offset(address) {
            self.lock_ioapic().write(offset, data, &self.console);
        } else if self.pmem.range.contains(&address) {
            self.pmem.note_write(address, &self.console);
        }
    }

    /// The guest reads a port.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(if port == LINE_STATUS_PORT { TRANSMITTER_EMPTY } else { 0xff });
    }

    /// The guest writes a port; `data` holds several values if it did so with a string instruction.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        match port {
            SERIAL_PORT => self.console.write(data),
            PURPOSE_PORT => self.purpose.asked(data, &self.console),
            MARK_PORT => data.iter().for_each(|byte| self.timeline.record(Phase::Guest(*byte))),
            _ => {}
        }
    }

    /// What is to be kept of the interrupt controller.
    pub fn ioapic_registers(&self) -> Registers {
        self.lock_ioapic().registers()
    }

    fn lock_ioapic(&self) -> MutexGuard<'_, Ioapic> {
        self.ioapic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self, address: u64) -> Option<(&Mutex<MmioTransport>, u64)> {
        let distance = address.checked_sub(MMIO_START)?;
        let index = usize::try_from(distance / MMIO_WINDOW).ok()?;
        Some((self.devices.get(index)?, distance % MMIO_WINDOW))
    }
}

fn ioapic_offset(address: u64) -> Option<u64> {
    address.checked_sub(IOAPIC_START.into()).filter(|offset| *offset < MMIO_WINDOW)
}

/// The read-only memory of the pmem device, and who learns of the guest's attempts to write it.
pub struct Rom {
    range: Range<u64>,
    writes: Option<OwnedFd>,
    noted: AtomicBool,
}

impl Rom {
    /// At these addresses; each attempt adds 1 to the eventfd `writes`.
    pub fn new(range: Range<u64>, writes: Option<OwnedFd>) -> Self {
        Self { range, writes, noted: AtomicBool::new(false) }
    }

    fn note_write(&self, address: u64, console: &ConsoleLog) {
        if let Some(writes) = &self.writes {
            // A counter that is full says enough.
            let _full = nix::unistd::write(writes, &1_u64.to_ne_bytes());
        }
        if !self.noted.swap(true, Ordering::Relaxed) {
            let offset = address - self.range.start;
            console
                .note(&format!("dropped a write to read-only pmem at offset {offset:#x}; later ones unsaid"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::virtio::window::Windows;

    fn bus_with(pmem: Rom) -> Bus {
        let window = Windows::at(IOAPIC_START.into(), 1).unwrap().window(0);
        let ioapic = Ioapic::new(window, Box::new(()), Registers::default()).unwrap();
        Bus::new(Vec::new(), ioapic, pmem, Answer::None, ConsoleLog::new(None), Arc::default())
    }

    fn bus() -> Bus {
        bus_with(Rom::new(0x1_0000_0000..0x1_0020_0000, None))
    }

    #[test]
    fn nobody_home_reads_as_ones_at_any_width() {
        let bus = bus();
        for address in [0, MMIO_START, MMIO_START + 0x70, u64::MAX] {
            for length in 0..9 {
                let mut data = vec![0; length];
                bus.mmio_read(&mut data);
                assert!(data.iter().all(|byte| *byte == 0xff));
                bus.mmio_write(address, &data);
            }
        }
        let mut data = [0; 4];
        bus.port_read(0x64, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.port_write(0x64, &[0xfe]);
    }

    #[test]
    fn pmem_writes_are_counted_and_noted_once() {
        let writes = OwnedFd::from(EventFd::new().unwrap());
        let counter = File::from(writes.try_clone().unwrap());
        let bus = bus_with(Rom::new(0x1_0000_0000..0x1_0020_0000, Some(writes)));
        for _ in 0..3 {
            bus.mmio_write(0x1_0000_1000, &[1; 8]);
        }
        bus.mmio_write(0x1_0020_0000, &[1]);
        let mut count = [0; 8];
        (&counter).read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 3);
        assert_eq!(bus.console.last_lines().matches("dropped a write").count(), 1);
    }

    #[test]
    fn the_interrupt_controller_is_where_every_pc_has_it() {
        let bus = bus();
        bus.mmio_write(u64::from(IOAPIC_START) - 4, &[0xff; 4]);
        bus.mmio_write(u64::from(IOAPIC_START) + MMIO_WINDOW, &[0xff; 4]);
        assert_eq!(bus.ioapic_registers(), Registers::default());
        bus.mmio_write(u64::from(IOAPIC_START) + 0x10, &[0xff; 4]);
        assert_ne!(bus.ioapic_registers(), Registers::default(), "its identity, which is the first register");
    }

    #[test]
    fn the_serial_port_transmits_and_marks_are_recorded() {
        let bus = bus();
        let mut line_status = [0];
        bus.port_read(0x3fd, &mut line_status);
        assert_eq!(line_status, [0x60]);
        bus.port_write(0x3f8, b"early");
        assert_eq!(bus.console.last_lines(), "early");
        bus.port_write(MARK_PORT, &[1, 2]);
        let phases: Vec<Phase> = bus.timeline.marks().iter().map(|mark| mark.phase).collect();
        assert_eq!(phases, [Phase::Guest(1), Phase::Guest(2)]);
    }
}
