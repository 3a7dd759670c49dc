//! Everything in an image, parents before what is in them, siblings by name.

use std::collections::HashSet;

use crate::error::Error;
use crate::limits::MAX_ENTRIES;
use crate::metadata::Kind;
use crate::path::MAX_PATH_BYTES;
use crate::reader::{Inode, ReadDir, Reader};
use crate::source::ReadAt;

impl<R: ReadAt> Reader<R> {
    /// Goes through the whole image, the root, with its empty path, first. Hard links are entries like any other. Ends
    /// after the first error.
    pub fn walk(&self) -> Walk<'_, R> {
        Walk { reader: self, state: State::Start, open: Vec::new(), seen: HashSet::new(), entries: 0 }
    }
}

/// The iterator of [`Reader::walk`]: paths, whose components are joined by slashes, and inodes.
pub struct Walk<'a, R> {
    reader: &'a Reader<R>,
    state: State,
    /// The directories from the root to where we are.
    open: Vec<(Vec<u8>, ReadDir<'a, R>)>,
    /// A directory has one name; a damaged image might put one inside itself.
    seen: HashSet<u64>,
    entries: u64,
}

enum State {
    Start,
    Inside,
    Failed,
}

impl<'a, R: ReadAt> Walk<'a, R> {
    fn step(&mut self) -> Result<Option<(Vec<u8>, Inode)>, Error> {
        if matches!(self.state, State::Start) {
            self.state = State::Inside;
            let root = self.reader.root()?;
            self.enter(Vec::new(), &root)?;
            return Ok(Some((Vec::new(), root)));
        }
        while let Some((path, entries)) = self.open.last_mut() {
            let Some(entry) = entries.next().transpose()? else {
                self.open.pop();
                continue;
            };
            let separator = if path.is_empty() { &b""[..] } else { b"/" };
            let path = [path, separator, &entry.name].concat();
            let inode = self.reader.entry_inode(&entry)?;
            self.entries += 1;
            if path.len() > MAX_PATH_BYTES || self.entries > MAX_ENTRIES {
                return Err(Error::Corrupt {
                    nid: inode.nid(),
                    what: "its path is too long, or there are too many",
                });
            }
            if inode.kind() == Kind::Directory {
                self.enter(path.clone(), &inode)?;
            }
            return Ok(Some((path, inode)));
        }
        Ok(None)
    }

    fn enter(&mut self, path: Vec<u8>, directory: &Inode) -> Result<(), Error> {
        if !self.seen.insert(directory.nid()) {
            return Err(Error::Corrupt { nid: directory.nid(), what: "it is a directory with two names" });
        }
        self.open.push((path, self.reader.read_dir(directory)?));
        Ok(())
    }
}

impl<R: ReadAt> Iterator for Walk<'_, R> {
    type Item = Result<(Vec<u8>, Inode), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.state, State::Failed) {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.state = State::Failed;
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::EntryPath;
    use crate::{Metadata, Writer};

    /// An image with the directories `a` and `a/b`, and where the number of `b` is in the list of `a`.
    fn image() -> (Vec<u8>, usize) {
        let mut writer = Writer::new(Vec::new());
        let path = EntryPath::parse(b"a/b").unwrap();
        writer.directory(&path, &Metadata::root_owned(0o755)).unwrap();
        let image = writer.finish().unwrap().0;
        let reader = Reader::open(&image).unwrap();
        let number = reader.lookup(&path).unwrap().unwrap().nid().to_le_bytes();
        let records =
            image.chunks_exact(4).enumerate().filter(|(at, _)| image[at * 4..].starts_with(&number));
        // The list of `b` itself is behind that of `a`.
        let at = records.map(|(at, _)| at * 4).find(|at| *at > 4096).unwrap();
        (image, at)
    }

    #[test]
    fn a_directory_inside_itself_ends_the_walk() {
        let (mut image, at) = image();
        assert_eq!(Reader::open(&image).unwrap().walk().count(), 3);
        for above in [Reader::root, |reader: &Reader<_>| {
            reader.lookup(&EntryPath::parse(b"a").unwrap()).map(Option::unwrap)
        }] {
            let nid = above(&Reader::open(image.clone()).unwrap()).unwrap().nid();
            image[at..at + 8].copy_from_slice(&nid.to_le_bytes());
            let reader = Reader::open(image.clone()).unwrap();
            let mut walk = reader.walk();
            let error = walk.find_map(Result::err).unwrap();
            assert!(
                matches!(error, Error::Corrupt { what: "it is a directory with two names", .. }),
                "{error}"
            );
            assert!(walk.next().is_none());
        }
    }
}
