//! Bounds on what an image may make its writer hold and write. Images come from strangers.

/// Entries of an image, those that later layers replace included: 4 Mi cost about 800 MB of memory.
pub const MAX_ENTRIES: u64 = 4 << 20;
/// Bytes of file data in whole blocks, replaced files included: 1 TiB (the format itself ends at 16 TiB).
pub const MAX_DATA_BYTES: u64 = 1 << 40;
/// Bytes of names, link targets and extended attributes together, all of which are held in memory.
pub const MAX_METADATA_BYTES: u64 = 512 << 20;
/// Bytes of one inode's extended attributes in their stored form: what the kernel reads back by one listxattr(2).
pub const MAX_XATTR_BYTES: usize = 64 << 10;
/// Symbolic links followed while one path is resolved, as the kernel's own limit.
pub const MAX_LINKS_FOLLOWED: u32 = 40;

/// The bounds of one image; [`Limits::default`] has the constants of this module.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`MAX_ENTRIES`].
    pub entries: u64,
    /// See [`MAX_DATA_BYTES`].
    pub data_bytes: u64,
    /// See [`MAX_METADATA_BYTES`].
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, data_bytes: MAX_DATA_BYTES, metadata_bytes: MAX_METADATA_BYTES }
    }
}
