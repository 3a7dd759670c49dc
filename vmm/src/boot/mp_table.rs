//! The MP table (Intel MultiProcessor Specification 1.4): which processors there are, and which pin of the
//! IOAPIC each interrupt arrives at. It takes the place of ACPI.

use super::{BootError, write};
use crate::ioapic::IOAPIC_VERSION;
use crate::layout::{FIRST_GSI, IOAPIC_PINS, IOAPIC_START, LAPIC_START, MP_TABLE_MAX, MP_TABLE_START};
use crate::memory::DeviceMemory;

const FLOATING_POINTER_BYTES: u64 = 16;
const HEADER_BYTES: usize = 44;
const SPECIFICATION: u8 = 4;
const LAPIC_VERSION: u8 = 0x14;

/// Entry types (section 4.3).
mod entry {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IOAPIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

/// Interrupt types (section 4.3.4).
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
/// Polarity and trigger mode as usual for the bus: an ISA interrupt is an edge to high, which is what an irqfd makes.
const AS_THE_BUS: [u8; 2] = [0, 0];
const ISA_BUS: u8 = 0;
const ALL_LAPICS: u8 = 0xff;

/// Writes the table for `vcpus` processors to [`MP_TABLE_START`].
pub fn write_mp_table(memory: &DeviceMemory, vcpus: u8) -> Result<(), BootError> {
    write(memory, "the MP table", MP_TABLE_START, &mp_table(vcpus))
}

fn mp_table(vcpus: u8) -> Vec<u8> {
    let mut table = floating_pointer();
    table.extend(configuration(vcpus));
    debug_assert!(table.len() <= MP_TABLE_MAX, "the last KiB of base memory is all the kernel looks at");
    table
}

fn floating_pointer() -> Vec<u8> {
    let mut pointer = b"_MP_".to_vec();
    pointer.extend(((MP_TABLE_START + FLOATING_POINTER_BYTES) as u32).to_le_bytes());
    let length_in_paragraphs = 1;
    pointer.extend([length_in_paragraphs, SPECIFICATION, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut pointer, 10);
    pointer
}

fn configuration(vcpus: u8) -> Vec<u8> {
    let entries = entries(vcpus);
    let length = HEADER_BYTES + entries.iter().map(Vec::len).sum::<usize>();
    let mut table = b"PCMP".to_vec();
    table.extend((length as u16).to_le_bytes());
    table.extend([SPECIFICATION, 0]);
    table.extend(b"RKT     VMM         ");
    let (oem_table, oem_bytes) = ([0; 4], [0; 2]);
    table.extend(oem_table);
    table.extend(oem_bytes);
    table.extend((entries.len() as u16).to_le_bytes());
    table.extend(LAPIC_START.to_le_bytes());
    let extended_table = [0; 4];
    table.extend(extended_table);
    table.extend(entries.concat());
    set_checksum(&mut table, 7);
    table
}

/// The entries, in ascending order of their types as the specification wants it.
fn entries(vcpus: u8) -> Vec<Vec<u8>> {
    // Local APIC ids are 0 to vcpus - 1; the IOAPIC has the next.
    let ioapic = vcpus;
    let mut entries: Vec<Vec<u8>> = (0..vcpus).map(processor).collect();
    entries.push([&[entry::BUS, ISA_BUS], &b"ISA   "[..]].concat());
    entries.push([&[entry::IOAPIC, ioapic, IOAPIC_VERSION, 1], &IOAPIC_START.to_le_bytes()[..]].concat());
    // There is nothing at the others, and a kernel sets up what is listed.
    let devices = FIRST_GSI as u8..IOAPIC_PINS as u8;
    entries.extend(devices.map(|pin| interrupt(entry::IO_INTERRUPT, VECTORED, pin, ioapic, pin)));
    entries.push(interrupt(entry::LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0));
    entries.push(interrupt(entry::LOCAL_INTERRUPT, NMI, 0, ALL_LAPICS, 1));
    entries
}

fn processor(apic_id: u8) -> Vec<u8> {
    const ENABLED: u8 = 1;
    const BOOTSTRAP: u8 = 2;
    let flags = ENABLED | if apic_id == 0 { BOOTSTRAP } else { 0 };
    // Signature and features are left out: kernels that know CPUID do not read them.
    [&[entry::PROCESSOR, apic_id, LAPIC_VERSION, flags][..], &[0; 16]].concat()
}

fn interrupt(kind: u8, interrupt_type: u8, source: u8, destination: u8, pin: u8) -> Vec<u8> {
    [&[kind, interrupt_type], &AS_THE_BUS[..], &[ISA_BUS, source, destination, pin]].concat()
}

/// Makes all bytes sum up to zero.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(at) {
        *checksum = checksum.wrapping_sub(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MAX_DEVICES;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn the_table_of_the_largest_machine_fits_and_adds_up() {
        for vcpus in [1, 2, 32] {
            let table = mp_table(vcpus);
            assert!(table.len() <= MP_TABLE_MAX);
            let (pointer, configuration) = table.split_at(16);
            assert_eq!([sum(pointer), sum(configuration)], [0, 0]);
            let length = u16::from_le_bytes([configuration[4], configuration[5]]);
            assert_eq!(usize::from(length), configuration.len());
            let count = u16::from_le_bytes([configuration[34], configuration[35]]);
            assert_eq!(u32::from(count), u32::from(vcpus) + 2 + MAX_DEVICES as u32 + 2);
        }
    }

    #[test]
    fn only_the_first_processor_is_the_bootstrap_processor() {
        let flags: Vec<u8> = entries(3)[..3].iter().map(|processor| processor[3]).collect();
        assert_eq!(flags, [3, 1, 1]);
    }

    #[test]
    fn every_devices_pin_has_its_interrupt() {
        let entries = entries(2);
        let pins: Vec<(u8, u8)> =
            entries.iter().filter(|entry| entry[0] == 3).map(|entry| (entry[5], entry[7])).collect();
        assert_eq!(pins, (5..24).map(|pin| (pin, pin)).collect::<Vec<_>>());
    }
}
