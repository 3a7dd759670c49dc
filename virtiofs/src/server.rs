//! The server: what it has, and which request leads where.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::inodes::{Handles, Inode, Inodes};
use crate::reply::Reply;
use crate::request::{Header, MAX_IO_BYTES, Request, parse_body, parse_header};
use crate::sys;

/// FUSE's version (`FUSE_KERNEL_VERSION`), and the oldest minor version that has all that is used.
const MAJOR: u32 = 7;
const MINOR: u32 = 38;
const OLDEST_MINOR: u32 = 31;
/// The most requests that the guest makes on its own account at a time, and when it holds back.
const MAX_BACKGROUND: u16 = 64;
const CONGESTION: u16 = 48;
/// What a read or a write has at most in pages.
const MAX_PAGES: u16 = (MAX_IO_BYTES / 4096) as u16;
/// What is asked of the guest's kernel: `FUSE_ASYNC_READ`, `FUSE_ATOMIC_O_TRUNC`, `FUSE_BIG_WRITES`, `FUSE_AUTO_INVAL_DATA`,
/// `FUSE_ASYNC_DIO`, `FUSE_PARALLEL_DIROPS`, `FUSE_MAX_PAGES` and `FUSE_HANDLE_KILLPRIV_V2`. Not among them is writing back later, since
/// the host is to see what was written.
const FLAGS: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 15 | 1 << 18 | 1 << 22 | 1 << 28;

/// Why there can be no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses what it takes.
    #[error("cannot {action} for a volume's server")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: Errno,
    },
}

/// A server for one directory.
#[derive(Debug)]
pub struct Server {
    pub(crate) inodes: Inodes,
    pub(crate) files: Handles,
    pub(crate) directories: Handles,
    /// `/proc/self/fd`, by which a place is opened as a file.
    descriptors: OwnedFd,
    read_only: bool,
    root_device: u64,
}

impl Server {
    /// A server for what is below `root`, which may be open as a place only. It has to be made by the process, with `/proc` in
    /// view, and on the thread that is to serve; that thread makes files as any user from here on.
    pub fn new(root: OwnedFd, read_only: bool) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptors =
            open("/proc/self/fd", flags, Mode::empty()).map_err(system("open /proc/self/fd"))?;
        let root_device = fstat(&root).map_err(system("look at the directory"))?.st_dev;
        let inodes = Inodes::new(root).map_err(system("look at the directory"))?;
        sys::keep_capabilities().map_err(system("set how capabilities are kept"))?;
        let (files, directories) = (Handles::default(), Handles::default());
        Ok(Self { inodes, files, directories, descriptors, read_only, root_device })
    }

    /// The reply to a message; `None` if it has none.
    pub fn answer(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = match parse_header(message) {
            Ok(parsed) => parsed,
            Err(errno) => return Some(Reply::message(0, Err(errno))),
        };
        let result = parse_body(&header, body).and_then(|request| self.carry_out(&header, request));
        (!Request::has_no_reply(header.opcode)).then(|| Reply::message(header.unique, result))
    }

    fn carry_out(&mut self, header: &Header, request: Request<'_>) -> Result<Reply, Errno> {
        if self.read_only && changes_something(&request) {
            return Err(Errno::EROFS);
        }
        let node = header.node;
        match request {
            Request::Init { major, minor, max_readahead, flags } => {
                self.initialise((major, minor), max_readahead, flags)
            }
            Request::Destroy => {
                self.forget_all();
                Ok(Reply::default())
            }
            Request::Forget(forgets) => {
                forgets.into_iter().for_each(|(node, look_ups)| self.inodes.forget(node, look_ups));
                Ok(Reply::default())
            }
            Request::Lookup { name } => self.look_up(node, &name),
            Request::ReadLink => self.read_link(node),
            Request::Symlink { name, target } => self.make_symlink(header, &name, &target),
            Request::MakeNode { name, mode } => self.make_node(header, &name, mode),
            Request::MakeDirectory { name, mode } => self.make_directory(header, &name, mode),
            Request::Unlink { name } => self.remove(node, &name, false),
            Request::RemoveDirectory { name } => self.remove(node, &name, true),
            Request::Rename { name, new_directory, new_name, flags } => {
                self.rename((node, &name), (new_directory, &new_name), flags)
            }
            Request::Link { node: linked, name } => self.link(linked, node, &name),
            Request::Create { name, flags, mode, kill_suid } => {
                self.create(header, &name, (flags, mode), kill_suid)
            }
            Request::Open { flags, kill_suid } => self.open(node, flags, kill_suid),
            Request::Read { handle, offset, size } => self.read(handle, offset, size),
            Request::Write { handle, offset, data, kill_suid } => self.write(handle, offset, data, kill_suid),
            Request::Release { handle } => self.files.close(handle).map(|()| Reply::default()),
            Request::Sync { handle, data_only } => self.sync(handle, data_only),
            Request::SyncFs => self.sync_all(),
            Request::Allocate { handle, offset, length, mode } => {
                self.allocate(handle, (offset, length), mode)
            }
            Request::Seek { handle, offset, whence } => self.seek(handle, offset, whence),
            Request::CopyRange { from, from_offset, to, to_offset, length } => {
                self.copy_range((from, from_offset), (to, to_offset), length)
            }
            Request::OpenDirectory => self.open_directory(node),
            Request::ReadDirectory { handle, offset, size } => {
                self.read_directory(node, handle, offset, size)
            }
            Request::ReleaseDirectory { handle } => self.directories.close(handle).map(|()| Reply::default()),
            Request::SyncDirectory { handle, data_only } => self.sync_directory(handle, data_only),
            Request::GetAttr { .. } => self.get_attributes(node),
            Request::SetAttr(changes) => self.set_attributes(node, &changes),
            Request::StatFs => self.stat_fs(node),
            Request::SetXattr { name, value, flags } => self.set_xattr(node, &name, value, flags),
            Request::GetXattr { name, size } => self.get_xattr(node, &name, size),
            Request::ListXattr { size } => self.list_xattrs(node, size),
            Request::RemoveXattr { name } => self.remove_xattr(node, &name),
            Request::Unknown => Err(Errno::ENOSYS),
        }
    }

    /// `struct fuse_init_out`.
    fn initialise(&mut self, version: (u32, u32), max_readahead: u32, flags: u32) -> Result<Reply, Errno> {
        let (major, minor) = version;
        if major != MAJOR || minor < OLDEST_MINOR {
            return Err(Errno::EPROTO);
        }
        self.forget_all();
        Ok(Reply::default()
            .u32(MAJOR)
            .u32(minor.min(MINOR))
            .u32(max_readahead.min(MAX_IO_BYTES))
            .u32(flags & FLAGS)
            .u16(MAX_BACKGROUND)
            .u16(CONGESTION)
            .u32(MAX_IO_BYTES)
            .u32(1)
            .u16(MAX_PAGES)
            .put(&[0; 34]))
    }

    fn forget_all(&mut self) {
        self.inodes.forget_all();
        self.files.close_all();
        self.directories.close_all();
    }

    /// A directory by its number.
    pub(crate) fn directory(&self, node: u64) -> Result<Arc<Inode>, Errno> {
        self.inodes.get(node).and_then(|inode| match inode.kind {
            SFlag::S_IFDIR => Ok(inode),
            _ => Err(Errno::ENOTDIR),
        })
    }

    /// Opens what is known as a place: a regular file or a directory. Opening anything else might do something.
    pub(crate) fn reopen(&self, inode: &Inode, flags: OFlag) -> Result<OwnedFd, Errno> {
        if !matches!(inode.kind, SFlag::S_IFREG | SFlag::S_IFDIR) {
            return Err(Errno::EINVAL);
        }
        // The one link that is followed is of the kernel's making, and leads to the place itself.
        let name = inode.place.as_raw_fd().to_string();
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        openat(&self.descriptors, name.as_str(), flags, Mode::empty())
    }

    /// Where the kernel's link to a place is: the directory and the name.
    pub(crate) fn link_to(&self, inode: &Inode) -> (&OwnedFd, String) {
        (&self.descriptors, inode.place.as_raw_fd().to_string())
    }

    /// The inode's number as the guest shows it. Those of other file systems that are mounted within are told apart.
    pub(crate) fn shown_number(&self, stat: &FileStat) -> u64 {
        match stat.st_dev == self.root_device {
            true => stat.st_ino,
            false => stat.st_ino ^ stat.st_dev.rotate_left(32),
        }
    }
}

/// Opens a directory's entry as a place, whatever it is.
pub(crate) fn open_entry(directory: &Inode, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat2(&directory.place, name, OpenHow::new().flags(flags).resolve(beneath()))
}

/// A name leads to what is below the directory, and through no link.
fn beneath() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS
}

/// Runs `action` as the user that asks, to whom what it makes belongs. Capabilities stay as they are.
pub(crate) fn as_user<T>(header: &Header, action: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    if header.uid == u32::MAX || header.gid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    let gid = setfsgid(Gid::from_raw(header.gid));
    let uid = setfsuid(Uid::from_raw(header.uid));
    let done = action();
    setfsuid(uid);
    setfsgid(gid);
    done
}

fn changes_something(request: &Request<'_>) -> bool {
    let access = libc::O_ACCMODE | libc::O_TRUNC;
    match request {
        Request::Open { flags, .. } => flags.cast_signed() & access != libc::O_RDONLY,
        Request::SetAttr(_)
        | Request::Symlink { .. }
        | Request::MakeNode { .. }
        | Request::MakeDirectory { .. }
        | Request::Unlink { .. }
        | Request::RemoveDirectory { .. }
        | Request::Rename { .. }
        | Request::Link { .. }
        | Request::Create { .. }
        | Request::Write { .. }
        | Request::SetXattr { .. }
        | Request::RemoveXattr { .. }
        | Request::Allocate { .. }
        | Request::CopyRange { .. } => true,
        Request::Init { .. }
        | Request::Destroy
        | Request::Lookup { .. }
        | Request::Forget(_)
        | Request::GetAttr { .. }
        | Request::ReadLink
        | Request::Read { .. }
        | Request::StatFs
        | Request::Release { .. }
        | Request::Sync { .. }
        | Request::OpenDirectory
        | Request::ReadDirectory { .. }
        | Request::ReleaseDirectory { .. }
        | Request::SyncDirectory { .. }
        | Request::GetXattr { .. }
        | Request::ListXattr { .. }
        | Request::Seek { .. }
        | Request::SyncFs
        | Request::Unknown => false,
    }
}
