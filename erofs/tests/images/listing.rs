//! What is where in a tree, from entries, from an image, and from a directory of the host.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use erofs::{Kind, Metadata, ReadAt, Reader, Special, Xattrs};

use crate::{Item, What};

/// All that can be seen of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub metadata: Metadata,
    pub links: u64,
    /// A file's data or a link's target.
    pub data: Vec<u8>,
    /// The first of the file's names.
    pub same_as: Vec<u8>,
}

/// By path.
pub type Listing = BTreeMap<Vec<u8>, Seen>;

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.data.iter().take(20).collect::<Vec<_>>();
        let same = String::from_utf8_lossy(&self.same_as);
        write!(
            f,
            "{:?} {:?} links {} {} bytes {head:?} {same}",
            self.kind,
            self.metadata,
            self.links,
            self.data.len()
        )
    }
}

/// Says which paths differ, and how.
pub fn assert_same(got: &Listing, expected: &Listing) {
    let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    for (path, seen) in expected {
        assert_eq!(got.get(path), Some(seen), "{}", name(path));
    }
    for path in got.keys() {
        assert!(expected.contains_key(path), "{} should not be there", name(path));
    }
}

/// Takes the number of an inode from each path, and gives each the first name of its inode.
fn listing(found: Vec<(Vec<u8>, u64, Seen)>) -> Listing {
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (path, number, _) in &found {
        let name = first.entry(*number).or_insert_with(|| path.clone());
        if path < name {
            name.clone_from(path);
        }
    }
    found
        .into_iter()
        .map(|(path, number, seen)| (path, Seen { same_as: first[&number].clone(), ..seen }))
        .collect()
}

/// What entries without replacements should become.
pub fn of_items(items: &[Item]) -> Listing {
    let mut listing = Listing::from([(Vec::new(), implied(b""))]);
    for item in items {
        let path = crate::path(&item.path).as_bytes().to_vec();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            listing.entry(path[..at].to_vec()).or_insert_with(|| implied(&path[..at]));
        }
        let (kind, data) = match &item.what {
            What::Directory => (Kind::Directory, Vec::new()),
            What::File(data) => (Kind::Regular, data.clone()),
            What::Symlink(target) => (Kind::Symlink, target.clone()),
            What::Special(special) => (Kind::Special(*special), Vec::new()),
            What::Link(target) => {
                let seen = listing[erofs::EntryPath::in_root(target).unwrap().as_bytes()].clone();
                listing.insert(path, seen);
                continue;
            }
        };
        listing.insert(path.clone(), Seen { same_as: path, ..seen(kind, item.metadata.clone(), data) });
    }
    count_links(&mut listing);
    listing
}

/// A parent that no entry describes.
pub fn implied(path: &[u8]) -> Seen {
    Seen { same_as: path.to_vec(), ..seen(Kind::Directory, Metadata::root_owned(0o755), Vec::new()) }
}

pub fn seen(kind: Kind, metadata: Metadata, data: Vec<u8>) -> Seen {
    Seen { kind, metadata, links: 0, data, same_as: Vec::new() }
}

/// Counts the names of files, and the directories in directories.
pub fn count_links(listing: &mut Listing) {
    let mut links: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (path, seen) in &*listing {
        if seen.kind != Kind::Directory {
            *links.entry(seen.same_as.clone()).or_default() += 1;
            continue;
        }
        *links.entry(path.clone()).or_default() += 2;
        if let Some((parent, _)) = split(path) {
            *links.entry(parent.to_vec()).or_default() += 1;
        }
    }
    for seen in listing.values_mut() {
        seen.links = links[&seen.same_as];
    }
}

/// Parent and name of a path; `None` for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

pub fn of_image<R: ReadAt>(reader: &Reader<R>) -> Listing {
    try_of_image(reader).unwrap()
}

/// Reads all there is in an image.
pub fn try_of_image<R: ReadAt>(reader: &Reader<R>) -> Result<Listing, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for entry in reader.walk() {
        let (path, inode) = entry?;
        let mut data = Vec::new();
        match inode.kind() {
            Kind::Regular => drop(reader.read_file(&inode)?.read_to_end(&mut data)?),
            Kind::Symlink => data = reader.read_link(&inode)?,
            _ => {}
        }
        let seen = seen(inode.kind(), reader.metadata(&inode)?, data);
        found.push((path, inode.nid(), Seen { links: inode.links().into(), ..seen }));
    }
    Ok(listing(found))
}

/// Reads all there is in a directory of the host. Goes into each directory by chdir, as paths may be too long; so the
/// calling thread has a working directory of its own.
pub fn of_directory(root: &Path) -> Listing {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
    let mut found = Vec::new();
    std::env::set_current_dir(root).unwrap();
    visit(Vec::new(), &mut found);
    std::env::set_current_dir("/").unwrap();
    listing(found)
}

/// Adds the working directory and all below it.
fn visit(path: Vec<u8>, found: &mut Vec<(Vec<u8>, u64, Seen)>) {
    found.push(of_file(path.clone(), b"."));
    for entry in std::fs::read_dir(".").unwrap() {
        let name = entry.unwrap().file_name();
        let below = if path.is_empty() {
            name.as_bytes().to_vec()
        } else {
            [&path, &b"/"[..], name.as_bytes()].concat()
        };
        if std::fs::symlink_metadata(&name).unwrap().is_dir() {
            std::env::set_current_dir(&name).unwrap();
            visit(below, found);
            std::env::set_current_dir("..").unwrap();
        } else {
            found.push(of_file(below, name.as_bytes()));
        }
    }
}

fn of_file(path: Vec<u8>, name: &[u8]) -> (Vec<u8>, u64, Seen) {
    let name = Path::new(OsStr::from_bytes(name));
    let stat = std::fs::symlink_metadata(name).unwrap();
    let (major, minor) =
        (nix::sys::stat::major(stat.rdev()) as u32, nix::sys::stat::minor(stat.rdev()) as u32);
    let (kind, data) = match stat.file_type() {
        kind if kind.is_dir() => (Kind::Directory, Vec::new()),
        kind if kind.is_symlink() => {
            (Kind::Symlink, std::fs::read_link(name).unwrap().as_os_str().as_bytes().to_vec())
        }
        kind if kind.is_file() => (Kind::Regular, std::fs::read(name).unwrap()),
        kind if kind.is_char_device() => (Kind::Special(Special::Character { major, minor }), Vec::new()),
        kind if kind.is_block_device() => (Kind::Special(Special::Block { major, minor }), Vec::new()),
        kind if kind.is_fifo() => (Kind::Special(Special::Fifo), Vec::new()),
        _ => (Kind::Special(Special::Socket), Vec::new()),
    };
    let metadata = Metadata {
        permissions: stat.mode() as u16 & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime_s: stat.mtime(),
        mtime_ns: stat.mtime_nsec() as u32,
        xattrs: xattrs(name),
    };
    (path, stat.ino(), Seen { kind, metadata, links: stat.nlink(), data, same_as: Vec::new() })
}

fn xattrs(name: &Path) -> Xattrs {
    let path = CString::new(name.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0_u8; 1 << 16];
    // SAFETY: the path ends with NUL, and the buffer is as long as it says.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    assert!(length >= 0, "llistxattr {name:?}: {}", std::io::Error::last_os_error());
    let names = names[..length as usize].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), xattr(&path, name))).collect()
}

fn xattr(path: &CString, name: &[u8]) -> Vec<u8> {
    let name = CString::new(name).unwrap();
    let mut value = vec![0_u8; 1 << 16];
    // SAFETY: both strings end with NUL, and the buffer is as long as it says.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    assert!(length >= 0, "lgetxattr {name:?}: {}", std::io::Error::last_os_error());
    value.truncate(length as usize);
    value
}
