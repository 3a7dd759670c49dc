//! The nodes of a tree in one vector, named by their number.

use std::ops::{Index, IndexMut};

/// A node's place. Only an [`Arena`] makes them, and a tree keeps to its own arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u32);

impl Id {
    /// The first node of every arena.
    pub const FIRST: Self = Self(0);

    /// For tables beside an arena.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// Nodes are added and changed but never taken out, so an [`Id`] is valid for ever.
pub(crate) struct Arena<T>(Vec<T>);

impl<T> Arena<T> {
    pub fn new(first: T) -> Self {
        Self(vec![first])
    }

    /// `None` when there are 2^32 nodes.
    pub fn add(&mut self, node: T) -> Option<Id> {
        let id = Id(self.0.len().try_into().ok()?);
        self.0.push(node);
        Some(id)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[allow(clippy::indexing_slicing)] // An Id is made with its node, and nodes are never taken out.
impl<T> Index<Id> for Arena<T> {
    type Output = T;
    fn index(&self, id: Id) -> &T {
        &self.0[id.number()]
    }
}

#[allow(clippy::indexing_slicing)] // As above.
impl<T> IndexMut<Id> for Arena<T> {
    fn index_mut(&mut self, id: Id) -> &mut T {
        &mut self.0[id.number()]
    }
}
