//! Requests about directories as lists.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, fdatasync, fsync, lseek};

use crate::content::signed;
use crate::reply::Reply;
use crate::request::ROOT;
use crate::server::Server;
use crate::sys;

/// How much is read of a directory at a time.
const MAX_LIST_BYTES: usize = 32 << 10;

impl Server {
    pub(crate) fn open_directory(&mut self, node: u64) -> Result<Reply, Errno> {
        let directory = self.directory(node)?;
        let opened = self.reopen(&directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(Reply::default().open_out(self.directories.add(File::from(opened))?))
    }

    /// The entries from `offset` on, which is what an entry read before says, as far as they fit.
    pub(crate) fn read_directory(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Reply, Errno> {
        let directory = self.directories.get(handle)?;
        let room = (size as usize).min(MAX_LIST_BYTES);
        lseek(&directory, signed(offset)?, Whence::SeekSet)?;
        let mut buffer = vec![0; room];
        let count = sys::read_directory(&directory, &mut buffer)?;
        buffer.truncate(count);
        // What is above the volume is not the guest's to know.
        let above_root = if node == ROOT { Some(fstat(&directory)?.st_ino) } else { None };
        let mut reply = Reply::default();
        let mut rest = buffer.as_slice();
        while let Some((entry, next)) = Entry::parse(rest) {
            let ino = above_root.filter(|_| entry.name == b"..").unwrap_or(entry.ino);
            if !reply.directory_entry(room, ino, entry.next, entry.kind, entry.name) {
                break;
            }
            rest = next;
        }
        // An empty list would be the end.
        if count > 0 && reply.len() == 0 { Err(Errno::EINVAL) } else { Ok(reply) }
    }

    pub(crate) fn sync_directory(&self, handle: u64, data_only: bool) -> Result<Reply, Errno> {
        let directory = self.directories.get(handle)?;
        if data_only { fdatasync(&directory) } else { fsync(&directory) }?;
        Ok(Reply::default())
    }
}

/// `struct linux_dirent64`.
struct Entry<'a> {
    ino: u64,
    next: u64,
    kind: u32,
    name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The first of a list, and the rest of the list.
    fn parse(list: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (ino, after) = list.split_first_chunk::<8>()?;
        let (next, after) = after.split_first_chunk::<8>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let (kind, _) = after.split_first()?;
        let (entry, rest) = list.split_at_checked(u16::from_le_bytes(*length).into())?;
        let name = entry.get(19..)?.split(|byte| *byte == 0).next()?;
        let (ino, next) = (u64::from_le_bytes(*ino), u64::from_le_bytes(*next));
        Some((Self { ino, next, kind: (*kind).into(), name }, rest))
    }
}
