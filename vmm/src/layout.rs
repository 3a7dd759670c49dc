//! The guest-physical address space: every address and number that the machine has chosen, in one place.
//!
//! ```text
//! 0000_0000  RAM: real-mode memory; the boot data below lies in it
//! 0009_fc00  MP table (the last KiB of base memory); not RAM to the guest, as all up to 1 MiB
//! 0010_0000  RAM: kernel where its ELF file says
//! c000_0000  the gap: no RAM from here to 4 GiB
//! d000_0000    virtio-mmio windows, 4 KiB each
//! fec0_0000    IOAPIC
//! fee0_0000    local APICs       (in the kernel)
//! fffb_c000    pages that KVM itself needs on Intel
//! 1_0000_0000  RAM beyond 3 GiB
//! ...        read-only memory of the pmem device, from the next GiB
//! 80_0000_0000  end: 39 bits, which every processor with nested paging has
//! ```

use std::ops::Range;

use crate::memory::{HUGE_PAGE_SIZE, MemoryError};

/// The command line, zero-terminated.
pub const COMMAND_LINE_START: u64 = 0x2_0000;
/// The longest command line with its zero: what the kernel has room for (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_MAX: usize = 2048;
/// `hvm_start_info`, then the memory map that it points to.
pub const PVH_INFO_START: u64 = 0x6000;

/// Where the MP floating pointer is: the kernel looks for it in the last KiB of base memory (MP 1.4, section 4).
pub const MP_TABLE_START: u64 = 0x9_fc00;
/// The room for the MP table.
pub const MP_TABLE_MAX: usize = 1024;

/// The end of RAM that real mode can use; from here to [`HIGH_RAM_START`] the guest is told of no memory.
pub const BASE_RAM_END: u64 = MP_TABLE_START;
/// Where RAM goes on above the legacy hole.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// Where the gap below 4 GiB starts.
pub const GAP_START: u64 = 0xc000_0000;
/// Where the gap ends and RAM goes on.
pub const GAP_END: u64 = 0x1_0000_0000;

/// The first virtio-mmio window.
pub const MMIO_START: u64 = 0xd000_0000;
/// The size of a virtio-mmio window: 256 bytes of registers, then the configuration space.
pub const MMIO_WINDOW: u64 = 0x1000;
/// The interrupt of the first device; each next one has the next. Those below belong to the PC of old.
pub const FIRST_GSI: u32 = 5;
/// The pins of the IOAPIC.
pub const IOAPIC_PINS: u32 = 24;
/// The most devices a machine can have: an interrupt each.
pub const MAX_DEVICES: usize = (IOAPIC_PINS - FIRST_GSI) as usize;

/// The IOAPIC's registers, where every PC has them.
pub const IOAPIC_START: u32 = 0xfec0_0000;
/// The local APIC's registers.
pub const LAPIC_START: u32 = 0xfee0_0000;
/// Three pages for the task state segment that KVM uses on Intel processors without unrestricted guests.
pub const KVM_TSS_START: u64 = 0xfffb_d000;

/// The least memory a machine may have: less does not hold a kernel.
pub const MEMORY_MIN: u64 = 32 << 20;
/// The end of all guest-physical addresses.
pub const ADDRESS_END: u64 = 1 << 39;
/// The most memory a machine may have; the rest of the address space is for pmem.
pub const MEMORY_MAX: u64 = ADDRESS_END / 2;
/// pmem starts at the next multiple of this after RAM, so that the guest never adds it to a memory section of RAM.
pub const PMEM_ALIGNMENT: u64 = 1 << 30;

/// A first serial port that only transmits, for the kernel's `earlyprintk=serial`.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Bytes written here become marks in the machine's [timeline](crate::timeline).
pub const MARK_PORT: u16 = 0x510;
/// The port at which the first device is notified of new buffers; each next device has the next four.
pub const NOTIFY_PORT: u16 = 0x600;
/// Where the kernel writes the address at which it looks for its [purpose](crate::purpose).
pub const PURPOSE_PORT: u16 = 0x514;

/// The window of device number `index`.
pub fn mmio_window(index: usize) -> u64 {
    MMIO_START + index as u64 * MMIO_WINDOW
}

/// The port at which device number `index` is notified of new buffers, by the number of the queue in four bytes.
pub fn notify_port(index: usize) -> u16 {
    NOTIFY_PORT + 4 * index as u16
}

/// The interrupt of device number `index`.
pub fn gsi(index: usize) -> u32 {
    FIRST_GSI + index as u32
}

/// RAM as ranges of (start, size): one below the gap, and one above it if `memory_bytes` do not fit.
pub fn ram_ranges(memory_bytes: u64) -> Vec<(u64, u64)> {
    let low = memory_bytes.min(GAP_START);
    let mut ranges = vec![(0, low)];
    if memory_bytes > low {
        ranges.push((GAP_END, memory_bytes - low));
    }
    ranges
}

/// Where Linux has the descriptors of `memory_bytes` of RAM (`struct page`, 2 MiB for a section of 128 MiB), all of which it writes as
/// it boots: at the end of RAM, below a little that it takes first, in blocks of 2 MiB. It is a guess that saves time where it is right.
pub fn page_descriptors(memory_bytes: u64) -> Option<Range<u64>> {
    const SECTION: u64 = 128 << 20;
    const TAKEN_FIRST: u64 = 512 << 10;
    let (start, size) = ram_ranges(memory_bytes).pop()?;
    let end = (start + size).checked_sub(TAKEN_FIRST)? / HUGE_PAGE_SIZE * HUGE_PAGE_SIZE;
    let sections = memory_bytes.div_ceil(SECTION);
    let descriptors = end.checked_sub(sections * HUGE_PAGE_SIZE)?..end;
    (descriptors.start >= start).then_some(descriptors)
}

/// The first address for pmem of a machine with `memory_bytes` of RAM.
pub fn pmem_start(memory_bytes: u64) -> u64 {
    let ram_end = ram_ranges(memory_bytes).last().map_or(0, |(start, size)| start + size);
    ram_end.max(GAP_END).next_multiple_of(PMEM_ALIGNMENT)
}

/// The size of guest-physical memory that a file of `file_bytes` takes in the pmem device, with zeros up to the next 2 MiB: Linux
/// adds memory in such units, and a file that begins at one can be in huge pages in the host's tables and in the guest's.
pub fn pmem_size(file_bytes: u64) -> Option<u64> {
    file_bytes.checked_next_multiple_of(HUGE_PAGE_SIZE).filter(|size| *size <= ADDRESS_END)
}

/// An error if the address space ends before a pmem device of `bytes` at `start` does.
pub fn check_pmem(start: u64, bytes: u64) -> Result<(), MemoryError> {
    let fits = start.checked_add(bytes).is_some_and(|end| end <= ADDRESS_END);
    if fits { Ok(()) } else { Err(MemoryError::Size { what: "pmem", bytes }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_leaves_the_gap_free() {
        assert_eq!(ram_ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ram_ranges(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(ram_ranges(4 * GIB), [(0, 3 * GIB), (4 * GIB, GIB)]);
    }

    #[test]
    fn page_descriptors_are_below_the_end_of_ram() {
        const MIB: u64 = 1 << 20;
        assert_eq!(page_descriptors(128 * MIB), Some(124 * MIB..126 * MIB));
        assert_eq!(page_descriptors(569 * MIB), Some(558 * MIB..568 * MIB));
        assert_eq!(page_descriptors(4 * GIB), Some(5 * GIB - 66 * MIB..5 * GIB - 2 * MIB));
        assert_eq!(page_descriptors(3 * GIB + MIB), None, "they do not fit above the gap");
        assert_eq!(page_descriptors(MIB), None);
    }

    #[test]
    fn pmem_starts_above_all_ram_and_above_the_gap() {
        assert_eq!(pmem_start(128 << 20), 4 * GIB);
        assert_eq!(pmem_start(4 * GIB), 5 * GIB);
        assert_eq!(pmem_start(4 * GIB + 4096), 6 * GIB);
        assert!(pmem_start(MEMORY_MAX) < ADDRESS_END);
    }

    #[test]
    fn pmem_sizes_are_whole_huge_pages() {
        assert_eq!(pmem_size(1), Some(HUGE_PAGE_SIZE));
        assert_eq!(pmem_size(HUGE_PAGE_SIZE), Some(HUGE_PAGE_SIZE));
        assert_eq!(pmem_size(u64::MAX), None);
        assert!(check_pmem(ADDRESS_END - HUGE_PAGE_SIZE, HUGE_PAGE_SIZE).is_ok());
        assert!(check_pmem(ADDRESS_END - HUGE_PAGE_SIZE, 2 * HUGE_PAGE_SIZE).is_err());
        assert!(check_pmem(ADDRESS_END, u64::MAX).is_err());
    }

    #[test]
    fn the_windows_end_below_the_ioapic() {
        assert!(mmio_window(MAX_DEVICES) <= u64::from(IOAPIC_START));
        assert_eq!(gsi(MAX_DEVICES - 1), IOAPIC_PINS - 1);
        assert_eq!([notify_port(0), notify_port(MAX_DEVICES - 1)], [0x600, 0x648]);
    }
}
