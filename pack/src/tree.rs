//! Writes trees of the host as ACIs. Whoever made the tree may mean mischief: everything is opened by its path from the tree's root,
//! beneath it, and no link is followed.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use erofs::{Kind, Metadata, Special, Xattrs};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, major, minor};
use pod::users::UserRange;

use crate::error::Error;
use crate::writer::{AciWriter, Node};
use crate::{host_xattr, owners, xattr};

/// Writes the tree at `root` with a manifest; of a pod with users of its own, with the owners that it sees.
pub fn pack_tree<W: Write>(
    root: &Path,
    users: Option<UserRange>,
    manifest: &[u8],
    output: W,
) -> Result<W, Error> {
    let failed = |source| Error::Root { root: root.display().to_string(), source };
    let tree = Tree { root: File::open(root).map_err(failed)?, users };
    let mut writer = AciWriter::new(output, manifest)?;
    tree.add(&mut writer)?;
    writer.finish()
}

struct Tree {
    root: File,
    users: Option<UserRange>,
}

impl Tree {
    /// Parents before what is in them, siblings by name, as [`erofs::Reader::walk`] has it.
    fn add<W: Write>(&self, writer: &mut AciWriter<W>) -> Result<(), Error> {
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            let children = self.add_one(&path, writer).map_err(Error::entry(&path))?;
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            waiting.extend(children.iter().rev().map(|name| [&path, separator, name].concat()));
        }
        Ok(())
    }

    /// Adds what is at a path; the names of what is in it.
    fn add_one<W: Write>(&self, path: &[u8], writer: &mut AciWriter<W>) -> io::Result<Vec<Vec<u8>>> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
            None => (&b""[..], if path.is_empty() { b"." } else { path }),
        };
        let parent = self.open_directory(parent)?;
        let name = OsStr::from_bytes(name);
        let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let Some(kind) = kind(&stat) else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut metadata = metadata(&parent, name, &stat, kind)?;
        if let Some(users) = self.users {
            owners::shift_back(&mut metadata, users);
        }
        let mut target = Vec::new();
        let mut data: Box<dyn Read> = Box::new(io::empty());
        match kind {
            Kind::Symlink => target = readlinkat(&parent, name)?.as_bytes().to_vec(),
            Kind::Regular => {
                // Whoever puts a pipe there meanwhile holds nobody up.
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                data = Box::new(File::from(openat(&parent, name, flags, Mode::empty())?));
            }
            _ => {}
        }
        let is_shared = kind != Kind::Directory && stat.st_nlink > 1;
        let node = Node {
            kind,
            metadata: &metadata,
            target: &target,
            data: &mut data,
            size: if kind == Kind::Regular { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            identity: is_shared.then_some((stat.st_dev, stat.st_ino)),
        };
        writer.add(path, node)?;
        if kind == Kind::Directory { self.names(path) } else { Ok(Vec::new()) }
    }

    fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
        Ok(openat2(&self.root, path, OpenHow::new().flags(flags).resolve(resolve))?)
    }

    fn names(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut directory = Dir::from_fd(self.open_directory(path)?)?;
        let names = directory.iter().map(|entry| Ok(entry?.file_name().to_bytes().to_vec()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        names.sort();
        Ok(names)
    }
}

fn kind(stat: &FileStat) -> Option<Kind> {
    let number = |number: u64| u32::try_from(number).ok();
    let (major, minor) = (number(major(stat.st_rdev))?, number(minor(stat.st_rdev))?);
    Some(match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::Regular,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFCHR => Kind::Special(Special::Character { major, minor }),
        SFlag::S_IFBLK => Kind::Special(Special::Block { major, minor }),
        SFlag::S_IFIFO => Kind::Special(Special::Fifo),
        SFlag::S_IFSOCK => Kind::Special(Special::Socket),
        _ => return None,
    })
}

fn metadata(parent: &OwnedFd, name: &OsStr, stat: &FileStat, kind: Kind) -> io::Result<Metadata> {
    let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name.as_bytes()].concat();
    let path = CString::new(path)?;
    let mut xattrs = Xattrs::new();
    for name in host_xattr::names(&path)?.into_iter().filter(|name| xattr::is_kept(name)) {
        let value = host_xattr::value(&path, &CString::new(name.as_slice())?)?;
        xattrs.insert(name, value);
    }
    let permissions = if kind == Kind::Symlink { 0o777 } else { stat.st_mode & 0o7777 };
    Ok(Metadata {
        permissions: permissions.try_into().unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime,
        mtime_ns: stat.st_mtime_nsec.try_into().unwrap_or_default(),
        xattrs,
    })
}
