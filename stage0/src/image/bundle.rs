//! The files of an OCI image layout or a `docker save` archive: a directory, or a tar archive that is indexed once and then
//! read wherever needed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use erofs::EntryPath;

use super::error::Error;
use super::tarball::{self, Archive, Input, Kind};
use super::{MAX_JSON_BYTES, tree_writer};

/// The most files that an archive may have; an image has three for each of at most 127 layers.
const MAX_MEMBERS: usize = 1 << 16;
/// The most links that are followed from one name to a file: some writers link a repeated layer to the first.
const MAX_LINKS: u32 = 8;

/// Files by name.
pub enum Bundle {
    /// Below a directory.
    Directory(PathBuf),
    /// In an uncompressed archive.
    Archive {
        /// The archive.
        file: File,
        /// What is where in it.
        members: HashMap<EntryPath, Member>,
    },
}

/// A member of an archive.
pub enum Member {
    /// Bytes of the archive.
    File {
        /// Where they begin.
        offset: u64,
        /// How many there are.
        size: u64,
    },
    /// The same as another member.
    Link(EntryPath),
}

impl Bundle {
    /// Indexes an archive.
    pub fn index(file: File) -> Result<Self, Error> {
        let length = file.metadata().map_err(Error::read("the archive"))?.len();
        let mut archive = Archive::new(Section { file: &file, offset: 0, left: length });
        let mut members = HashMap::new();
        while let Some(entry) = archive.next_entry()? {
            let path = tree_writer::path_of(&entry)?;
            let member = match &entry.kind {
                Kind::File(size) => Member::File { offset: entry.data_offset, size: *size },
                Kind::HardLink(target) => Member::Link(link(&entry, &EntryPath::ROOT, target)?),
                Kind::Symlink(target) => Member::Link(link(&entry, &path, target)?),
                Kind::Directory => continue,
                Kind::Special(_) => {
                    let what = "an image archive has only files, directories and links".into();
                    return Err(Error::Layout { entry: entry.display_name(), what });
                }
            };
            members.insert(path, member);
            if members.len() > MAX_MEMBERS {
                return Err(Error::Invalid(format!("the archive has more than {MAX_MEMBERS} files")));
            }
        }
        if !archive.has_end_marker() {
            return Err(archive.truncated().into());
        }
        drop(archive);
        Ok(Self::Archive { file, members })
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// A file and its size.
    pub fn open(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64), Error> {
        let missing = || Error::Missing(super::quote(name.as_bytes()));
        match self {
            Self::Directory(directory) => {
                // A pipe in place of the file must not hold us up.
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(directory.join(name))
                    .map_err(|source| match source.kind() {
                        io::ErrorKind::NotFound => missing(),
                        _ => Error::Read { what: name.into(), source },
                    })?;
                let metadata = file.metadata().map_err(Error::read(name))?;
                if !metadata.is_file() {
                    return Err(Error::Layout { entry: name.into(), what: "it is not a file".into() });
                }
                Ok((Box::new(file), metadata.len()))
            }
            Self::Archive { file, members } => {
                let mut path = EntryPath::parse(name.as_bytes()).map_err(|_| missing())?;
                for _ in 0..=MAX_LINKS {
                    match members.get(&path).ok_or_else(missing)? {
                        Member::Link(target) => path = target.clone(),
                        Member::File { offset, size } => {
                            return Ok((Box::new(Section { file, offset: *offset, left: *size }), *size));
                        }
                    }
                }
                Err(Error::Layout { entry: name.into(), what: "it is a link to a link to a link ...".into() })
            }
        }
    }

    /// A small file as a whole.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (file, size) = self.open(name)?;
        if size > MAX_JSON_BYTES {
            return Err(Error::TooLarge { what: name.into(), limit: MAX_JSON_BYTES });
        }
        let mut data = Vec::new();
        file.take(MAX_JSON_BYTES).read_to_end(&mut data).map_err(Error::read(name))?;
        Ok(data)
    }
}

/// What a link means that stands at `from` in the archive; it must not leave the archive.
fn link(entry: &tarball::Entry, from: &EntryPath, target: &[u8]) -> Result<EntryPath, Error> {
    let outside = || Error::Layout {
        entry: entry.display_name(),
        what: format!("its target {} is outside the archive", super::quote(target)),
    };
    if target.starts_with(b"/") {
        return Err(outside());
    }
    let mut components: Vec<&[u8]> = from.components().collect();
    components.pop();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop().ok_or_else(outside)?;
            }
            name => components.push(name),
        }
    }
    EntryPath::parse(&components.join(&b'/')).map_err(|_| outside())
}

/// Some bytes of a file.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..length).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Input for Section<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += bytes;
        self.left -= bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bundle(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Bundle, Error> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        Bundle::index(file)
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        if kind == tar::EntryType::Regular {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        } else {
            builder.append_link(&mut header, name, content).unwrap();
        }
    }

    #[test]
    fn files_and_links_to_them() {
        let bundle = bundle(|builder| {
            add(builder, "aa/layer.tar", tar::EntryType::Regular, "data");
            add(builder, "bb/layer.tar", tar::EntryType::Symlink, "../aa/layer.tar");
            add(builder, "cc", tar::EntryType::Link, "bb/layer.tar");
        })
        .unwrap();
        for name in ["aa/layer.tar", "./bb/layer.tar", "cc"] {
            assert_eq!(bundle.read(name).unwrap(), b"data", "{name}");
        }
        assert!(matches!(bundle.read("dd"), Err(Error::Missing(_))));
    }

    #[test]
    fn links_that_lead_nowhere() {
        let looped = bundle(|builder| add(builder, "a", tar::EntryType::Symlink, "a")).unwrap();
        assert!(looped.read("a").unwrap_err().to_string().contains("link to a link"));
        for target in ["../x", "/etc/shadow", "a/../../x"] {
            let outside = bundle(|builder| add(builder, "a", tar::EntryType::Symlink, target));
            assert!(outside.is_err_and(|error| error.to_string().contains("outside")), "{target}");
        }
    }
}
