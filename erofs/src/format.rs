//! The on-disk records: superblock and inode, little-endian, as in the kernel's `fs/erofs/erofs_fs.h`.
//!
//! Of the format's variants this crate writes and reads one: blocks of 4 KiB, no compression, no chunks, no second
//! device, 64-byte ("extended") inodes, extended attributes beside their inode. Every kernel since 5.4 mounts it.

/// Bytes of a block, and log2 of it.
pub(crate) const BLOCK: u64 = 1 << BLOCK_BITS;
pub(crate) const BLOCK_BITS: u8 = 12;
/// Where the superblock begins, so that a boot sector fits before it.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Bytes of an extended inode. Inodes begin at multiples of it, so none crosses a block.
pub(crate) const INODE_BYTES: usize = 64;
/// An inode's number counts slots of this many bytes from the start of the metadata area.
pub(crate) const SLOT_BYTES: u64 = 32;

const MAGIC: u32 = 0xE0F5_E1E2;
/// The checksum is there.
const COMPAT_CHECKSUM: u32 = 1;
/// The times are of modification, not of change.
const COMPAT_MTIME: u32 = 2;

/// What of the superblock varies from image to image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub root_nid: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub meta_block: u32,
}

impl Superblock {
    /// The rest of block 0 from [`SUPERBLOCK_OFFSET`] on, which is what the checksum covers.
    pub fn encode(&self) -> Vec<u8> {
        let record = |checksum: u32| {
            let mut out = Vec::with_capacity((BLOCK - SUPERBLOCK_OFFSET) as usize);
            out.extend(MAGIC.to_le_bytes());
            out.extend(checksum.to_le_bytes());
            out.extend((COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
            out.extend([BLOCK_BITS, 0]); // no extension slots
            out.extend(self.root_nid.to_le_bytes());
            out.extend(self.inodes.to_le_bytes());
            out.extend([0; 12]); // build time: images are reproducible
            out.extend(self.blocks.to_le_bytes());
            out.extend(self.meta_block.to_le_bytes());
            // Shared attributes, UUID, volume name, incompatible features, compression, devices: none of them.
            out.resize((BLOCK - SUPERBLOCK_OFFSET) as usize, 0);
            out
        };
        record(crc32c(&record(0)))
    }

    /// Checks and decodes the rest of block 0 from [`SUPERBLOCK_OFFSET`] on. The error says what is not as expected.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is shorter than a superblock";
        let mut fields = Fields(bytes);
        if fields.u32().ok_or(SHORT)? != MAGIC {
            return Err("it has no EROFS superblock");
        }
        let checksum = fields.u32().ok_or(SHORT)?;
        let compatible = fields.u32().ok_or(SHORT)?;
        let [block_bits, extension_slots] = fields.bytes().ok_or(SHORT)?;
        let superblock = (|| {
            let (root_nid, inodes) = (fields.u16()?, fields.u64()?);
            fields.skip(12)?;
            let (blocks, meta_block) = (fields.u32()?, fields.u32()?);
            Some(Self { root_nid, inodes, blocks, meta_block })
        })()
        .ok_or(SHORT)?;
        fields.skip(4 + 16 + 16).ok_or(SHORT)?;
        let incompatible = fields.u32().ok_or(SHORT)?;
        fields.skip(2).ok_or(SHORT)?;
        let extra_devices = fields.u16().ok_or(SHORT)?;
        if compatible & COMPAT_CHECKSUM == 0 {
            return Err("its superblock has no checksum");
        }
        let mut blank = bytes.to_vec();
        blank.get_mut(4..8).ok_or(SHORT)?.fill(0);
        if crc32c(&blank) != checksum {
            return Err("its superblock's checksum is wrong; fetch it again");
        }
        if block_bits != BLOCK_BITS || extension_slots != 0 || incompatible != 0 || extra_devices != 0 {
            return Err("it uses features of EROFS that are not in use here");
        }
        Ok(superblock)
    }
}

/// Where an inode's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In whole blocks of its own, as DAX needs it.
    Plain,
    /// Behind the inode and its attributes (what exceeds whole blocks, to be exact; here that is everything).
    Inline,
}

/// An inode as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawInode {
    pub layout: Layout,
    pub xattr_count: u16,
    pub mode: u16,
    pub size: u64,
    /// First data block, or a device's number.
    pub block_or_device: u32,
    pub serial: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub links: u32,
}

/// `i_format`: bit 0 for an extended inode, the data's layout above it.
const FORMAT_PLAIN: u16 = 1;
const FORMAT_INLINE: u16 = 1 | 2 << 1;

impl RawInode {
    /// The inode's [`INODE_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(INODE_BYTES);
        let format = match self.layout {
            Layout::Plain => FORMAT_PLAIN,
            Layout::Inline => FORMAT_INLINE,
        };
        out.extend(format.to_le_bytes());
        out.extend(self.xattr_count.to_le_bytes());
        out.extend(self.mode.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.size.to_le_bytes());
        out.extend(self.block_or_device.to_le_bytes());
        out.extend(self.serial.to_le_bytes());
        out.extend(self.uid.to_le_bytes());
        out.extend(self.gid.to_le_bytes());
        out.extend(self.mtime_s.to_le_bytes());
        out.extend(self.mtime_ns.to_le_bytes());
        out.extend(self.links.to_le_bytes());
        out.resize(INODE_BYTES, 0);
        out
    }

    /// `None` if the bytes are no inode of the one variant in use.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let layout = match fields.u16()? {
            FORMAT_PLAIN => Layout::Plain,
            FORMAT_INLINE => Layout::Inline,
            _ => return None,
        };
        let (xattr_count, mode) = (fields.u16()?, fields.u16()?);
        fields.skip(2)?;
        Some(Self {
            layout,
            xattr_count,
            mode,
            size: fields.u64()?,
            block_or_device: fields.u32()?,
            serial: fields.u32()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            mtime_s: fields.u64()?.cast_signed(),
            mtime_ns: fields.u32()?,
            links: fields.u32()?,
        })
    }
}

/// Reads fields one after the other; `None` at the end of the bytes.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(field)
    }

    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

/// What a byte adds to a CRC-32C. An image is opened at each start of a pod: bit by bit, the checksum took most of that.
#[allow(clippy::indexing_slicing)] // It is computed by the compiler, which does not go beyond the end.
const CRC32C: [u32; 256] = {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32C as EROFS uses it: all ones to begin with and, unlike everywhere else, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ CRC32C.get(usize::from(low ^ byte)).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERBLOCK: Superblock = Superblock { root_nid: 2, inodes: 7, blocks: 99, meta_block: 42 };

    #[test]
    fn crc32c_of_the_usual_check_string() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn superblock_round_trip_and_offsets() {
        let bytes = SUPERBLOCK.encode();
        assert_eq!(Superblock::decode(&bytes), Ok(SUPERBLOCK));
        assert_eq!(bytes.len(), 3072);
        // Offsets from the kernel's struct erofs_super_block.
        assert_eq!(bytes[14..16], [2, 0]);
        assert_eq!(bytes[36], 99);
        assert_eq!(bytes[40], 42);
    }

    #[test]
    fn every_flipped_bit_of_the_superblock_is_noticed() {
        let good = SUPERBLOCK.encode();
        for bit in 0..128 * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(Superblock::decode(&good[..40]).is_err());
    }

    #[test]
    fn inode_round_trip_and_offsets() {
        let inode = RawInode {
            layout: Layout::Inline,
            xattr_count: 4,
            mode: 0o120777,
            size: 1 << 40,
            block_or_device: 0xffff_fffe,
            serial: 5,
            uid: 0xffff_fffd,
            gid: 70000,
            mtime_s: -1,
            mtime_ns: 999_999_999,
            links: 65537,
        };
        let bytes = inode.encode();
        assert_eq!(bytes.len(), INODE_BYTES);
        assert_eq!(RawInode::decode(&bytes), Some(inode));
        // Offsets from the kernel's struct erofs_inode_extended.
        assert_eq!(bytes[13], 1, "size at 8");
        assert_eq!(bytes[16], 0xfe, "block at 16");
        assert_eq!(bytes[24], 0xfd, "uid at 24");
        assert_eq!(bytes[44..48], [1, 0, 1, 0], "links at 44");
        assert_eq!(RawInode::decode(&bytes[..63 - 16]), None);
    }
}
