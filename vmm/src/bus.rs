//! What answers when the guest touches an address or a port that is not memory.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::console::ConsoleLog;
use crate::layout::{MARK_PORT, MMIO_START, MMIO_WINDOW, SERIAL_PORT};
use crate::timeline::{Phase, Timeline};
use crate::virtio::mmio::MmioTransport;

/// The serial port's line status register, and its answer: ready to transmit, nothing received.
const LINE_STATUS_PORT: u16 = SERIAL_PORT + 5;
const TRANSMITTER_EMPTY: u8 = 0x60;

/// The machine's devices by address. What nobody answers reads as all ones, and writes to it are ignored, as on a PC.
pub struct Bus {
    devices: Vec<Mutex<MmioTransport>>,
    pmem: Range<u64>,
    pmem_writes: AtomicU64,
    pmem_write_noted: AtomicBool,
    console: ConsoleLog,
    timeline: Arc<Timeline>,
}

impl Bus {
    /// A bus with `devices` in their windows, in order, and the read-only memory `pmem`.
    pub fn new(
        devices: Vec<MmioTransport>,
        pmem: Range<u64>,
        console: ConsoleLog,
        timeline: Arc<Timeline>,
    ) -> Self {
        Self {
            devices: devices.into_iter().map(Mutex::new).collect(),
            pmem,
            pmem_writes: AtomicU64::new(0),
            pmem_write_noted: AtomicBool::new(false),
            console,
            timeline,
        }
    }

    /// The guest reads memory-mapped registers.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.window(address) {
            Some((device, offset)) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
            }
            None => data.fill(0xff),
        }
    }

    /// The guest writes memory-mapped registers, or tries to write pmem: the slot is read-only, so KVM reports it here.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.window(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        } else if self.pmem.contains(&address) {
            self.count_pmem_write(address);
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
            MARK_PORT => data.iter().for_each(|byte| self.timeline.record(Phase::Guest(*byte))),
            _ => {}
        }
    }

    /// How often the guest has tried to write pmem.
    pub fn pmem_writes(&self) -> u64 {
        self.pmem_writes.load(Ordering::Relaxed)
    }

    fn window(&self, address: u64) -> Option<(&Mutex<MmioTransport>, u64)> {
        let distance = address.checked_sub(MMIO_START)?;
        let index = usize::try_from(distance / MMIO_WINDOW).ok()?;
        Some((self.devices.get(index)?, distance % MMIO_WINDOW))
    }

    fn count_pmem_write(&self, address: u64) {
        self.pmem_writes.fetch_add(1, Ordering::Relaxed);
        if !self.pmem_write_noted.swap(true, Ordering::Relaxed) {
            let index = address - self.pmem.start;
            self.console
                .note(&format!("dropped a write to read-only pmem at offset {index:#x}; later ones unsaid"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus {
        Bus::new(Vec::new(), 0x1_0000_0000..0x1_0020_0000, ConsoleLog::new(None), Arc::default())
    }

    #[test]
    fn nobody_home_reads_as_ones_at_any_width() {
        let bus = bus();
        for address in [0, MMIO_START, MMIO_START + 0x70, u64::MAX] {
            for length in 0..9 {
                let mut data = vec![0; length];
                bus.mmio_read(address, &mut data);
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
        let bus = bus();
        for _ in 0..3 {
            bus.mmio_write(0x1_0000_1000, &[1; 8]);
        }
        bus.mmio_write(0x1_0020_0000, &[1]);
        assert_eq!(bus.pmem_writes(), 3);
        assert_eq!(bus.console.last_lines().matches("dropped a write").count(), 1);
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
