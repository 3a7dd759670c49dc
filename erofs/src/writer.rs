//! Builds an image from entries as they come out of archives, in one pass.

use std::io::Read;

use crate::appender::{Appender, CopyError};
use crate::arena::Id;
use crate::error::Error;
use crate::format::{BLOCK, Layout as DataLayout, RawInode, SUPERBLOCK_OFFSET, Superblock};
use crate::layout::{Data, Inode, Layout};
use crate::limits::Limits;
use crate::metadata::{Kind, Metadata, Special};
use crate::path::{EntryPath, MAX_PATH_BYTES};
use crate::resolve;
use crate::sink::Sink;
use crate::tree::{Attributes, Children, Content, Extent, Tree};
use crate::xattr;

/// Writes one image. File data goes to the sink as it comes, in whole blocks; names and attributes are held in memory
/// (some 200 bytes a file) until [`Writer::finish`] writes them behind the data.
///
/// Entries come layer by layer, the lowest first. An entry replaces an earlier one of the same path: a directory on a
/// directory keeps the children and takes the new metadata, anything else removes what was there with all below it.
/// Missing parents are made: mode 0755, owned by root, from 1970. A parent that is a symbolic link is followed inside
/// the image, whose root it cannot leave; the entry itself never is.
///
/// The image depends on nothing but the entries and their order. After an error it is unfinished: drop the writer.
pub struct Writer<S> {
    out: Appender<S>,
    tree: Tree,
    limits: Limits,
}

/// What [`Writer::finish`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Blocks of 4096 bytes: the image's size.
    pub blocks: u64,
    /// Files of all types, the root included; a hard link is no file of its own.
    pub inodes: u64,
    /// Blocks among them that held data which later entries replaced, and that are holes now.
    pub dead_blocks: u64,
}

impl<S: Sink> Writer<S> {
    /// Begins an image on an empty sink.
    pub fn new(sink: S) -> Self {
        Self::with_limits(sink, Limits::default())
    }

    /// Begins an image with bounds of its own.
    pub fn with_limits(sink: S, limits: Limits) -> Self {
        Self { out: Appender::new(sink), tree: Tree::new(limits), limits }
    }

    /// What comes from now on belongs to the layer above; [`Writer::remove`] and [`Writer::clear`] spare the own layer.
    pub fn next_layer(&mut self) {
        self.tree.next_layer();
    }

    /// Adds a directory; the root, too, gets its metadata so.
    pub fn directory(&mut self, path: &EntryPath, metadata: &Metadata) -> Result<(), Error> {
        if path.is_root() {
            self.tree.nodes[Tree::ROOT].attributes = attributes(path, metadata)?;
            return Ok(());
        }
        self.insert(path, metadata, Content::Directory(Children::new()))
    }

    /// Adds a file of `size` bytes, which are read from `data`; fewer are an error, more are left there.
    pub fn file(
        &mut self,
        path: &EntryPath,
        metadata: &Metadata,
        data: &mut dyn Read,
        size: u64,
    ) -> Result<(), Error> {
        let place = resolve::create(&mut self.tree, path)?;
        let attributes = attributes(path, metadata)?;
        let extent = self.reserve(path, size)?;
        let got = self.out.copy(data, size).map_err(|error| match error {
            CopyError::Read(source) => Error::Archive { entry: path.to_string(), source },
            CopyError::Write(error) => error,
        })?;
        if got < size {
            return Err(Error::Truncated { entry: path.to_string(), got, expected: size });
        }
        self.out.align()?;
        self.tree.insert(path, &place, attributes, Content::File { extent, size })
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &EntryPath, metadata: &Metadata, target: &[u8]) -> Result<(), Error> {
        if target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
            return Err(Error::SymlinkTarget { entry: path.to_string() });
        }
        self.insert(path, metadata, Content::Symlink(target.into()))
    }

    /// Adds a device, pipe or socket.
    pub fn special(&mut self, path: &EntryPath, metadata: &Metadata, special: Special) -> Result<(), Error> {
        let kind = Kind::Special(special);
        if Kind::from_mode(kind.mode_bits(), kind.device_number()) != Some(kind)
            && let Special::Character { major, minor } | Special::Block { major, minor } = special
        {
            return Err(Error::DeviceNumber { entry: path.to_string(), major, minor });
        }
        self.insert(path, metadata, Content::Special(special))
    }

    /// Gives an earlier entry, `target`, one more name. The target is found as `path` is: links are followed but for
    /// the last component.
    pub fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), Error> {
        let (entry, to) = (|| path.to_string(), || target.to_string());
        let node = self.node(target)?.ok_or_else(|| Error::LinkTarget { entry: entry(), target: to() })?;
        if self.tree.is_directory(node) {
            return Err(Error::LinkToDirectory { entry: entry(), target: to() });
        }
        let place = resolve::create(&mut self.tree, path)?;
        self.tree.link(path, &place, node)
    }

    /// Removes what lower layers have at a path (an OCI whiteout, `.wh.NAME`). Nothing there is no error.
    pub fn remove(&mut self, path: &EntryPath) -> Result<(), Error> {
        if let Some(place) = resolve::find(&mut self.tree, path)? {
            self.tree.hide(&place);
        }
        Ok(())
    }

    /// Removes what lower layers have inside a directory (an OCI opaque whiteout, `.wh..wh..opq`). No such directory is
    /// no error.
    pub fn clear(&mut self, path: &EntryPath) -> Result<(), Error> {
        if let Some(directory) = self.node(path)? {
            self.tree.hide_children(directory);
        }
        Ok(())
    }

    /// Writes the metadata and, last, the superblock, without which the image is none. Returns the sink, unsynced.
    pub fn finish(mut self) -> Result<(S, Summary), Error> {
        let layout = Layout::of(&self.tree);
        let meta_block = self.out.align()?;
        let blocks = meta_block + layout.blocks();
        // The root stands for the image here: each part may be within its limit and the sum beyond the format's.
        let narrow = |number: u64| u32::try_from(number).map_err(|_| too_many_blocks(&EntryPath::ROOT));
        for (serial, inode) in (1..).zip(&layout.inodes) {
            self.out.pad_to(meta_block * BLOCK + inode.offset)?;
            let data_block = meta_block + layout.inode_blocks();
            self.write_inode(&layout, inode, serial, narrow(data_block)?)?;
        }
        self.out.align()?;
        for inode in &layout.inodes {
            if let Data::Blocks(_) = inode.data {
                let data = data(&self.tree, &layout, inode);
                self.out.write(&data)?;
                self.out.align()?;
            }
        }
        let dead = merge(std::mem::take(&mut self.tree.dead));
        let summary = Summary {
            blocks,
            inodes: layout.inodes.len() as u64,
            dead_blocks: dead.iter().map(|(_, length)| length / BLOCK).sum(),
        };
        let superblock = Superblock {
            root_nid: layout.nid(Tree::ROOT) as u16, // the first inode, within the area's first two blocks
            inodes: summary.inodes,
            blocks: narrow(blocks)?,
            meta_block: narrow(meta_block)?,
        };
        let sink = self.out.finish(&dead, &superblock.encode(), SUPERBLOCK_OFFSET)?;
        Ok((sink, summary))
    }

    fn insert(&mut self, path: &EntryPath, metadata: &Metadata, content: Content) -> Result<(), Error> {
        let attributes = attributes(path, metadata)?;
        let place = resolve::create(&mut self.tree, path)?;
        self.tree.insert(path, &place, attributes, content)
    }

    fn node(&mut self, path: &EntryPath) -> Result<Option<Id>, Error> {
        if path.is_root() {
            return Ok(Some(Tree::ROOT));
        }
        let place = resolve::find(&mut self.tree, path)?;
        Ok(place.and_then(|place| self.tree.child(place.parent, place.name)))
    }

    /// The blocks that the next `size` bytes will take, if the image has room for them.
    fn reserve(&self, path: &EntryPath, size: u64) -> Result<Extent, Error> {
        let used = self.out.position() - BLOCK;
        if size > self.limits.data_bytes.saturating_sub(used) {
            let limit = self.limits.data_bytes;
            return Err(Error::Limit { entry: path.to_string(), what: "bytes of file data", limit });
        }
        let narrow = |number: u64| u32::try_from(number).map_err(|_| too_many_blocks(path));
        let blocks = narrow(size.div_ceil(BLOCK))?;
        let block = if blocks == 0 { 0 } else { narrow(self.out.position() / BLOCK)? };
        Ok(Extent { block, blocks })
    }

    fn write_inode(
        &mut self,
        layout: &Layout,
        inode: &Inode,
        serial: u32,
        data_block: u32,
    ) -> Result<(), Error> {
        let node = &self.tree.nodes[inode.node];
        let Attributes { permissions, uid, gid, mtime_s, mtime_ns, ref xattrs } = node.attributes;
        let kind = node.kind();
        let block_or_device = match (&node.content, inode.data) {
            (_, Data::Blocks(after)) => data_block.saturating_add(after as u32), // checked with the block count
            (Content::File { extent, .. }, _) => extent.block,
            _ => kind.device_number(),
        };
        let raw = RawInode {
            layout: if inode.data == Data::Inline { DataLayout::Inline } else { DataLayout::Plain },
            xattr_count: xattr::count(xattrs.len()),
            mode: kind.mode_bits() | permissions,
            size: inode.size,
            block_or_device,
            serial,
            uid,
            gid,
            mtime_s,
            mtime_ns,
            links: inode.links,
        };
        self.out.write(&raw.encode())?;
        self.out.write(xattrs)?;
        if inode.data == Data::Inline {
            let data = data(&self.tree, layout, inode);
            self.out.write(&data)?;
        }
        Ok(())
    }
}

/// A directory's or link's data.
fn data(tree: &Tree, layout: &Layout, inode: &Inode) -> Vec<u8> {
    match &tree.nodes[inode.node].content {
        Content::Directory(children) => layout.directory_data(tree, children, inode.node, inode.parent),
        Content::Symlink(target) => target.to_vec(),
        _ => Vec::new(),
    }
}

fn attributes(path: &EntryPath, metadata: &Metadata) -> Result<Attributes, Error> {
    let Metadata { uid, gid, .. } = *metadata;
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::Owner { entry: path.to_string(), uid, gid }); // -1 is "no change" to chown(2)
    }
    if metadata.mtime_ns >= 1_000_000_000 {
        return Err(Error::Nanoseconds { entry: path.to_string(), mtime_ns: metadata.mtime_ns });
    }
    Ok(Attributes {
        permissions: metadata.permissions & 0o7777,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime_s: metadata.mtime_s,
        mtime_ns: metadata.mtime_ns,
        xattrs: xattr::encode(&metadata.xattrs, &|| path.to_string())?,
    })
}

/// Neighbouring extents as one, in bytes: offset and length.
fn merge(mut extents: Vec<Extent>) -> Vec<(u64, u64)> {
    extents.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for Extent { block, blocks } in extents {
        let (offset, length) = (u64::from(block) * BLOCK, u64::from(blocks) * BLOCK);
        match merged.last_mut() {
            Some((start, so_far)) if *start + *so_far == offset => *so_far += length,
            _ => merged.push((offset, length)),
        }
    }
    merged
}

fn too_many_blocks(path: &EntryPath) -> Error {
    Error::Limit { entry: path.to_string(), what: "blocks of 4096 bytes", limit: u32::MAX.into() }
}
