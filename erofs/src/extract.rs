//! Makes a plain tree of an image, for hosts whose kernel cannot mount it. Needs root's capabilities, as unpacking an
//! archive with its owners and devices does.
//!
//! Every name is created below the target directory by openat2(2) with `RESOLVE_BENEATH` and without following links,
//! and never over something that is there: an image cannot reach out of the directory.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use crate::error::Error;
use crate::metadata::{Kind, Metadata, Special};
use crate::path::quote;
use crate::reader::{Inode, Reader};
use crate::source::ReadAt;
use crate::sys;

/// Bytes copied at once.
const COPY_BYTES: usize = 256 << 10;

/// Makes the image's tree in `target`, an empty directory, which gets the metadata of the image's root. Modes, owners,
/// times, links, devices and extended attributes are the image's; `user.*` attributes of links and devices, which Linux
/// does not have, are left out.
pub fn extract<R: ReadAt>(reader: &Reader<R>, target: BorrowedFd<'_>) -> Result<(), Error> {
    let mut extraction =
        Extraction { reader, target, parent: None, names: HashMap::new(), data_left: reader.size() };
    let mut directories = Vec::new();
    for entry in reader.walk() {
        let (path, inode) = entry?;
        extraction.create(&path, &inode)?;
        if inode.kind() == Kind::Directory {
            directories.push((path, inode));
        }
    }
    // A directory's time and its permission to write last as long as things are made in it.
    for (path, inode) in directories.iter().rev() {
        extraction.finish_directory(path, inode)?;
    }
    Ok(())
}

struct Extraction<'a, R> {
    reader: &'a Reader<R>,
    target: BorrowedFd<'a>,
    /// The directory last worked in: what is in it comes in a row.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// The first name of files with several.
    names: HashMap<u64, Vec<u8>>,
    /// An image of this crate has each file's data once, so all of them together are not larger than it.
    data_left: u64,
}

/// What was being done and how it failed; the entry is added where it is known.
type Step<T> = Result<T, (&'static str, io::Error)>;

trait While<T> {
    fn doing(self, action: &'static str) -> Step<T>;
}

impl<T> While<T> for nix::Result<T> {
    fn doing(self, action: &'static str) -> Step<T> {
        self.map_err(|errno| (action, errno.into()))
    }
}

impl<T> While<T> for io::Result<T> {
    fn doing(self, action: &'static str) -> Step<T> {
        self.map_err(|error| (action, error))
    }
}

fn at_entry<T>(path: &[u8], step: Step<T>) -> Result<T, Error> {
    step.map_err(|(action, source)| Error::Extract { entry: format!("/{}", quote(path)), action, source })
}

impl<R: ReadAt> Extraction<'_, R> {
    fn create(&mut self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        if path.is_empty() {
            return Ok(()); // the target itself
        }
        let (parent_path, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        let parent = match self.parent.take() {
            Some((open, directory)) if open == parent_path => directory,
            _ => at_entry(path, open_directory(self.target, parent_path).doing("open the directory of"))?,
        };
        let done = self.create_in(parent.as_fd(), name, path, inode);
        self.parent = Some((parent_path.to_vec(), parent));
        done
    }

    fn create_in(
        &mut self,
        parent: BorrowedFd,
        name: &[u8],
        path: &[u8],
        inode: &Inode,
    ) -> Result<(), Error> {
        if inode.kind() == Kind::Directory {
            return at_entry(path, mkdirat(parent, name, Mode::S_IRWXU).doing("make directory"));
        }
        if let Some(first) = self.names.get(&inode.nid()) {
            let linked = linkat(self.target, first.as_slice(), parent, name, AtFlags::empty());
            return at_entry(path, linked.doing("hard-link"));
        }
        if inode.links() > 1 {
            self.names.insert(inode.nid(), path.to_vec());
        }
        let metadata = self.reader.metadata(inode)?;
        match inode.kind() {
            Kind::Directory => Ok(()),
            Kind::Regular => {
                self.data_left = self
                    .data_left
                    .checked_sub(inode.size())
                    .ok_or(Error::Corrupt { nid: inode.nid(), what: "its data is another file's, too" })?;
                let mut data = self.reader.read_file(inode)?;
                at_entry(path, create_file(parent, name, &mut data, &metadata))
            }
            Kind::Symlink => {
                let link = self.reader.read_link(inode)?;
                let made = symlinkat(link.as_slice(), parent, name).doing("make symbolic link");
                at_entry(path, made.and_then(|()| describe_at(parent, name, &metadata, true)))
            }
            Kind::Special(special) => {
                let made = make_special(parent, name, special).doing("make device, pipe or socket");
                at_entry(path, made.and_then(|()| describe_at(parent, name, &metadata, false)))
            }
        }
    }

    fn finish_directory(&self, path: &[u8], inode: &Inode) -> Result<(), Error> {
        let metadata = self.reader.metadata(inode)?;
        let described = open_directory(self.target, path)
            .doing("open directory")
            .and_then(|directory| describe(directory.as_fd(), &metadata));
        at_entry(path, described)
    }
}

fn open_directory(target: BorrowedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let path = if path.is_empty() { b"." } else { path };
    openat2(target, path, OpenHow::new().flags(flags).resolve(resolve))
}

fn create_file(parent: BorrowedFd, name: &[u8], data: &mut dyn Read, metadata: &Metadata) -> Step<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).doing("make file")?);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = data.read(&mut buffer).doing("read the data of")?;
        match buffer.get(..count) {
            Some(part) if count > 0 => file.write_all(part).doing("write the data of")?,
            _ => break,
        }
    }
    describe(file.as_fd(), metadata)
}

fn make_special(parent: BorrowedFd, name: &[u8], special: Special) -> nix::Result<()> {
    let (kind, device) = match special {
        Special::Character { major, minor } => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
        Special::Block { major, minor } => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
        Special::Fifo => (SFlag::S_IFIFO, 0),
        Special::Socket => (SFlag::S_IFSOCK, 0),
    };
    mknodat(parent, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
}

/// Owner first, which takes set-id bits and capabilities away; time last, which everything else changes.
fn describe(file: BorrowedFd, metadata: &Metadata) -> Step<()> {
    let (owner, group) = owner(metadata);
    fchown(file, owner, group).doing("change the owner of")?;
    for (name, value) in &metadata.xattrs {
        let name = c_string(name).doing("set an extended attribute of")?;
        sys::set_xattr(file, &name, value).doing("set an extended attribute of")?;
    }
    fchmod(file, mode(metadata)).doing("change the mode of")?;
    let time = time(metadata);
    futimens(file, &time, &time).doing("change the time of")
}

/// The same for what cannot be opened.
fn describe_at(parent: BorrowedFd, name: &[u8], metadata: &Metadata, link: bool) -> Step<()> {
    let (owner, group) = owner(metadata);
    fchownat(parent, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW).doing("change the owner of")?;
    for (attribute, value) in metadata.xattrs.iter().filter(|(name, _)| !name.starts_with(b"user.")) {
        let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
        let (path, attribute) = (c_string(&path), c_string(attribute));
        let path = path.doing("set an extended attribute of")?;
        let attribute = attribute.doing("set an extended attribute of")?;
        sys::set_link_xattr(&path, &attribute, value).doing("set an extended attribute of")?;
    }
    if !link {
        // Links have no mode of their own.
        fchmodat(parent, name, mode(metadata), FchmodatFlags::FollowSymlink).doing("change the mode of")?;
    }
    let time = time(metadata);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).doing("change the time of")
}

fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
}

fn mode(metadata: &Metadata) -> Mode {
    Mode::from_bits_truncate(metadata.permissions.into())
}

fn time(metadata: &Metadata) -> TimeSpec {
    TimeSpec::new(metadata.mtime_s, metadata.mtime_ns.into())
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_appears_on_the_way_is_not_followed() {
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(target.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", target.path().join("inwards")).unwrap();
        std::os::unix::fs::symlink("/", target.path().join("outwards")).unwrap();
        let directory = File::open(target.path()).unwrap();
        let open = |path: &str| open_directory(directory.as_fd(), path.as_bytes()).map(drop);
        assert_eq!((open(""), open("a/b")), (Ok(()), Ok(())));
        assert_eq!((open("inwards"), open("inwards/b")), (Err(Errno::ENOTDIR), Err(Errno::ELOOP)));
        assert_eq!((open("outwards/etc"), open("../a")), (Err(Errno::ELOOP), Err(Errno::EXDEV)));
    }
}
