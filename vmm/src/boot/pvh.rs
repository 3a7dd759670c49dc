//! The PVH start info (Xen's `hvm_start_info`, version 1): how a kernel that is entered by the PVH boot protocol
//! learns its command line and its memory.
//!
//! PVH is the only protocol here. The project ships its own kernel, which has the entry point; and compared with
//! the 64-bit Linux protocol the VMM needs no page tables, no GDT and no zero page.

use super::{BootError, write};
use crate::layout::{self, BASE_RAM_END, COMMAND_LINE_START, HIGH_RAM_START, PVH_INFO_START};
use crate::memory::DeviceMemory;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RAM`, which is also E820's.
const RAM: u32 = 1;
const INFO_BYTES: u64 = 56;
/// Where the memory map is.
const MEMORY_MAP_START: u64 = PVH_INFO_START + INFO_BYTES;

/// Writes the start info for a machine with `memory_bytes` of RAM to [`PVH_INFO_START`].
pub fn write_start_info(memory: &DeviceMemory, memory_bytes: u64) -> Result<(), BootError> {
    write(memory, "the PVH start info", PVH_INFO_START, &start_info(memory_bytes))
}

/// The start info and the memory map, which follow each other in memory. There are no modules: an initramfs would be
/// memory of each guest, where a pmem device is memory that all guests share.
fn start_info(memory_bytes: u64) -> Vec<u8> {
    let map = memory_map(memory_bytes);
    let mut info = Vec::new();
    let flags = 0_u32;
    let modules = 0_u32;
    [MAGIC, VERSION, flags, modules].iter().for_each(|word| info.extend(word.to_le_bytes()));
    let (module_list, acpi_tables) = (0, 0);
    let addresses = [module_list, COMMAND_LINE_START, acpi_tables, MEMORY_MAP_START];
    addresses.iter().for_each(|address| info.extend(address.to_le_bytes()));
    [map.len() as u32, 0].iter().for_each(|word| info.extend(word.to_le_bytes()));

    for (start, bytes) in map {
        [start, bytes].iter().for_each(|field| info.extend(field.to_le_bytes()));
        [RAM, 0].iter().for_each(|word| info.extend(word.to_le_bytes()));
    }
    info
}

/// RAM as the guest is told of it: all there is but for the MP table and the legacy hole above it.
fn memory_map(memory_bytes: u64) -> Vec<(u64, u64)> {
    let mut map = vec![(0, BASE_RAM_END)];
    for (start, bytes) in layout::ram_ranges(memory_bytes) {
        let first = start.max(HIGH_RAM_START);
        map.push((first, (start + bytes).saturating_sub(first)));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_leaves_the_legacy_hole_and_the_gap_out() {
        let map = memory_map(4 << 30);
        assert_eq!(map, [(0, 0x9_fc00), (1 << 20, (3 << 30) - (1 << 20)), (4 << 30, 1 << 30)]);
    }

    #[test]
    fn the_parts_are_where_the_info_says() {
        let info = start_info(128 << 20);
        let field = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().unwrap());
        assert_eq!(info[..4], MAGIC.to_le_bytes());
        assert_eq!(field(24), COMMAND_LINE_START);
        assert_eq!([field(8) >> 32, field(16)], [0, 0]);
        let map = (field(40) - PVH_INFO_START) as usize;
        assert_eq!([field(map), field(map + 8)], [0, BASE_RAM_END]);
        assert_eq!(info[48..52], 2_u32.to_le_bytes());
        assert_eq!(info.len(), map + 2 * 24);
        assert!(PVH_INFO_START + info.len() as u64 + 24 < COMMAND_LINE_START);
    }
}
