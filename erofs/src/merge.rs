//! Takes what is in an image into another one.

use std::collections::HashMap;

use crate::error::Error;
use crate::metadata::{Kind, Metadata};
use crate::path::EntryPath;
use crate::reader::{Inode, Reader};
use crate::sink::Sink;
use crate::source::ReadAt;
use crate::writer::Writer;

impl<S: Sink> Writer<S> {
    /// Adds those files of an image that `keep` wants, which is asked by path (the root's is empty) and type. Names of one
    /// file stay names of one file.
    pub fn merge<R: ReadAt>(
        &mut self,
        image: &Reader<R>,
        keep: &dyn Fn(&[u8], Kind) -> bool,
    ) -> Result<(), Error> {
        let mut names: HashMap<u64, EntryPath> = HashMap::new();
        for entry in image.walk() {
            let (path, inode) = entry?;
            if !keep(&path, inode.kind()) {
                continue;
            }
            let path = if path.is_empty() { EntryPath::ROOT } else { EntryPath::parse(&path)? };
            if let Some(first) = names.get(&inode.nid()) {
                self.hard_link(&path, first)?;
                continue;
            }
            self.copy(image, &inode, &path, &image.metadata(&inode)?)?;
            if inode.links() > 1 && inode.kind() != Kind::Directory {
                names.insert(inode.nid(), path);
            }
        }
        Ok(())
    }

    fn copy<R: ReadAt>(
        &mut self,
        image: &Reader<R>,
        inode: &Inode,
        path: &EntryPath,
        metadata: &Metadata,
    ) -> Result<(), Error> {
        match inode.kind() {
            Kind::Directory => self.directory(path, metadata),
            Kind::Regular => self.file(path, metadata, &mut image.read_file(inode)?, inode.size()),
            Kind::Symlink => self.symlink(path, metadata, &image.read_link(inode)?),
            Kind::Special(special) => self.special(path, metadata, special),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> EntryPath {
        EntryPath::parse(name.as_bytes()).unwrap()
    }

    fn image(fill: impl FnOnce(&mut Writer<Vec<u8>>)) -> Reader<Vec<u8>> {
        let mut writer = Writer::new(Vec::new());
        fill(&mut writer);
        Reader::open(writer.finish().unwrap().0).unwrap()
    }

    fn names(image: &Reader<Vec<u8>>) -> Vec<String> {
        let paths = image.walk().map(|entry| String::from_utf8(entry.unwrap().0).unwrap());
        paths.filter(|path| !path.is_empty()).collect()
    }

    #[test]
    fn everything_of_an_image_is_the_same_image() {
        let mut metadata = Metadata::root_owned(0o751);
        metadata.xattrs.insert(b"user.comment".to_vec(), b"value".to_vec());
        let fill = |writer: &mut Writer<Vec<u8>>| {
            writer.directory(&EntryPath::ROOT, &Metadata::root_owned(0o700)).unwrap();
            writer.directory(&path("d"), &metadata).unwrap();
            writer.file(&path("d/f"), &metadata, &mut std::io::repeat(7), 9000).unwrap();
            writer.hard_link(&path("e"), &path("d/f")).unwrap();
            writer.symlink(&path("l"), &metadata, b"d/f").unwrap();
            writer.special(&path("p"), &metadata, crate::Special::Fifo).unwrap();
        };
        let one = image(fill);
        let other = image(|writer| writer.merge(&one, &|_, _| true).unwrap());
        assert_eq!(names(&one), names(&other));
        for name in ["d", "d/f", "e", "l", "p"] {
            let of = |image: &Reader<Vec<u8>>| {
                let inode = image.lookup(&path(name)).unwrap().unwrap();
                (inode.kind(), inode.size(), inode.links(), image.metadata(&inode).unwrap())
            };
            assert_eq!(of(&one), of(&other), "{name}");
        }
        let linked = |name| other.lookup(&path(name)).unwrap().unwrap().nid();
        assert_eq!(linked("e"), linked("d/f"));
        assert_eq!(other.metadata(&other.root().unwrap()).unwrap().permissions, 0o700);
    }

    #[test]
    fn what_is_above_covers_what_is_below() {
        let file = |writer: &mut Writer<Vec<u8>>, name: &str, content: &[u8]| {
            let (metadata, size) = (Metadata::root_owned(0o644), content.len() as u64);
            writer.file(&path(name), &metadata, &mut &content[..], size).unwrap();
        };
        let below = image(|writer| {
            file(writer, "both", b"below");
            file(writer, "lib/gone", b"");
            file(writer, "bin/a", b"");
        });
        let above = image(|writer| {
            file(writer, "both", b"ab");
            file(writer, "usr/lib/there", b"");
            file(writer, "bin/b", b"");
            writer.symlink(&path("lib"), &Metadata::root_owned(0o777), b"usr/lib").unwrap();
        });
        let merged = image(|writer| {
            writer.merge(&below, &|_, _| true).unwrap();
            writer.next_layer();
            writer.merge(&above, &|path, _| path != b"bin/b").unwrap();
        });
        assert_eq!(names(&merged), ["bin", "bin/a", "both", "lib", "usr", "usr/lib", "usr/lib/there"]);
        assert_eq!(merged.lookup(&path("both")).unwrap().unwrap().size(), 2);
    }
}
