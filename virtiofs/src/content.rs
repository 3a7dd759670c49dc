//! Requests about what is in files.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::stat::SFlag;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Whence, fdatasync, fsync, lseek, syncfs};

use crate::inodes::Inode;
use crate::reply::Reply;
use crate::request::{MAX_IO_BYTES, ROOT};
use crate::server::Server;
use crate::sys;

/// How much is copied for one request, which others wait for.
const MAX_COPY_BYTES: u64 = 16 << 20;

impl Server {
    pub(crate) fn open(&mut self, node: u64, flags: u32, kill_suid: bool) -> Result<Reply, Errno> {
        let (inode, flags) = (self.inodes.get(node)?, open_flags(flags)?);
        let file = perhaps_without_fsetid(kill_suid, || self.open_file(&inode, flags))?;
        Ok(Reply::default().open_out(self.files.add(file.into())?))
    }

    /// Opens a regular file: everything else that can be opened is the guest's own.
    pub(crate) fn open_file(&self, inode: &Inode, flags: OFlag) -> Result<OwnedFd, Errno> {
        match inode.kind {
            SFlag::S_IFREG => self.reopen(inode, flags),
            SFlag::S_IFDIR => Err(Errno::EISDIR),
            SFlag::S_IFLNK => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    pub(crate) fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Reply, Errno> {
        let mut bytes = vec![0; size.min(MAX_IO_BYTES) as usize];
        let count = pread(self.files.get(handle)?, &mut bytes, signed(offset)?)?;
        bytes.truncate(count);
        Ok(Reply::bytes(bytes))
    }

    pub(crate) fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        kill_suid: bool,
    ) -> Result<Reply, Errno> {
        let (file, offset) = (self.files.get(handle)?, signed(offset)?);
        let count = perhaps_without_fsetid(kill_suid, || pwrite(&file, data, offset))?;
        Ok(written(count))
    }

    pub(crate) fn sync(&self, handle: u64, data_only: bool) -> Result<Reply, Errno> {
        let file = self.files.get(handle)?;
        if data_only { fdatasync(&file) } else { fsync(&file) }?;
        Ok(Reply::default())
    }

    /// Writes back the file system that the volume is on.
    pub(crate) fn sync_all(&self) -> Result<Reply, Errno> {
        let root = self.inodes.get(ROOT)?;
        syncfs(self.reopen(&root, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        Ok(Reply::default())
    }

    pub(crate) fn allocate(
        &self,
        handle: u64,
        (offset, length): (u64, u64),
        mode: u32,
    ) -> Result<Reply, Errno> {
        let allowed = FallocateFlags::FALLOC_FL_KEEP_SIZE
            | FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | FallocateFlags::FALLOC_FL_ZERO_RANGE;
        let mode = FallocateFlags::from_bits(mode.cast_signed())
            .filter(|mode| allowed.contains(*mode))
            .ok_or(Errno::EOPNOTSUPP)?;
        fallocate(self.files.get(handle)?, mode, signed(offset)?, signed(length)?)?;
        Ok(Reply::default())
    }

    /// Where the next data or hole is.
    pub(crate) fn seek(&self, handle: u64, offset: u64, whence: u32) -> Result<Reply, Errno> {
        let whence = match whence.cast_signed() {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return Err(Errno::EINVAL),
        };
        let found = lseek(self.files.get(handle)?, signed(offset)?, whence)?;
        Ok(Reply::default().u64(found.cast_unsigned()))
    }

    pub(crate) fn copy_range(&self, from: (u64, u64), to: (u64, u64), length: u64) -> Result<Reply, Errno> {
        let (source, target) = (self.files.get(from.0)?, self.files.get(to.0)?);
        let offsets = (signed(from.1)?, signed(to.1)?);
        let length = length.min(MAX_COPY_BYTES) as usize;
        sys::copy_range((source, offsets.0), (target, offsets.1), length).map(written)
    }
}

/// The flags with which a guest may open a file. What is not for the host is left out.
pub fn open_flags(flags: u32) -> Result<OFlag, Errno> {
    const KEPT: libc::c_int = libc::O_ACCMODE | libc::O_APPEND | libc::O_TRUNC | libc::O_SYNC;
    let flags = flags.cast_signed() & KEPT;
    if flags & libc::O_ACCMODE == libc::O_ACCMODE {
        return Err(Errno::EINVAL);
    }
    Ok(OFlag::from_bits_truncate(flags))
}

/// Runs `action`, and lets what it writes to lose set-user-ID and set-group-ID if the writer lacks the right to keep them.
pub fn perhaps_without_fsetid<T>(
    kill_suid: bool,
    action: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    if kill_suid { sys::without_fsetid(action) } else { action() }
}

/// `struct fuse_write_out`.
fn written(count: usize) -> Reply {
    Reply::default().u32(count as u32).u32(0)
}

/// An offset as the system calls take it.
pub fn signed(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}
