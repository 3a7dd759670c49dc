//! Any access of any width, anywhere on the machine's bus.

use std::os::fd::AsFd;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vmm::bus::{Bus, Rom};
use vmm::console::ConsoleLog;
use vmm::error::Error;
use vmm::ioapic::{Ioapic, Registers, Route, Router};
use vmm::layout::{IOAPIC_PINS, IOAPIC_START, MMIO_START, MMIO_WINDOW};
use vmm::purpose::Answer;
use vmm::virtio::console::Console;
use vmm::virtio::device::VirtioDevice;
use vmm::virtio::rng::Rng;
use vmm::virtio::window::Windows;

use crate::machine::{Bench, ROM_BYTES, ROM_START, memory, transport};

#[derive(Arbitrary, Debug)]
enum Where {
    /// A device's window; there are fewer devices than this can say.
    Window(u8, u16),
    Pmem(u16),
    /// The interrupt controller's two registers, and what is beside them.
    Ioapic(u8),
    Anywhere(u64),
}

#[derive(Arbitrary, Debug)]
enum Access {
    Write(Where, [u8; 8], u8),
    PortRead(u16, u8),
    PortWrite(u16, Vec<u8>),
    /// The status register, as drivers write it.
    Status(u8, u8),
}

/// Checks what KVM would get.
struct Kvm;

impl Router for Kvm {
    fn route(&self, routes: &[Route]) -> Result<(), Error> {
        assert!(routes.is_sorted_by(|one, next| one.gsi < next.gsi), "a pin has one route");
        for Route { gsi, address, data } in routes {
            assert!(*gsi < IOAPIC_PINS && address & !0xf_f00c == 0xfee0_0000 && data & !0x1ff == 0);
        }
        Ok(())
    }
}

fn address(place: &Where) -> u64 {
    match place {
        Where::Window(device, offset) => {
            MMIO_START + u64::from(device % 4) * MMIO_WINDOW + u64::from(*offset) % MMIO_WINDOW
        }
        Where::Pmem(offset) => ROM_START + u64::from(*offset) % (ROM_BYTES + 8),
        Where::Ioapic(offset) => u64::from(IOAPIC_START) + 8 * u64::from(offset % 4),
        Where::Anywhere(address) => *address,
    }
}

/// The target.
pub fn run(data: &[u8]) {
    let Ok(accesses) = Vec::<Access>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let console = ConsoleLog::new(None);
    let benches = [Bench::default(), Bench::default()];
    let memory = memory();
    let devices: [Box<dyn VirtioDevice>; 2] = [Box::new(Rng), Box::new(Console::new(console.clone()))];
    let windows =
        devices.into_iter().zip(&benches).map(|(device, bench)| transport(device, &memory, bench).0);
    let pmem = ROM_START..ROM_START + ROM_BYTES;
    let writes = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).expect("a counter");
    let counter = writes.as_fd().try_clone_to_owned().expect("a duplicate");
    let window = Windows::at(IOAPIC_START.into(), 1).expect("a window").window(0);
    let ioapic = Ioapic::new(window, Box::new(Kvm), Registers::default()).expect("a controller");
    let bus = Bus::new(
        windows.collect(),
        ioapic,
        Rom::new(pmem.clone(), Some(counter)),
        Answer::None,
        console,
        Arc::default(),
    );
    for access in accesses {
        match access {
            Access::Write(place, bytes, width) => {
                bus.mmio_write(address(&place), &bytes[..usize::from(width) % 9]);
                let counted = u64::from(pmem.contains(&address(&place)));
                assert_eq!(writes.read().unwrap_or(0), counted, "pmem's writes are counted, and no others");
            }
            Access::PortRead(port, width) => bus.port_read(port, &mut [0; 4][..usize::from(width) % 5]),
            Access::PortWrite(port, bytes) => bus.port_write(port, &bytes),
            Access::Status(device, value) => {
                let register = MMIO_START + u64::from(device % 4) * MMIO_WINDOW + 0x70;
                bus.mmio_write(register, &u32::from(value).to_le_bytes());
            }
        }
        benches.iter().for_each(Bench::settle);
    }
}
