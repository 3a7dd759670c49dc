//! The inodes and open files that a guest knows, by numbers of ours. Both tables have an end: a guest that never forgets
//! anything gets ENFILE.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::request::ROOT;

/// The most inodes that a guest can know at a time. Each is a descriptor here.
pub const MAX_INODES: usize = 1 << 18;
/// The most files and directories that a guest can have open at a time.
pub const MAX_HANDLES: usize = 1 << 16;

/// An inode that the guest knows.
#[derive(Debug)]
pub struct Inode {
    /// It as a place (O_PATH), which stays the same whatever becomes of its names.
    pub place: OwnedFd,
    /// What it is.
    pub kind: SFlag,
    identity: Identity,
}

/// The device and the number: the same as long as the inode is held.
type Identity = (u64, u64);

/// All inodes that the guest knows.
#[derive(Debug)]
pub struct Inodes {
    /// With how often each was looked up and not forgotten.
    known: HashMap<u64, (Arc<Inode>, u64)>,
    numbers: HashMap<Identity, u64>,
    next: u64,
}

impl Inodes {
    /// Nothing but the root, which is never forgotten.
    pub fn new(root: OwnedFd) -> Result<Self, Errno> {
        let mut inodes = Self { known: HashMap::new(), numbers: HashMap::new(), next: ROOT };
        inodes.look_up(root)?;
        Ok(inodes)
    }

    /// The inode of a number.
    pub fn get(&self, node: u64) -> Result<Arc<Inode>, Errno> {
        self.known.get(&node).map(|(inode, _)| Arc::clone(inode)).ok_or(Errno::ESTALE)
    }

    /// Counts a look-up of what was opened as a place, and returns its number.
    pub fn look_up(&mut self, place: OwnedFd) -> Result<u64, Errno> {
        let stat = fstat(&place)?;
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(number) = self.numbers.get(&identity)
            && let Some((_, count)) = self.known.get_mut(number)
        {
            *count = count.saturating_add(1);
            return Ok(*number);
        }
        if self.known.len() >= MAX_INODES {
            return Err(Errno::ENFILE);
        }
        let number = self.next;
        // A number is never used again, so that nothing old can mean something new.
        self.next = number.checked_add(1).ok_or(Errno::ENFILE)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        self.known.insert(number, (Arc::new(Inode { place, kind, identity }), 1));
        self.numbers.insert(identity, number);
        Ok(number)
    }

    /// Forgets so many look-ups.
    pub fn forget(&mut self, node: u64, look_ups: u64) {
        let Some((inode, count)) = self.known.get_mut(&node).filter(|_| node != ROOT) else { return };
        *count = count.saturating_sub(look_ups);
        if *count == 0 {
            let identity = inode.identity;
            self.known.remove(&node);
            self.numbers.remove(&identity);
        }
    }

    /// Forgets everything but the root.
    pub fn forget_all(&mut self) {
        self.known.retain(|node, _| *node == ROOT);
        self.numbers.retain(|_, node| *node == ROOT);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

/// The open files, or directories, of a guest.
#[derive(Debug, Default)]
pub struct Handles {
    open: HashMap<u64, Arc<File>>,
    next: u64,
}

impl Handles {
    /// Adds one and returns its number.
    pub fn add(&mut self, file: File) -> Result<u64, Errno> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Errno::ENFILE);
        }
        let number = self.next;
        self.next = number.checked_add(1).ok_or(Errno::ENFILE)?;
        self.open.insert(number, Arc::new(file));
        Ok(number)
    }

    /// The one of a number.
    pub fn get(&self, handle: u64) -> Result<Arc<File>, Errno> {
        self.open.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    /// Closes one.
    pub fn close(&mut self, handle: u64) -> Result<(), Errno> {
        self.open.remove(&handle).map(drop).ok_or(Errno::EBADF)
    }

    /// Closes all.
    pub fn close_all(&mut self) {
        self.open.clear();
    }
}
