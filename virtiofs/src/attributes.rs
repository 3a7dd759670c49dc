//! Requests about attributes, extended ones too.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Uid, fchownat, ftruncate};

use crate::content::{perhaps_without_fsetid, signed};
use crate::inodes::Inode;
use crate::reply::Reply;
use crate::request::Changes;
use crate::server::Server;
use crate::sys;

/// The kernel's own limit (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_XATTR_BYTES: u32 = 64 << 10;
/// The extended attributes that a guest gets: the others mean something to the host.
const XATTR_PREFIX: &[u8] = b"user.";

impl Server {
    pub(crate) fn get_attributes(&self, node: u64) -> Result<Reply, Errno> {
        let stat = fstat(&self.inodes.get(node)?.place)?;
        Ok(Reply::default().attributes_out(self.shown_number(&stat), &stat))
    }

    pub(crate) fn set_attributes(&self, node: u64, changes: &Changes) -> Result<Reply, Errno> {
        let inode = self.inodes.get(node)?;
        // The owner first, since a change of it takes bits of the mode away.
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            fchownat(&inode.place, c"", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            if inode.kind == SFlag::S_IFLNK {
                return Err(Errno::EOPNOTSUPP);
            }
            let (directory, name) = self.link_to(&inode);
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(directory, name.as_str(), mode, FchmodatFlags::FollowSymlink)?;
        }
        if let Some(size) = changes.size {
            let size = signed(size)?;
            let truncate = || match changes.handle {
                Some(handle) => ftruncate(self.files.get(handle)?, size),
                None => ftruncate(self.open_file(&inode, OFlag::O_WRONLY)?, size),
            };
            perhaps_without_fsetid(changes.kill_suid, truncate)?;
        }
        if changes.accessed.is_some() || changes.modified.is_some() {
            sys::set_times(&inode.place, changes.accessed, changes.modified)?;
        }
        self.get_attributes(node)
    }

    pub(crate) fn stat_fs(&self, node: u64) -> Result<Reply, Errno> {
        Ok(Reply::default().statfs(&fstatfs(&self.inodes.get(node)?.place)?))
    }

    pub(crate) fn set_xattr(&self, node: u64, name: &CStr, value: &[u8], flags: u32) -> Result<Reply, Errno> {
        let file = self.open_for_xattr(node, name)?;
        sys::set_xattr(&file, name, value, flags.cast_signed())?;
        Ok(Reply::default())
    }

    pub(crate) fn get_xattr(&self, node: u64, name: &CStr, size: u32) -> Result<Reply, Errno> {
        let file = self.open_for_xattr(node, name)?;
        let mut value = vec![0; size.min(MAX_XATTR_BYTES) as usize];
        let length = sys::get_xattr(&file, name, &mut value)?;
        value.truncate(length);
        // `struct fuse_getxattr_out`
        Ok(if size == 0 { Reply::default().u32(length as u32).u32(0) } else { Reply::bytes(value) })
    }

    pub(crate) fn list_xattrs(&self, node: u64, size: u32) -> Result<Reply, Errno> {
        let mut names = Vec::new();
        if let Some(file) = self.open_to_look(&*self.inodes.get(node)?)? {
            let mut all = vec![0; MAX_XATTR_BYTES as usize];
            let length = sys::list_xattrs(&file, &mut all)?;
            all.truncate(length);
            let shown = all.split_inclusive(|byte| *byte == 0).filter(|name| name.starts_with(XATTR_PREFIX));
            names = shown.flatten().copied().collect();
        }
        match size as usize {
            0 => Ok(Reply::default().u32(names.len() as u32).u32(0)),
            room if room < names.len() => Err(Errno::ERANGE),
            _ => Ok(Reply::bytes(names)),
        }
    }

    pub(crate) fn remove_xattr(&self, node: u64, name: &CStr) -> Result<Reply, Errno> {
        sys::remove_xattr(self.open_for_xattr(node, name)?, name)?;
        Ok(Reply::default())
    }

    fn open_for_xattr(&self, node: u64, name: &CStr) -> Result<OwnedFd, Errno> {
        if !name.to_bytes().starts_with(XATTR_PREFIX) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.open_to_look(&*self.inodes.get(node)?)?.ok_or(Errno::EPERM)
    }

    /// Opens what can have extended attributes of users (xattr(7)).
    fn open_to_look(&self, inode: &Inode) -> Result<Option<OwnedFd>, Errno> {
        match inode.kind {
            SFlag::S_IFREG | SFlag::S_IFDIR => self.reopen(inode, OFlag::O_RDONLY).map(Some),
            _ => Ok(None),
        }
    }
}
