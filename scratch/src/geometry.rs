//! What is where: a pure function of the size.
//!
//! Group 0: superblock, descriptors, block bitmap, inode bitmap, the two directories, inode table: all that is written
//! is in a row. The other groups: block bitmap, inode bitmap, inode table.

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
/// Blocks of a group: as many as a block has bits.
pub(crate) const GROUP_BLOCKS: u32 = 32768;
/// Bytes of an inode.
pub(crate) const INODE_BYTES: u32 = 256;
/// Bytes of a group's descriptor (without the `64bit` feature).
pub(crate) const DESCRIPTOR_BYTES: u32 = 32;
/// The first inodes are reserved, and the one behind them is lost+found, which e2fsck wants.
pub(crate) const USED_INODES: u32 = 11;

/// The smallest scratch disk.
pub const MIN_BYTES: u64 = 64 << 20;
/// The largest scratch disk.
pub const MAX_BYTES: u64 = 1 << 40;

/// One inode for this many bytes.
const BYTES_PER_INODE: u64 = 16 << 10;
const BLOCKS_PER_INODE: u32 = (BYTES_PER_INODE / BLOCK) as u32;
const INODES_PER_BLOCK: u32 = BLOCK as u32 / INODE_BYTES;
/// A last group with less room than this for files, in blocks, is not worth its metadata.
const MIN_ROOM: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub blocks: u32,
    pub groups: u32,
    pub inodes_per_group: u32,
}

impl Geometry {
    /// `None` if the size is out of range.
    pub fn of(size_bytes: u64) -> Option<Self> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&size_bytes) {
            return None;
        }
        let blocks = u32::try_from(size_bytes / BLOCK).ok()?;
        let group_inodes = GROUP_BLOCKS.min(blocks) / BLOCKS_PER_INODE;
        let inodes_per_group = group_inodes.next_multiple_of(INODES_PER_BLOCK);
        let all = Self { blocks, groups: blocks.div_ceil(GROUP_BLOCKS), inodes_per_group };
        let last_room = all.group_blocks(all.groups - 1).saturating_sub(all.used_blocks(all.groups - 1));
        if all.groups == 1 || last_room >= MIN_ROOM {
            return Some(all);
        }
        let groups = all.groups - 1;
        Some(Self { blocks: groups * GROUP_BLOCKS, groups, inodes_per_group })
    }

    pub fn inodes(&self) -> u32 {
        self.groups * self.inodes_per_group
    }

    pub fn descriptor_blocks(&self) -> u32 {
        (self.groups * DESCRIPTOR_BYTES).div_ceil(BLOCK as u32)
    }

    /// Blocks that a group has; only the last may have fewer than the others.
    pub fn group_blocks(&self, group: u32) -> u32 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    pub fn block_bitmap(&self, group: u32) -> u32 {
        let before = if group == 0 { 1 + self.descriptor_blocks() } else { 0 };
        group * GROUP_BLOCKS + before
    }

    pub fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 1
    }

    pub fn root_block(&self) -> u32 {
        self.inode_bitmap(0) + 1
    }

    pub fn lost_found_block(&self) -> u32 {
        self.root_block() + 1
    }

    pub fn inode_table(&self, group: u32) -> u32 {
        if group == 0 { self.lost_found_block() + 1 } else { self.inode_bitmap(group) + 1 }
    }

    /// Blocks in use, from the group's first on.
    pub fn used_blocks(&self, group: u32) -> u32 {
        self.inode_table(group) + self.inodes_per_group / INODES_PER_BLOCK - group * GROUP_BLOCKS
    }

    pub fn free_blocks(&self, group: u32) -> u32 {
        self.group_blocks(group) - self.used_blocks(group)
    }

    pub fn all_free_blocks(&self) -> u32 {
        (0..self.groups).map(|group| self.free_blocks(group)).sum()
    }

    /// Blocks of metadata, without the directories.
    pub fn overhead(&self) -> u32 {
        self.blocks - self.all_free_blocks() - 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range() {
        for size in [0, MIN_BYTES - 1, MAX_BYTES + 1, u64::MAX] {
            assert_eq!(Geometry::of(size), None);
        }
    }

    #[test]
    fn the_smallest_and_the_largest() {
        let small = Geometry::of(MIN_BYTES).unwrap();
        assert_eq!(small, Geometry { blocks: 16384, groups: 1, inodes_per_group: 4096 });
        let large = Geometry::of(MAX_BYTES).unwrap();
        assert_eq!((large.groups, large.inodes(), large.descriptor_blocks()), (8192, 1 << 26, 64));
    }

    #[test]
    fn a_last_group_too_small_for_its_metadata_is_left_out() {
        let group = u64::from(GROUP_BLOCKS) * BLOCK;
        let whole = Geometry::of(2 * group).unwrap();
        for blocks in [1, 513, 514, 514 + 63] {
            assert_eq!(Geometry::of(2 * group + blocks * BLOCK + 7).unwrap(), whole);
        }
        let more = Geometry::of(2 * group + (514 + 64) * BLOCK).unwrap();
        assert_eq!((more.groups, more.free_blocks(2)), (3, 64));
    }

    #[test]
    fn every_block_is_free_or_in_use() {
        for size in [MIN_BYTES, 100 << 20, 128 << 20, 8 << 30, 1 << 40] {
            let geometry = Geometry::of(size).unwrap();
            assert_eq!(geometry.overhead() + 2 + geometry.all_free_blocks(), geometry.blocks);
        }
    }
}
