//! The image's tree while entries arrive: what is where, and which data later layers made dead.
//!
//! Layers are applied as a runtime that unpacks them would: later entries replace earlier ones, whiteouts hide what
//! came from lower layers. No data is here, only where it is.

use std::collections::{BTreeMap, HashSet};

use crate::arena::{Arena, Id};
use crate::error::Error;
use crate::limits::Limits;
use crate::metadata::{Kind, Special};
use crate::path::EntryPath;

/// Blocks of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub block: u32,
    pub blocks: u32,
}

/// [`Metadata`](crate::Metadata) in its stored form, for half the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub permissions: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub xattrs: Box<[u8]>,
}

/// What a directory lists, by name.
pub(crate) type Children = BTreeMap<Box<[u8]>, Entry>;

pub(crate) enum Content {
    Directory(Children),
    File {
        extent: Extent,
        size: u64,
    },
    Symlink(Box<[u8]>),
    Special(Special),
    /// The last name is gone.
    Free,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub node: Id,
    /// The last layer that brought it or something inside it.
    layer: u32,
}

pub(crate) struct Node {
    pub attributes: Attributes,
    /// Names of the node; a directory has one.
    pub names: u32,
    pub content: Content,
}

impl Node {
    pub fn kind(&self) -> Kind {
        match &self.content {
            Content::Directory(_) => Kind::Directory,
            Content::File { .. } | Content::Free => Kind::Regular,
            Content::Symlink(_) => Kind::Symlink,
            Content::Special(special) => Kind::Special(*special),
        }
    }
}

/// A directory and a name in it, which may be there or not.
pub(crate) struct Place<'a> {
    pub parent: Id,
    pub name: &'a [u8],
}

pub(crate) struct Tree {
    pub nodes: Arena<Node>,
    pub dead: Vec<Extent>,
    layer: u32,
    /// Directories that have nothing of lower layers any more, so that whiteouts without end cost a layer no more than
    /// one look at each directory.
    cleared: HashSet<Id>,
    limits: Limits,
    entries: u64,
    metadata_bytes: u64,
}

/// Directories that nobody described: open to all, owned by root, from 1970.
const IMPLIED_PERMISSIONS: u16 = 0o755;

impl Tree {
    pub const ROOT: Id = Id::FIRST;

    pub fn new(limits: Limits) -> Self {
        let root = Node { attributes: implied(), names: 1, content: Content::Directory(Children::new()) };
        let nodes = Arena::new(root);
        Self {
            nodes,
            dead: Vec::new(),
            layer: 0,
            cleared: HashSet::new(),
            limits,
            entries: 0,
            metadata_bytes: 0,
        }
    }

    /// What comes from now on belongs to a layer above all before.
    pub fn next_layer(&mut self) {
        self.layer = self.layer.saturating_add(1);
        self.cleared.clear();
    }

    /// What a directory has under a name; `None` also if it is no directory.
    pub fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        match &self.nodes[directory].content {
            Content::Directory(children) => children.get(name).map(|entry| entry.node),
            _ => None,
        }
    }

    pub fn is_directory(&self, id: Id) -> bool {
        matches!(self.nodes[id].content, Content::Directory(_))
    }

    /// Gives a place to a new node, instead of what was there. A directory on a directory becomes that one with other
    /// attributes, and keeps its children.
    pub fn insert(
        &mut self,
        path: &EntryPath,
        place: &Place,
        attributes: Attributes,
        content: Content,
    ) -> Result<(), Error> {
        self.charge(path, attributes.xattrs.len() as u64)?;
        if let Content::Symlink(target) = &content {
            self.charge(path, target.len() as u64)?;
        }
        let old = self.child(place.parent, place.name);
        if let (Some(old), Content::Directory(_)) = (old, &content)
            && self.is_directory(old)
        {
            self.nodes[old].attributes = attributes;
            return self.link(path, place, old);
        }
        let node = self.add(path, Node { attributes, names: 0, content })?;
        self.link(path, place, node)
    }

    /// Gives a node a name, instead of what had the name.
    pub fn link(&mut self, path: &EntryPath, place: &Place, node: Id) -> Result<(), Error> {
        self.count_entry(path, place.name)?;
        let entry = Entry { node, layer: self.layer };
        self.nodes[node].names += 1;
        if let Content::Directory(children) = &mut self.nodes[place.parent].content
            && let Some(old) = children.insert(place.name.into(), entry)
        {
            self.release(old.node);
        }
        Ok(())
    }

    /// Makes a directory for an entry whose own parents are not in the archive.
    pub fn imply_directory(&mut self, path: &EntryPath, place: &Place) -> Result<Id, Error> {
        let content = Content::Directory(Children::new());
        let node = self.add(path, Node { attributes: implied(), names: 0, content })?;
        self.link(path, place, node)?;
        Ok(node)
    }

    /// Notes that the current layer has something below this name, so that its own whiteouts spare it.
    pub fn touch(&mut self, place: &Place) {
        let layer = self.layer;
        if let Content::Directory(children) = &mut self.nodes[place.parent].content
            && let Some(entry) = children.get_mut(place.name)
        {
            entry.layer = layer;
        }
    }

    /// Hides what lower layers put at a place; what the current one put there or below it stays, in whatever order the
    /// layer names them (OCI image-spec, layer.md, "Whiteouts").
    pub fn hide(&mut self, place: &Place) {
        let Content::Directory(children) = &mut self.nodes[place.parent].content else { return };
        let Some(entry) = children.get(place.name).copied() else { return };
        if entry.layer == self.layer {
            self.hide_children(entry.node);
        } else {
            children.remove(place.name);
            self.release(entry.node);
        }
    }

    /// Hides what lower layers put into a directory.
    pub fn hide_children(&mut self, directory: Id) {
        let (layer, mut pending) = (self.layer, vec![directory]);
        while let Some(directory) = pending.pop() {
            let Content::Directory(children) = &mut self.nodes[directory].content else { continue };
            if !self.cleared.insert(directory) {
                continue;
            }
            let hidden: Vec<Id> = children
                .extract_if(.., |_, entry| entry.layer != layer)
                .map(|(_, entry)| entry.node)
                .collect();
            pending.extend(children.values().map(|entry| entry.node));
            for node in hidden {
                self.release(node);
            }
        }
    }

    /// Takes one name from a node. Without a name it is gone, a directory with all below it, and its data is dead.
    fn release(&mut self, node: Id) {
        let mut pending = vec![node];
        while let Some(id) = pending.pop() {
            let node = &mut self.nodes[id];
            node.names = node.names.saturating_sub(1);
            if node.names > 0 {
                continue;
            }
            node.attributes.xattrs = Box::default();
            match std::mem::replace(&mut node.content, Content::Free) {
                Content::Directory(children) => {
                    pending.extend(children.into_values().map(|entry| entry.node))
                }
                Content::File { extent, .. } if extent.blocks > 0 => self.dead.push(extent),
                _ => {}
            }
        }
    }

    fn add(&mut self, path: &EntryPath, node: Node) -> Result<Id, Error> {
        let limit = u32::MAX.into();
        self.nodes.add(node).ok_or_else(|| Error::Limit { entry: path.to_string(), what: "inodes", limit })
    }

    fn count_entry(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::Limit {
                entry: path.to_string(),
                what: "entries",
                limit: self.limits.entries,
            });
        }
        self.charge(path, name.len() as u64)
    }

    fn charge(&mut self, path: &EntryPath, bytes: u64) -> Result<(), Error> {
        self.metadata_bytes += bytes;
        if self.metadata_bytes > self.limits.metadata_bytes {
            let what = "bytes of names, link targets and extended attributes";
            return Err(Error::Limit { entry: path.to_string(), what, limit: self.limits.metadata_bytes });
        }
        Ok(())
    }
}

fn implied() -> Attributes {
    Attributes { permissions: IMPLIED_PERMISSIONS, ..Attributes::default() }
}
