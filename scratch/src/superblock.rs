//! The superblock (`struct ext4_super_block`), field by field in the order of the format.

use crate::geometry::{BLOCK, GROUP_BLOCKS, Geometry, INODE_BYTES, USED_INODES};

const MAGIC: u16 = 0xEF53;
const CLEAN: u16 = 1;
/// On an error the file system becomes read-only: what runs on it is told, and nothing gets worse.
const ERRORS_REMOUNT_READ_ONLY: u16 = 2;
/// log2(block size / 1024)
const LOG_BLOCK: u32 = 2;
const DYNAMIC_REVISION: u32 = 1;

const COMPAT_EXT_ATTR: u32 = 0x8;
const COMPAT_DIR_INDEX: u32 = 0x20;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_EXTENTS: u32 = 0x40;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_LARGE_FILE: u32 = 0x2;
const RO_COMPAT_HUGE_FILE: u32 = 0x8;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_DIR_NLINK: u32 = 0x20;
const RO_COMPAT_EXTRA_ISIZE: u32 = 0x40;

const HASH_HALF_MD4: u8 = 1;
/// Extended attributes and ACLs are on unless a mount says otherwise.
const MOUNT_XATTR_USER_AND_ACL: u32 = 0xC;
/// Bytes of an inode beyond the original 128 that all have: nanoseconds and creation time.
const EXTRA_BYTES: u16 = 32;
/// Names are hashed as x86 does it, by signed bytes.
const FLAG_SIGNED_HASH: u32 = 1;

/// Block 0: 1024 bytes for a boot sector, then the superblock.
pub(crate) fn encode(geometry: &Geometry, uuid: [u8; 16]) -> Vec<u8> {
    let mut out = vec![0; 1024];
    let words =
        |out: &mut Vec<u8>, values: &[u32]| out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let halves =
        |out: &mut Vec<u8>, values: &[u16]| out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let reserved_blocks = 0;
    let free_inodes = geometry.inodes() - USED_INODES;
    words(
        &mut out,
        &[geometry.inodes(), geometry.blocks, reserved_blocks, geometry.all_free_blocks(), free_inodes],
    );
    words(&mut out, &[0, LOG_BLOCK, LOG_BLOCK, GROUP_BLOCKS, GROUP_BLOCKS, geometry.inodes_per_group]);
    words(&mut out, &[0, 0]); // times of mount and write
    halves(&mut out, &[0, u16::MAX, MAGIC, CLEAN, ERRORS_REMOUNT_READ_ONLY, 0]); // checks by number of mounts: never
    words(&mut out, &[0, 0, 0, DYNAMIC_REVISION, 0]); // checks by time: never; made on Linux; reserve for root
    words(&mut out, &[USED_INODES]); // the first inode that is not reserved
    halves(&mut out, &[INODE_BYTES as u16, 0]);
    words(&mut out, &[COMPAT_EXT_ATTR | COMPAT_DIR_INDEX | COMPAT_SPARSE_SUPER2]);
    words(&mut out, &[INCOMPAT_FILETYPE | INCOMPAT_EXTENTS]);
    words(
        &mut out,
        &[RO_COMPAT_SPARSE_SUPER
            | RO_COMPAT_LARGE_FILE
            | RO_COMPAT_HUGE_FILE
            | RO_COMPAT_GDT_CSUM
            | RO_COMPAT_DIR_NLINK
            | RO_COMPAT_EXTRA_ISIZE],
    );
    out.extend(uuid);
    out.resize(1024 + 236, 0); // names, preallocation, journal: none
    out.extend(uuid); // seed of the name hash
    out.extend([HASH_HALF_MD4, 0]);
    halves(&mut out, &[0]); // descriptors have their original size
    words(&mut out, &[MOUNT_XATTR_USER_AND_ACL]);
    out.resize(1024 + 348, 0); // more of the journal, upper halves of block counts
    halves(&mut out, &[EXTRA_BYTES, EXTRA_BYTES]);
    words(&mut out, &[FLAG_SIGNED_HASH]);
    out.resize(1024 + 584, 0);
    words(&mut out, &[geometry.overhead()]);
    out.resize(BLOCK as usize, 0); // no backup groups, no checksum of the superblock
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_at_the_offsets_of_the_format() {
        let geometry = Geometry::of(1 << 30).unwrap();
        let block = encode(&geometry, *b"0123456789abcdef");
        let word = |at: usize| u32::from_le_bytes(block[1024 + at..][..4].try_into().unwrap());
        assert_eq!(block.len(), 4096);
        assert_eq!((word(4), word(40), word(84)), (262_144, 8192, 11));
        assert_eq!(block[1024 + 56..][..2], [0x53, 0xEF]);
        assert_eq!(block[1024 + 104..][..16], *b"0123456789abcdef");
        assert_eq!(block[1024 + 236..][..16], *b"0123456789abcdef");
        assert_eq!((block[1024 + 252], word(256), word(352)), (1, 0xC, 1));
        assert_eq!(word(584), geometry.overhead());
    }
}
