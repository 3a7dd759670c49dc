//! Where each inode and each directory's or link's data will be: a pure function of the tree.
//!
//! The metadata area follows the file data. First come the inodes, breadth first, so that the inodes of one directory
//! are neighbours and the root is the very first (its number has but 16 bits); behind them the directories and links
//! that do not fit beside their inode.

use std::collections::VecDeque;

use crate::arena::Id;
use crate::directory::{self, Record};
use crate::format::{BLOCK, INODE_BYTES, SLOT_BYTES};
use crate::tree::{Children, Content, Tree};

/// The first inode leaves slot 0 free: programs take an inode number 0 for a deleted file.
const FIRST_OFFSET: u64 = INODE_BYTES as u64;

/// Where the data of an inode will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// There is none, or it is a file's and in place already.
    Elsewhere,
    /// Behind the inode, in the same block.
    Inline,
    /// In blocks of its own, this many after the last inode's.
    Blocks(u64),
}

/// One inode of the image.
pub(crate) struct Inode {
    pub node: Id,
    /// For a directory: the one above it.
    pub parent: Id,
    pub links: u32,
    /// Bytes from the start of the metadata area.
    pub offset: u64,
    pub size: u64,
    pub data: Data,
}

/// The whole metadata area.
pub(crate) struct Layout {
    /// In the order of their offsets.
    pub inodes: Vec<Inode>,
    /// End of the last inode, in bytes from the start of the area.
    inodes_end: u64,
    /// Blocks of directories and links behind the inodes.
    data_blocks: u64,
    /// By number of the node; 0 for what is no longer in the tree.
    offsets: Vec<u64>,
}

impl Layout {
    pub fn of(tree: &Tree) -> Self {
        let offsets = vec![0; tree.nodes.len()];
        let mut layout = Self { inodes: Vec::new(), inodes_end: FIRST_OFFSET, data_blocks: 0, offsets };
        layout.place(tree, Tree::ROOT, Tree::ROOT);
        let mut directories = VecDeque::from([Tree::ROOT]);
        while let Some(parent) = directories.pop_front() {
            let Content::Directory(children) = &tree.nodes[parent].content else { continue };
            for child in children.values().map(|entry| entry.node) {
                // A node with several names is placed where its first one is met.
                if layout.offset(child) == 0 {
                    layout.place(tree, child, parent);
                }
                if tree.is_directory(child) {
                    directories.push_back(child);
                }
            }
        }
        layout
    }

    /// Blocks of the inodes, which come first in the area.
    pub fn inode_blocks(&self) -> u64 {
        self.inodes_end.div_ceil(BLOCK)
    }

    /// Blocks of the area.
    pub fn blocks(&self) -> u64 {
        self.inode_blocks() + self.data_blocks
    }

    /// The number that directories and the superblock call an inode by.
    pub fn nid(&self, node: Id) -> u64 {
        self.offset(node) / SLOT_BYTES
    }

    /// A directory's data, once every inode has its place.
    pub fn directory_data(&self, tree: &Tree, children: &Children, this: Id, parent: Id) -> Vec<u8> {
        let records: Vec<Record> = names(children, this, parent)
            .into_iter()
            .map(|(name, id)| Record { name, nid: self.nid(id), kind: tree.nodes[id].kind().dirent_type() })
            .collect();
        directory::encode(&records)
    }

    fn offset(&self, node: Id) -> u64 {
        self.offsets.get(node.number()).copied().unwrap_or_default()
    }

    fn place(&mut self, tree: &Tree, id: Id, parent: Id) {
        let node = &tree.nodes[id];
        let head = (INODE_BYTES + node.attributes.xattrs.len()) as u64;
        let (size, links) = match &node.content {
            Content::Directory(children) => {
                (directory_bytes(children, id, parent), directory_links(tree, children))
            }
            Content::Symlink(target) => (target.len() as u64, node.names),
            Content::File { size, .. } => (*size, node.names),
            Content::Special(_) | Content::Free => (0, node.names),
        };
        let movable = matches!(node.content, Content::Directory(_) | Content::Symlink(_));
        let data = match movable {
            false => Data::Elsewhere,
            true if head + size <= BLOCK => Data::Inline,
            true => Data::Blocks(self.data_blocks),
        };
        let mut offset = self.inodes_end.next_multiple_of(INODE_BYTES as u64);
        match data {
            Data::Inline if offset % BLOCK + head + size > BLOCK => offset = offset.next_multiple_of(BLOCK),
            Data::Blocks(_) => self.data_blocks += size.div_ceil(BLOCK),
            _ => {}
        }
        self.inodes_end = offset + head + if data == Data::Inline { size } else { 0 };
        if let Some(slot) = self.offsets.get_mut(id.number()) {
            *slot = offset;
        }
        self.inodes.push(Inode { node: id, parent, links, offset, size, data });
    }
}

/// What a directory lists, in the order of the names.
fn names(children: &Children, this: Id, parent: Id) -> Vec<(&[u8], Id)> {
    let mut names: Vec<(&[u8], Id)> = children.iter().map(|(name, entry)| (&**name, entry.node)).collect();
    names.extend([(&b"."[..], this), (b"..", parent)]);
    names.sort_unstable_by(|one, other| one.0.cmp(other.0));
    names
}

fn directory_bytes(children: &Children, this: Id, parent: Id) -> u64 {
    directory::size(names(children, this, parent).iter().map(|(name, _)| name.len()))
}

/// A directory's own name, its `.`, and the `..` of each directory in it.
fn directory_links(tree: &Tree, children: &Children) -> u32 {
    2 + children.values().map(|entry| u32::from(tree.is_directory(entry.node))).sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::path::EntryPath;
    use crate::tree::{Attributes, Place};

    fn tree(entries: Vec<(&str, usize, Content)>) -> Tree {
        let mut tree = Tree::new(Limits::default());
        for (name, xattr_bytes, content) in entries {
            let attributes = Attributes { xattrs: vec![0; xattr_bytes].into(), ..Attributes::default() };
            let place = Place { parent: Tree::ROOT, name: name.as_bytes() };
            tree.insert(&EntryPath::ROOT, &place, attributes, content).unwrap();
        }
        tree
    }

    fn link(length: usize) -> Content {
        Content::Symlink(vec![b'x'; length].into())
    }

    #[test]
    fn the_root_is_first_and_never_number_0() {
        let layout = Layout::of(&tree(vec![]));
        assert_eq!((layout.nid(Tree::ROOT), layout.inodes.len(), layout.blocks()), (2, 1, 1));
        // A root that fills block 0 begins at block 1, still within 16 bits.
        let names: Vec<String> = (0..15).map(|n| format!("{n:0>255}")).collect();
        let layout = Layout::of(&tree(names.iter().map(|name| (&**name, 0, link(1))).collect()));
        assert_eq!(layout.nid(Tree::ROOT), BLOCK / SLOT_BYTES);
    }

    #[test]
    fn inline_data_stays_in_the_block_of_its_inode() {
        for length in (1..4095).step_by(17).chain([4031, 4032, 4033, 4095]) {
            for xattrs in [0, 16, 400, 5000] {
                let layout = Layout::of(&tree(vec![("a", 0, link(100)), ("b", xattrs, link(length))]));
                let inode = layout.inodes.last().unwrap();
                let end = inode.offset + 64 + xattrs as u64 + length as u64;
                match inode.data {
                    Data::Inline => assert_eq!(inode.offset / BLOCK, (end - 1) / BLOCK, "{length} {xattrs}"),
                    data => assert_eq!((data, 64 + xattrs + length > 4096), (Data::Blocks(0), true)),
                }
            }
        }
    }

    #[test]
    fn inodes_do_not_overlap_and_never_cross_a_block() {
        let contents = (1..200).map(|n| (n, link(n * 37 % 4000 + 1)));
        let names: Vec<String> = (1..200).map(|n| format!("{n:03}")).collect();
        let layout = Layout::of(&tree(
            contents.zip(&names).map(|((n, content), name)| (&**name, n % 5 * 20, content)).collect(),
        ));
        let mut end = 1;
        for inode in &layout.inodes {
            assert!(inode.offset >= end && inode.offset % 64 == 0);
            end = inode.offset + 64 + if inode.data == Data::Inline { inode.size } else { 0 };
        }
        assert!(end <= layout.inode_blocks() * BLOCK);
    }
}
