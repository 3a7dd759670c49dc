//! Group descriptors and bitmaps.

use crate::geometry::{BLOCK, DESCRIPTOR_BYTES, Geometry, USED_INODES};

/// The inode bitmap is not there: no inode is in use (`EXT4_BG_INODE_UNINIT`).
const INODE_UNINIT: u16 = 1;
/// The block bitmap is not there: only the group's own metadata is in use (`EXT4_BG_BLOCK_UNINIT`).
const BLOCK_UNINIT: u16 = 2;
/// The inode table is zero where it is unused (`EXT4_BG_INODE_ZEROED`).
const INODE_ZEROED: u16 = 4;

/// The descriptors of all groups.
pub(crate) fn descriptors(geometry: &Geometry, uuid: [u8; 16]) -> Vec<u8> {
    let table = crc16_table();
    let seed = crc16(&table, u16::MAX, &uuid);
    let mut out = Vec::with_capacity((geometry.groups * DESCRIPTOR_BYTES) as usize);
    for group in 0..geometry.groups {
        let descriptor = descriptor(geometry, group);
        let checksum = crc16(&table, crc16(&table, seed, &group.to_le_bytes()), &descriptor);
        out.extend(descriptor);
        out.extend(checksum.to_le_bytes());
    }
    out
}

/// A descriptor up to its checksum.
fn descriptor(geometry: &Geometry, group: u32) -> Vec<u8> {
    let used_inodes = if group == 0 { USED_INODES } else { 0 };
    let unused_inodes = (geometry.inodes_per_group - used_inodes) as u16; // at most 8192, as free blocks 32768
    // The first group has files, the last one's bitmap ends early: both need one. mke2fs has them so, too.
    let flags = match group {
        0 => INODE_ZEROED,
        last if last + 1 == geometry.groups => INODE_ZEROED | INODE_UNINIT,
        _ => INODE_ZEROED | INODE_UNINIT | BLOCK_UNINIT,
    };
    let mut out = Vec::with_capacity(DESCRIPTOR_BYTES as usize);
    out.extend(geometry.block_bitmap(group).to_le_bytes());
    out.extend(geometry.inode_bitmap(group).to_le_bytes());
    out.extend(geometry.inode_table(group).to_le_bytes());
    out.extend((geometry.free_blocks(group) as u16).to_le_bytes());
    out.extend(unused_inodes.to_le_bytes());
    out.extend(if group == 0 { 2_u16 } else { 0 }.to_le_bytes()); // directories
    out.extend(flags.to_le_bytes());
    out.extend([0; 8]); // snapshots and checksums of bitmaps, not in use
    out.extend(unused_inodes.to_le_bytes());
    out
}

/// A group's block bitmap: what is in use, and what lies behind the end.
pub(crate) fn block_bitmap(geometry: &Geometry, group: u32) -> Vec<u8> {
    bitmap(geometry.used_blocks(group), geometry.group_blocks(group))
}

/// The inode bitmap of the first group.
pub(crate) fn inode_bitmap(geometry: &Geometry) -> Vec<u8> {
    bitmap(USED_INODES, geometry.inodes_per_group)
}

/// A block of bits: set below `used` and from `end` on.
fn bitmap(used: u32, end: u32) -> Vec<u8> {
    let bit = |number: u32| u8::from(number < used || number >= end) << (number % 8);
    (0..BLOCK as u32).map(|byte| (byte * 8..byte * 8 + 8).map(bit).sum()).collect()
}

/// CRC-16 (reflected 0x8005), a byte at a time: a large disk has thousands of descriptors.
fn crc16_table() -> [u16; 256] {
    std::array::from_fn(|byte| {
        (0..8).fold(byte as u16, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 })
    })
}

fn crc16(table: &[u16; 256], crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, byte| {
        let [low, high] = crc.to_le_bytes();
        u16::from(high) ^ table.get(usize::from(low ^ byte)).copied().unwrap_or_default() // always there
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_of_the_usual_check_string() {
        assert_eq!(crc16(&crc16_table(), 0, b"123456789"), 0xBB3D);
    }

    #[test]
    fn bits_at_both_ends() {
        let bits = bitmap(11, 32763);
        assert_eq!((bits[0], bits[1], bits[2], bits[4094], bits[4095]), (0xff, 0x07, 0, 0, 0xf8));
        assert!(bitmap(0, 32768).iter().all(|byte| *byte == 0));
        assert_eq!(bitmap(1, 8)[1], 0xff);
    }

    #[test]
    fn only_the_first_and_the_last_group_have_a_block_bitmap() {
        let geometry = Geometry::of(1 << 30).unwrap();
        let all = descriptors(&geometry, [7; 16]);
        assert_eq!(all.len(), 8 * 32);
        let without: Vec<bool> = all.chunks(32).map(|group| group[18] & BLOCK_UNINIT as u8 != 0).collect();
        assert_eq!(without, [false, true, true, true, true, true, true, false]);
    }
}
