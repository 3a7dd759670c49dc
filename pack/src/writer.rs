//! Writes ACIs (appc spec, "Image Archives"): `manifest`, then `rootfs` and what is in it, as POSIX.1-2001 (pax) archives. The same
//! tree always gives the same bytes.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use erofs::{Kind, Metadata, ReadAt, Reader, Special};
use tar::{Builder, EntryType, Header};

use crate::error::Error;

/// Bytes that a header has for a name.
const NAME_BYTES: usize = 100;
/// Numbers from here on do not fit the octal digits of a header.
const LARGE_ID: u32 = 1 << 21;

/// What an entry is of.
pub struct Node<'a> {
    /// Its type.
    pub kind: Kind,
    /// All that is not data.
    pub metadata: &'a Metadata,
    /// Of a symbolic link.
    pub target: &'a [u8],
    /// Of a file.
    pub data: &'a mut dyn Read,
    /// Bytes of `data`.
    pub size: u64,
    /// What tells a file with several names from others.
    pub identity: Option<(u64, u64)>,
}

/// An ACI that is being written.
pub struct AciWriter<W: Write> {
    archive: Builder<W>,
    /// The first name of files with several.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> AciWriter<W> {
    /// Begins with the manifest.
    pub fn new(output: W, manifest: &[u8]) -> Result<Self, Error> {
        let mut writer = Self { archive: Builder::new(output), names: HashMap::new() };
        let (metadata, size) = (Metadata::root_owned(0o644), manifest.len() as u64);
        let mut data = manifest;
        let node = Node {
            kind: Kind::Regular,
            metadata: &metadata,
            target: b"",
            data: &mut data,
            size,
            identity: None,
        };
        writer.entry(b"manifest".to_vec(), node).map_err(Error::Write)?;
        Ok(writer)
    }

    /// Adds an entry by its path from the root, whose own is empty. Archives have no sockets; they are left out.
    pub fn add(&mut self, path: &[u8], node: Node<'_>) -> io::Result<()> {
        let path = if path.is_empty() { b"rootfs".to_vec() } else { [b"rootfs/", path].concat() };
        match node.kind {
            Kind::Special(Special::Socket) => Ok(()),
            _ => self.entry(path, node),
        }
    }

    /// Adds a whole image.
    pub fn add_image<R: ReadAt>(&mut self, image: &Reader<R>) -> Result<(), Error> {
        for entry in image.walk() {
            let (path, inode) = entry?;
            let metadata = image.metadata(&inode)?;
            let target = if inode.kind() == Kind::Symlink { image.read_link(&inode)? } else { Vec::new() };
            let mut file;
            let mut nothing = io::empty();
            let (data, size): (&mut dyn Read, u64) = match inode.kind() {
                Kind::Regular => {
                    file = image.read_file(&inode)?;
                    (&mut file, inode.size())
                }
                _ => (&mut nothing, 0),
            };
            let identity = (inode.links() > 1 && inode.kind() != Kind::Directory).then(|| (0, inode.nid()));
            let node =
                Node { kind: inode.kind(), metadata: &metadata, target: &target, data, size, identity };
            self.add(&path, node).map_err(Error::entry(&path))?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<W, Error> {
        self.archive.into_inner().map_err(Error::Write)
    }

    fn entry(&mut self, path: Vec<u8>, node: Node<'_>) -> io::Result<()> {
        let first = node.identity.and_then(|identity| self.names.get(&identity).cloned());
        let mut header = header(node.metadata);
        if node.kind == Kind::Symlink {
            // They have no mode of their own.
            header.set_mode(0o777);
        }
        let (size, link) = match (&first, node.kind) {
            (Some(first), _) => {
                header.set_entry_type(EntryType::Link);
                (0, first.as_slice())
            }
            (None, kind) => {
                describe(&mut header, kind)?;
                (node.size, node.target)
            }
        };
        header.set_size(size);
        let mut records = records(node.metadata)?;
        let old = header.as_old_mut();
        put(&mut old.name, &path, "path", &mut records);
        put(&mut old.linkname, link, "linkpath", &mut records);
        header.set_cksum();
        self.archive
            .append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
        // A file that shrinks meanwhile ends the archive; one that grows is cut off.
        let mut data = node.data.take(size);
        self.archive.append(&header, &mut data)?;
        if data.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let (None, Some(identity)) = (first, node.identity) {
            self.names.insert(identity, path);
        }
        Ok(())
    }
}

fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(u32::from(metadata.permissions & 0o7777));
    header.set_uid(metadata.uid.into());
    header.set_gid(metadata.gid.into());
    header.set_mtime(u64::try_from(metadata.mtime_s).unwrap_or(0));
    header
}

fn describe(header: &mut Header, kind: Kind) -> io::Result<()> {
    let (kind, device) = match kind {
        Kind::Regular => (EntryType::Regular, (0, 0)),
        Kind::Directory => (EntryType::Directory, (0, 0)),
        Kind::Symlink => (EntryType::Symlink, (0, 0)),
        Kind::Special(Special::Character { major, minor }) => (EntryType::Char, (major, minor)),
        Kind::Special(Special::Block { major, minor }) => (EntryType::Block, (major, minor)),
        Kind::Special(Special::Fifo | Special::Socket) => (EntryType::Fifo, (0, 0)),
    };
    header.set_entry_type(kind);
    header.set_device_major(device.0)?;
    header.set_device_minor(device.1)
}

/// What does not fit the header of an entry.
fn records(metadata: &Metadata) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    let mut add = |name: &str, value: String| records.push((name.to_owned(), value.into_bytes()));
    match (metadata.mtime_s, metadata.mtime_ns) {
        (0.., 0) => {}
        (seconds @ 0.., nanoseconds) => add("mtime", format!("{seconds}.{nanoseconds:09}")),
        // Counted from the second before: -1 and 250,000,000 are -0.75.
        (seconds, nanoseconds) => {
            let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
            let total = total.unsigned_abs();
            add("mtime", format!("-{}.{:09}", total / 1_000_000_000, total % 1_000_000_000));
        }
    }
    for (name, id) in [("uid", metadata.uid), ("gid", metadata.gid)] {
        if id >= LARGE_ID {
            add(name, id.to_string());
        }
    }
    for (name, value) in &metadata.xattrs {
        let name = std::str::from_utf8(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        records.push((format!("SCHILY.xattr.{name}"), value.clone()));
    }
    Ok(records)
}

/// Puts a name into its field, what fits of it, and all of it into a record if that is not all.
fn put(field: &mut [u8; NAME_BYTES], name: &[u8], record: &str, records: &mut Vec<(String, Vec<u8>)>) {
    for (to, from) in field.iter_mut().zip(name) {
        *to = *from;
    }
    if name.len() > NAME_BYTES {
        records.push((record.to_owned(), name.to_vec()));
    }
}
