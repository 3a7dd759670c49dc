//! Requests about the entries of directories.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::content::{open_flags, perhaps_without_fsetid};
use crate::reply::Reply;
use crate::request::Header;
use crate::server::{Server, as_user, open_entry};

impl Server {
    pub(crate) fn look_up(&mut self, directory: u64, name: &CStr) -> Result<Reply, Errno> {
        let directory = self.directory(directory)?;
        let place = open_entry(&directory, name)?;
        let stat = fstat(&place)?;
        let node = self.inodes.look_up(place)?;
        Ok(Reply::default().entry(node, self.shown_number(&stat), &stat))
    }

    pub(crate) fn read_link(&self, node: u64) -> Result<Reply, Errno> {
        let link = self.inodes.get(node)?;
        if link.kind != SFlag::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::bytes(readlinkat(&link.place, "")?.as_bytes().to_vec()))
    }

    pub(crate) fn make_symlink(
        &mut self,
        header: &Header,
        name: &CStr,
        target: &CStr,
    ) -> Result<Reply, Errno> {
        let directory = self.directory(header.node)?;
        as_user(header, || symlinkat(target, &directory.place, name))?;
        self.look_up(header.node, name)
    }

    /// Makes a file, a pipe or a socket. Devices would be the host's.
    pub(crate) fn make_node(&mut self, header: &Header, name: &CStr, mode: u32) -> Result<Reply, Errno> {
        let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
        if !matches!(kind, SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK) {
            return Err(Errno::EPERM);
        }
        let directory = self.directory(header.node)?;
        as_user(header, || mknodat(&directory.place, name, kind, permissions(mode), 0))?;
        self.look_up(header.node, name)
    }

    pub(crate) fn make_directory(&mut self, header: &Header, name: &CStr, mode: u32) -> Result<Reply, Errno> {
        let directory = self.directory(header.node)?;
        as_user(header, || mkdirat(&directory.place, name, permissions(mode)))?;
        self.look_up(header.node, name)
    }

    pub(crate) fn remove(&self, directory: u64, name: &CStr, is_directory: bool) -> Result<Reply, Errno> {
        let flag = if is_directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        unlinkat(&self.directory(directory)?.place, name, flag)?;
        Ok(Reply::default())
    }

    pub(crate) fn rename(&self, from: (u64, &CStr), to: (u64, &CStr), flags: u32) -> Result<Reply, Errno> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        if flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let (source, target) = (self.directory(from.0)?, self.directory(to.0)?);
        renameat2(&source.place, from.1, &target.place, to.1, flags)?;
        Ok(Reply::default())
    }

    pub(crate) fn link(&mut self, linked: u64, directory: u64, name: &CStr) -> Result<Reply, Errno> {
        let (inode, target) = (self.inodes.get(linked)?, self.directory(directory)?);
        linkat(&inode.place, c"", &target.place, name, AtFlags::AT_EMPTY_PATH)?;
        self.look_up(directory, name)
    }

    /// Makes a file and opens it; one that is there by now is opened, unless it has to be new.
    pub(crate) fn create(
        &mut self,
        header: &Header,
        name: &CStr,
        (flags, mode): (u32, u32),
        kill_suid: bool,
    ) -> Result<Reply, Errno> {
        let directory = self.directory(header.node)?;
        let wanted = open_flags(flags)?;
        let new = wanted | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = as_user(header, || openat(&directory.place, name, new, permissions(mode)));
        let must_be_new = flags.cast_signed() & libc::O_EXCL != 0;
        let made = match made {
            Err(Errno::EEXIST) if !must_be_new => None,
            made => Some(made?),
        };
        let place = open_entry(&directory, name)?;
        let stat = fstat(&place)?;
        let node = self.inodes.look_up(place)?;
        let opened = match made {
            // The host may have put something else there since: then the guest looks again.
            Some(file) if !is_same(&fstat(&file)?, &stat) => Err(Errno::ESTALE),
            Some(file) => Ok(file),
            None => self
                .inodes
                .get(node)
                .and_then(|inode| perhaps_without_fsetid(kill_suid, || self.open_file(&inode, wanted))),
        };
        match opened.and_then(|file| self.files.add(file.into())) {
            Ok(handle) => Ok(Reply::default().entry(node, self.shown_number(&stat), &stat).open_out(handle)),
            Err(errno) => {
                // The guest does not learn of the look-up.
                self.inodes.forget(node, 1);
                Err(errno)
            }
        }
    }
}

fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}
