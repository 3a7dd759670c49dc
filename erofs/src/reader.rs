//! Reads images of this crate without mounting them. Nothing in an image is believed: each address is checked against
//! the image's size, each loop is bounded by it.

use std::io::{self, Read};

use crate::directory::Block;
use crate::error::Error;
use crate::format::{BLOCK, INODE_BYTES, Layout, RawInode, SLOT_BYTES, SUPERBLOCK_OFFSET, Superblock};
use crate::limits::{MAX_LINKS_FOLLOWED, MAX_XATTR_BYTES};
use crate::metadata::{Kind, Metadata, Xattrs};
use crate::path::{EntryPath, MAX_PATH_BYTES};
use crate::source::ReadAt;
use crate::xattr;

/// An image opened for reading.
pub struct Reader<R> {
    source: R,
    superblock: Superblock,
    /// Bytes of the image, by its superblock; the source has at least as many.
    size: u64,
}

/// A file of any type in an image.
#[derive(Clone, Debug)]
pub struct Inode {
    nid: u64,
    kind: Kind,
    raw: RawInode,
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct DirectoryEntry {
    /// The name, without slash and NUL, neither `.` nor `..`.
    pub name: Vec<u8>,
    nid: u64,
    kind: u8,
}

impl Inode {
    /// The inode's number, the same for all names of a file.
    pub fn nid(&self) -> u64 {
        self.nid
    }

    /// The file's type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of data: of a file, of a link's target, of a directory's list.
    pub fn size(&self) -> u64 {
        self.raw.size
    }

    /// Number of names; a directory's counts its `.` and the `..` in it.
    pub fn links(&self) -> u32 {
        self.raw.links
    }

    fn corrupt(&self, what: &'static str) -> Error {
        Error::Corrupt { nid: self.nid, what }
    }

    fn expect(&self, kind: Kind, expected: &'static str) -> Result<(), Error> {
        if self.kind == kind { Ok(()) } else { Err(Error::WrongKind { nid: self.nid, expected }) }
    }

    /// Bytes from the inode to its inline data.
    fn head(&self) -> u64 {
        (INODE_BYTES + xattr::stored_bytes(self.raw.xattr_count)) as u64
    }
}

impl<R: ReadAt> Reader<R> {
    /// Opens an image and checks its superblock and root.
    pub fn open(source: R) -> Result<Self, Error> {
        let mut head = vec![0; (BLOCK - SUPERBLOCK_OFFSET) as usize];
        let available = source.size().map_err(|source| Error::Read { offset: 0, source })?;
        if available < BLOCK {
            return Err(Error::Superblock("it is shorter than one block"));
        }
        read(&source, &mut head, SUPERBLOCK_OFFSET)?;
        let superblock = Superblock::decode(&head).map_err(Error::Superblock)?;
        let size = u64::from(superblock.blocks) * BLOCK;
        if size > available {
            return Err(Error::Superblock("it is shorter than its superblock says; fetch it again"));
        }
        let reader = Self { source, superblock, size };
        reader.root()?.expect(Kind::Directory, "directory")?;
        Ok(reader)
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode, Error> {
        self.inode(self.superblock.root_nid.into())
    }

    /// How many files of all types there are, by the superblock.
    pub fn inode_count(&self) -> u64 {
        self.superblock.inodes
    }

    /// Bytes of the image.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The inode with a number.
    pub fn inode(&self, nid: u64) -> Result<Inode, Error> {
        let corrupt = |what| Error::Corrupt { nid, what };
        let mut bytes = [0; INODE_BYTES];
        let offset = self.offset_of(nid).ok_or_else(|| corrupt("it is outside the image"))?;
        read(&self.source, &mut bytes, offset)?;
        let raw =
            RawInode::decode(&bytes).ok_or_else(|| corrupt("it is of a form that is not in use here"))?;
        let kind =
            Kind::from_mode(raw.mode, raw.block_or_device).ok_or_else(|| corrupt("it has no file type"))?;
        if raw.mtime_ns >= 1_000_000_000 {
            return Err(corrupt("its time has more than a second of nanoseconds"));
        }
        let inode = Inode { nid, kind, raw };
        self.check_extent(&inode, offset)?;
        Ok(inode)
    }

    /// Finds a path; symbolic links on the way are followed inside the image, the last component is not. `None` if
    /// there is nothing of that name.
    pub fn lookup(&self, path: &EntryPath) -> Result<Option<Inode>, Error> {
        self.find(path, false)
    }

    /// As [`Reader::lookup`], but a link at the end is followed, too: what a process in the image would open.
    pub fn resolve(&self, path: &EntryPath) -> Result<Option<Inode>, Error> {
        self.find(path, true)
    }

    /// The entries of a directory, sorted by name, read block by block.
    pub fn read_dir(&self, directory: &Inode) -> Result<ReadDir<'_, R>, Error> {
        directory.expect(Kind::Directory, "directory")?;
        Ok(ReadDir {
            reader: self,
            directory: directory.clone(),
            offset: 0,
            block: Vec::new().into_iter(),
            last: None,
        })
    }

    /// What a directory's entry names.
    pub fn entry_inode(&self, entry: &DirectoryEntry) -> Result<Inode, Error> {
        self.inode_of(entry.nid, entry.kind)
    }

    /// A symbolic link's target.
    pub fn read_link(&self, link: &Inode) -> Result<Vec<u8>, Error> {
        link.expect(Kind::Symlink, "symbolic link")?;
        if link.raw.size == 0 || link.raw.size > MAX_PATH_BYTES as u64 {
            return Err(link.corrupt("its link target is empty or too long"));
        }
        let mut target = vec![0; link.raw.size as usize];
        self.read_exact(link, &mut target, 0)?;
        if target.contains(&0) {
            return Err(link.corrupt("its link target has a NUL byte"));
        }
        Ok(target)
    }

    /// A file's data, from its start.
    pub fn read_file(&self, file: &Inode) -> Result<FileReader<'_, R>, Error> {
        file.expect(Kind::Regular, "regular file")?;
        Ok(FileReader { reader: self, file: file.clone(), offset: 0 })
    }

    /// Owner, permissions, time and extended attributes.
    pub fn metadata(&self, inode: &Inode) -> Result<Metadata, Error> {
        let RawInode { mode, uid, gid, mtime_s, mtime_ns, .. } = inode.raw;
        Ok(Metadata { permissions: mode & 0o7777, uid, gid, mtime_s, mtime_ns, xattrs: self.xattrs(inode)? })
    }

    fn xattrs(&self, inode: &Inode) -> Result<Xattrs, Error> {
        let length = xattr::stored_bytes(inode.raw.xattr_count);
        if length > MAX_XATTR_BYTES {
            return Err(inode.corrupt("it has too many extended attributes"));
        }
        let mut stored = vec![0; length];
        if let Some(offset) = self.offset_of(inode.nid) {
            read(&self.source, &mut stored, offset + INODE_BYTES as u64)?;
        }
        xattr::decode(&stored).map_err(|what| inode.corrupt(what))
    }

    /// Where an inode is, if all of it is inside the image.
    fn offset_of(&self, nid: u64) -> Option<u64> {
        let area = u64::from(self.superblock.meta_block) * BLOCK;
        let offset = nid.checked_mul(SLOT_BYTES)?.checked_add(area)?;
        let end = offset.checked_add(INODE_BYTES as u64)?;
        (end <= self.size && offset % INODE_BYTES as u64 == 0).then_some(offset)
    }

    /// All of an inode's attributes and data are inside the image.
    fn check_extent(&self, inode: &Inode, offset: u64) -> Result<(), Error> {
        let RawInode { layout, size, block_or_device, .. } = inode.raw;
        let head_end = offset + inode.head();
        let block_start = u64::from(block_or_device) * BLOCK;
        let within = |start: u64, length: u64| start.checked_add(length).is_some_and(|end| end <= self.size);
        let data = match (inode.kind, layout) {
            (Kind::Special(_), _) => size == 0,
            (_, Layout::Plain) => size == 0 || within(block_start, size),
            // The kernel wants what is inline in the block that the inode begins in.
            (_, Layout::Inline) => size > 0 && size.saturating_add(offset % BLOCK + inode.head()) <= BLOCK,
        };
        if data && head_end <= self.size {
            Ok(())
        } else {
            Err(inode.corrupt("its data is outside the image"))
        }
    }

    /// Reads a part of an inode's data, which [`Reader::inode`] found to be inside the image.
    fn read_exact(&self, inode: &Inode, buffer: &mut [u8], at: u64) -> Result<(), Error> {
        let start = match inode.raw.layout {
            Layout::Plain => u64::from(inode.raw.block_or_device) * BLOCK,
            Layout::Inline => self.offset_of(inode.nid).unwrap_or_default() + inode.head(),
        };
        read(&self.source, buffer, start + at)
    }

    fn find(&self, path: &EntryPath, follow_last: bool) -> Result<Option<Inode>, Error> {
        let mut way = vec![self.root()?];
        let mut rest: Vec<Vec<u8>> = reversed(path.as_bytes());
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                way.truncate(way.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(here) = way.last() else { break };
            if here.kind != Kind::Directory {
                return Ok(None);
            }
            let Some(child) = self.child(here, &name)? else { return Ok(None) };
            if child.kind != Kind::Symlink || (rest.is_empty() && !follow_last) {
                way.push(child);
                continue;
            }
            links += 1;
            if links > MAX_LINKS_FOLLOWED {
                return Err(Error::TooManyLinks { entry: path.to_string() });
            }
            let target = self.read_link(&child)?;
            if target.first() == Some(&b'/') {
                way.truncate(1);
            }
            rest.extend(reversed(&target));
        }
        Ok(way.pop())
    }

    /// The entry of a name, found by bisection: of the blocks, then in the last one that does not begin behind the name.
    fn child(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, Error> {
        let (mut low, mut high) = (0, directory.raw.size.div_ceil(BLOCK));
        let mut data = Vec::new();
        while low < high {
            let middle = low.midpoint(high);
            self.read_block(directory, middle * BLOCK, &mut data)?;
            let block = Block::new(&data).map_err(|what| directory.corrupt(what))?;
            let first = block.first_name().map_err(|what| directory.corrupt(what))?;
            if first > name {
                high = middle;
                continue;
            }
            let found = block.find(name).map_err(|what| directory.corrupt(what))?;
            if let Some(record) = found {
                return self.inode_of(record.nid, record.kind).map(Some);
            }
            low = middle + 1;
        }
        Ok(None)
    }

    /// The block of a directory that begins at an offset.
    fn read_block(&self, directory: &Inode, offset: u64, data: &mut Vec<u8>) -> Result<(), Error> {
        data.resize(directory.raw.size.saturating_sub(offset).min(BLOCK) as usize, 0);
        self.read_exact(directory, data, offset)
    }

    fn inode_of(&self, nid: u64, kind: u8) -> Result<Inode, Error> {
        let inode = self.inode(nid)?;
        if inode.kind.dirent_type() != kind {
            return Err(inode.corrupt("a directory gives it another type than it has"));
        }
        Ok(inode)
    }
}

/// A path's components, the first one last.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    names.retain(|name| !matches!(name.as_slice(), b"" | b"."));
    names.reverse();
    names
}

fn read<R: ReadAt>(source: &R, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
    source.read_exact_at(buffer, offset).map_err(|source| Error::Read { offset, source })
}

/// The entries of a directory; see [`Reader::read_dir`].
pub struct ReadDir<'a, R> {
    reader: &'a Reader<R>,
    directory: Inode,
    offset: u64,
    block: std::vec::IntoIter<DirectoryEntry>,
    /// Names ascend over blocks as within them, so that no name is there twice.
    last: Option<Vec<u8>>,
}

impl<R: ReadAt> ReadDir<'_, R> {
    fn next_block(&mut self) -> Result<(), Error> {
        let mut data = Vec::new();
        self.reader.read_block(&self.directory, self.offset, &mut data)?;
        self.offset += data.len() as u64;
        let records = Block::new(&data).and_then(|block| block.decode());
        let records = records.map_err(|what| self.directory.corrupt(what))?;
        if let (Some(last), Some(first)) = (&self.last, records.first())
            && last.as_slice() >= first.name
        {
            return Err(self.directory.corrupt("its names are out of order"));
        }
        self.last = records.last().map(|record| record.name.to_vec());
        let entries: Vec<_> = records
            .into_iter()
            .filter(|record| !matches!(record.name, b"." | b".."))
            .map(|record| DirectoryEntry { name: record.name.to_vec(), nid: record.nid, kind: record.kind })
            .collect();
        self.block = entries.into_iter();
        Ok(())
    }
}

impl<R: ReadAt> Iterator for ReadDir<'_, R> {
    type Item = Result<DirectoryEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.block.next() {
                return Some(Ok(entry));
            }
            if self.offset >= self.directory.raw.size {
                return None;
            }
            if let Err(error) = self.next_block() {
                self.offset = self.directory.raw.size;
                return Some(Err(error));
            }
        }
    }
}

/// A file's data; see [`Reader::read_file`].
pub struct FileReader<'a, R> {
    reader: &'a Reader<R>,
    file: Inode,
    offset: u64,
}

impl<R: ReadAt> Read for FileReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.raw.size - self.offset;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..length).unwrap_or_default();
        self.reader.read_exact(&self.file, part, self.offset).map_err(io::Error::other)?;
        self.offset += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Writer;

    fn with(change: impl Fn(&mut Superblock)) -> Result<Reader<Vec<u8>>, Error> {
        let mut writer = Writer::new(Vec::new());
        let path = EntryPath::parse(b"file").unwrap();
        writer.file(&path, &Metadata::root_owned(0o644), &mut &b"1"[..], 1).unwrap();
        let mut image = writer.finish().unwrap().0;
        let mut superblock = Superblock::decode(&image[1024..4096]).unwrap();
        change(&mut superblock);
        image[1024..4096].copy_from_slice(&superblock.encode());
        Reader::open(image)
    }

    #[test]
    fn a_superblock_that_lies_with_a_right_checksum() {
        assert!(with(|_| {}).is_ok());
        assert!(matches!(with(|superblock| superblock.blocks += 1), Err(Error::Superblock(_))));
        assert!(matches!(with(|superblock| superblock.blocks = 1), Err(Error::Corrupt { .. })));
        assert!(matches!(with(|superblock| superblock.meta_block = u32::MAX), Err(Error::Corrupt { .. })));
        assert!(matches!(with(|superblock| superblock.root_nid = u16::MAX), Err(Error::Corrupt { .. })));
        assert!(
            matches!(with(|superblock| superblock.root_nid = 3), Err(Error::Corrupt { .. })),
            "between inodes"
        );
        // The only file, of one byte, comes behind the root.
        assert!(with(|superblock| superblock.root_nid = 6).is_err());
    }

    #[test]
    fn data_that_would_reach_out_of_the_image() {
        let lie = |size: u64| {
            let reader = with(|_| {}).unwrap();
            let file = reader.lookup(&EntryPath::parse(b"file").unwrap()).unwrap().unwrap();
            let at = reader.offset_of(file.nid).unwrap() as usize + 8;
            let mut image = reader.source;
            image[at..at + 8].copy_from_slice(&size.to_le_bytes());
            Reader::open(image).unwrap().inode(file.nid)
        };
        // Block 1 is the file's, block 2 has the metadata.
        assert!(lie(2 * BLOCK).is_ok());
        for size in [2 * BLOCK + 1, u64::MAX - BLOCK, u64::MAX] {
            assert!(matches!(lie(size), Err(Error::Corrupt { what: "its data is outside the image", .. })));
        }
    }

    #[test]
    fn inline_data_that_would_reach_out_of_its_block() {
        let reader = with(|_| {}).unwrap();
        // The root's list is inline.
        let root = reader.root().unwrap();
        let at = reader.offset_of(root.nid).unwrap();
        let left = BLOCK - at % BLOCK - root.head();
        let size_at = at as usize + 8;
        let mut image = reader.source;
        for size in [left + 1, u64::MAX - left, u64::MAX - root.head(), u64::MAX] {
            image[size_at..size_at + 8].copy_from_slice(&size.to_le_bytes());
            let refused = Reader::open(image.clone());
            assert!(
                matches!(refused, Err(Error::Corrupt { what: "its data is outside the image", .. })),
                "{size}"
            );
        }
    }

    #[test]
    fn each_name_is_found_in_a_directory_of_many_blocks() {
        let mut writer = Writer::new(Vec::new());
        let path = |number: u32| EntryPath::parse(format!("d/{number:05}").as_bytes()).unwrap();
        for number in (1..2000).step_by(2) {
            writer.file(&path(number), &Metadata::root_owned(0o644), &mut &b""[..], 0).unwrap();
        }
        let reader = Reader::open(writer.finish().unwrap().0).unwrap();
        let directory = reader.lookup(&EntryPath::parse(b"d").unwrap()).unwrap().unwrap();
        assert!(directory.size() > 3 * BLOCK);
        let names: Vec<_> = reader.read_dir(&directory).unwrap().map(|entry| entry.unwrap()).collect();
        for number in 0..=2000 {
            let found = reader.lookup(&path(number)).unwrap();
            let listed = names.iter().find(|entry| entry.name == format!("{number:05}").as_bytes());
            assert_eq!(found.map(|inode| inode.nid()), listed.map(|entry| entry.nid), "{number}");
            assert_eq!(listed.is_some(), number % 2 == 1);
        }
    }

    #[test]
    fn what_is_asked_of_the_wrong_kind() {
        let reader = with(|_| {}).unwrap();
        let root = reader.root().unwrap();
        assert!(matches!(reader.read_link(&root), Err(Error::WrongKind { .. })));
        assert!(reader.read_file(&root).is_err());
        let file = reader.lookup(&EntryPath::parse(b"file").unwrap()).unwrap().unwrap();
        assert!(reader.read_dir(&file).is_err());
    }
}
