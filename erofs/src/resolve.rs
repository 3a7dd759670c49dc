//! From an entry's path to its place in the tree.
//!
//! Layers rely on links of the layers below (`lib` → `usr/lib`, then an entry `lib/x`), so a parent that is a symbolic
//! link is followed, as if the image's root were the root of the system: an absolute target begins at the image's root
//! and `..` ends there. The last component is never followed; it is what the entry describes.

use crate::arena::Id;
use crate::error::Error;
use crate::limits::MAX_LINKS_FOLLOWED;
use crate::path::{EntryPath, MAX_NAME_BYTES, MAX_PATH_BYTES, quote};
use crate::tree::{Content, Place, Tree};

/// The place of an entry that is about to be added; missing parents are made.
pub(crate) fn create<'a>(tree: &mut Tree, path: &'a EntryPath) -> Result<Place<'a>, Error> {
    resolve(tree, path, true)
}

/// The place of an entry that may be there; `None` if it cannot be, for want of its parents.
pub(crate) fn find<'a>(tree: &mut Tree, path: &'a EntryPath) -> Result<Option<Place<'a>>, Error> {
    match resolve(tree, path, false) {
        Err(Error::NotADirectory { .. }) => Ok(None),
        result => result.map(Some),
    }
}

fn resolve<'a>(tree: &mut Tree, path: &'a EntryPath, create: bool) -> Result<Place<'a>, Error> {
    let Some((parents, name)) = path.split_last() else {
        return Err(Error::Root { entry: path.to_string() });
    };
    let mut walk = Walk { tree, path, create, way: Vec::new(), links: 0 };
    let parent = walk.follow(parents)?;
    walk.check_length(name)?;
    Ok(Place { parent, name })
}

struct Walk<'a> {
    tree: &'a mut Tree,
    path: &'a EntryPath,
    /// Whether missing parents are made, and this entry is the current layer's.
    create: bool,
    /// From the root, which is left out, to where we are: each directory and the length of the path up to it.
    way: Vec<(Id, usize)>,
    links: u32,
}

impl Walk<'_> {
    fn here(&self) -> Id {
        self.way.last().map_or(Tree::ROOT, |(directory, _)| *directory)
    }

    fn follow(&mut self, parents: &[u8]) -> Result<Id, Error> {
        let mut rest = parents.to_vec();
        let mut at = 0;
        while let Some(ahead) = rest.get(at..).filter(|ahead| !ahead.is_empty()) {
            let length = ahead.iter().position(|byte| *byte == b'/').unwrap_or(ahead.len());
            let name = ahead.get(..length).unwrap_or_default();
            at += length + 1;
            match name {
                b"" | b"." => {}
                b".." => drop(self.way.pop()),
                _ => {
                    if let Some(target) = self.step(name)? {
                        if target.first() == Some(&b'/') {
                            self.way.clear();
                        }
                        rest = [&target, &b"/"[..], rest.get(at..).unwrap_or_default()].concat();
                        at = 0;
                    }
                }
            }
        }
        Ok(self.here())
    }

    /// Goes into a directory, or returns the target of a link.
    fn step(&mut self, name: &[u8]) -> Result<Option<Box<[u8]>>, Error> {
        let place = Place { parent: self.here(), name };
        let length = self.check_length(name)?;
        let child = match self.tree.child(place.parent, name) {
            Some(child) => child,
            None if self.create => self.tree.imply_directory(self.path, &place)?,
            None => return Err(self.no_directory(name)),
        };
        match &self.tree.nodes[child].content {
            Content::Directory(_) => {
                if self.create {
                    self.tree.touch(&place);
                }
                self.way.push((child, length));
                Ok(None)
            }
            Content::Symlink(target) => {
                self.links += 1;
                if self.links > MAX_LINKS_FOLLOWED {
                    return Err(Error::TooManyLinks { entry: self.path.to_string() });
                }
                Ok(Some(target.clone()))
            }
            _ => Err(self.no_directory(name)),
        }
    }

    fn no_directory(&self, parent: &[u8]) -> Error {
        Error::NotADirectory { entry: self.path.to_string(), parent: quote(parent) }
    }

    /// The length of the path to a name in the directory where we are. Links could make it longer than a path may be.
    fn check_length(&self, name: &[u8]) -> Result<usize, Error> {
        let length = self.way.last().map_or(0, |(_, length)| length + 1) + name.len();
        if length > MAX_PATH_BYTES || name.len() > MAX_NAME_BYTES {
            return Err(Error::ResolvedTooLong { entry: self.path.to_string() });
        }
        Ok(length)
    }
}
