//! FUSE replies, as fuse.h lays them out.

use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::sys::statfs::Statfs;

/// `struct fuse_out_header`.
const HEADER_BYTES: usize = 16;
/// `struct fuse_entry_out` has no generation: numbers of inodes are never used again.
const GENERATION: u64 = 0;

/// A reply that is being written.
#[derive(Debug, Default)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// The message to a request, with what the operation came to.
    pub fn message(unique: u64, result: Result<Self, Errno>) -> Vec<u8> {
        let (error, body) = match result {
            Ok(Self(body)) => (0, body),
            Err(errno) => (-(errno as i32), Vec::new()),
        };
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
        message.extend(error.to_le_bytes());
        message.extend(unique.to_le_bytes());
        message.extend(body);
        message
    }

    /// These bytes.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends.
    pub fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Appends.
    pub fn u16(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends.
    pub fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends.
    pub fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }

    /// `struct fuse_entry_out`. Nothing in it is valid for any time: the host may change it.
    pub fn entry(self, node: u64, ino: u64, stat: &FileStat) -> Self {
        self.u64(node).u64(GENERATION).u64(0).u64(0).u64(0).attributes(ino, stat)
    }

    /// `struct fuse_attr_out`, likewise.
    pub fn attributes_out(self, ino: u64, stat: &FileStat) -> Self {
        self.u64(0).u64(0).attributes(ino, stat)
    }

    /// `struct fuse_open_out`, without flags: the guest has a page cache, which it checks when it opens and reads.
    pub fn open_out(self, handle: u64) -> Self {
        self.u64(handle).u64(0)
    }

    /// `struct fuse_attr`.
    fn attributes(self, ino: u64, stat: &FileStat) -> Self {
        self.u64(ino)
            .u64(stat.st_size.cast_unsigned())
            .u64(stat.st_blocks.cast_unsigned())
            .u64(stat.st_atime.cast_unsigned())
            .u64(stat.st_mtime.cast_unsigned())
            .u64(stat.st_ctime.cast_unsigned())
            .u32(stat.st_atime_nsec as u32)
            .u32(stat.st_mtime_nsec as u32)
            .u32(stat.st_ctime_nsec as u32)
            .u32(stat.st_mode)
            .u32(stat.st_nlink as u32)
            .u32(stat.st_uid)
            .u32(stat.st_gid)
            .u32(stat.st_rdev as u32)
            .u32(stat.st_blksize as u32)
            .u32(0)
    }

    /// `struct fuse_kstatfs`.
    pub fn statfs(self, statfs: &Statfs) -> Self {
        let block_size = statfs.block_size().cast_unsigned() as u32;
        self.u64(statfs.blocks())
            .u64(statfs.blocks_free())
            .u64(statfs.blocks_available())
            .u64(statfs.files())
            .u64(statfs.files_free())
            .u32(block_size)
            .u32(statfs.maximum_name_length() as u32)
            .u32(block_size)
            .put(&[0; 28])
    }

    /// `struct fuse_dirent`, padded to 8 bytes; false, and nothing, if that does not fit into `room`.
    pub fn directory_entry(&mut self, room: usize, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let bytes = (24 + name.len()).next_multiple_of(8);
        if self.0.len() + bytes > room {
            return false;
        }
        let end = self.0.len() + bytes;
        self.0.extend(ino.to_le_bytes());
        self.0.extend(next.to_le_bytes());
        self.0.extend((name.len() as u32).to_le_bytes());
        self.0.extend(kind.to_le_bytes());
        self.0.extend(name);
        self.0.resize(end, 0);
        true
    }
}
