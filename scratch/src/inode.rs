//! The two directories that there are from the start.

use crate::geometry::{BLOCK, Geometry, INODE_BYTES, USED_INODES};

const ROOT: u32 = 2;
const LOST_FOUND: u32 = USED_INODES;

/// The first block of the inode table, up to the last inode in use.
pub(crate) fn table(geometry: &Geometry) -> Vec<u8> {
    let mut out = vec![0; ((ROOT - 1) * INODE_BYTES) as usize];
    out.extend(directory(0o755, 3, geometry.root_block()));
    out.resize(((LOST_FOUND - 1) * INODE_BYTES) as usize, 0);
    out.extend(directory(0o700, 2, geometry.lost_found_block()));
    out
}

/// A directory of one block.
fn directory(permissions: u16, links: u16, block: u32) -> Vec<u8> {
    const TYPE_DIRECTORY: u16 = 0o040_000;
    const SECTORS: u32 = BLOCK as u32 / 512;
    const FLAG_EXTENTS: u32 = 0x8_0000;
    const EXTENT_MAGIC: u16 = 0xF30A;
    const EXTRA_BYTES: u16 = 32;
    let mut out = Vec::with_capacity(INODE_BYTES as usize);
    out.extend((TYPE_DIRECTORY | permissions).to_le_bytes());
    out.extend([0; 2]); // owner
    out.extend((BLOCK as u32).to_le_bytes());
    out.extend([0; 16]); // times
    out.extend([0; 2]); // group
    out.extend(links.to_le_bytes());
    out.extend(SECTORS.to_le_bytes());
    out.extend(FLAG_EXTENTS.to_le_bytes());
    out.extend([0; 4]);
    // The extent tree's header: one entry of four, depth and generation 0.
    for field in [EXTENT_MAGIC, 1, 4, 0, 0, 0] {
        out.extend(field.to_le_bytes());
    }
    // The extent: from block 0 on, one block long, at a 48-bit address whose upper part comes first.
    out.extend(0_u32.to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    out.extend(block.to_le_bytes());
    out.resize(128, 0);
    out.extend(EXTRA_BYTES.to_le_bytes());
    out.resize(INODE_BYTES as usize, 0);
    out
}

pub(crate) fn root_block() -> Vec<u8> {
    block(&[(ROOT, "."), (ROOT, ".."), (LOST_FOUND, "lost+found")])
}

pub(crate) fn lost_found_block() -> Vec<u8> {
    block(&[(LOST_FOUND, "."), (ROOT, "..")])
}

/// A directory's block: entries of directories, the last of which reaches to the end.
fn block(entries: &[(u32, &str)]) -> Vec<u8> {
    const TYPE_DIRECTORY: u8 = 2;
    let mut out = Vec::with_capacity(BLOCK as usize);
    for (position, (inode, name)) in entries.iter().enumerate() {
        let own = (8 + name.len()).next_multiple_of(4);
        let length = if position + 1 == entries.len() { BLOCK as usize - out.len() } else { own };
        let end = out.len() + length;
        out.extend(inode.to_le_bytes());
        out.extend((length as u16).to_le_bytes());
        out.extend([name.len() as u8, TYPE_DIRECTORY]);
        out.extend(name.as_bytes());
        out.resize(end, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_lengths_of_the_format() {
        assert_eq!((root_block().len(), lost_found_block().len()), (4096, 4096));
        let length = |at: usize| u16::from_le_bytes([root_block()[at], root_block()[at + 1]]);
        assert_eq!([length(4), length(16), length(28)], [12, 12, 4096 - 24]);
    }

    #[test]
    fn the_table_has_both_inodes_in_place() {
        let table = table(&Geometry::of(64 << 20).unwrap());
        assert_eq!(table.len(), 11 * 256);
        assert_eq!(table[256..258], 0o040_755_u16.to_le_bytes());
        assert_eq!(table[2560..2562], 0o040_700_u16.to_le_bytes());
    }
}
