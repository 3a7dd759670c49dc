//! ACIs that are looked into.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tar::EntryType;

/// All that an ACI has of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub kind: EntryType,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u64, u64),
    /// Where a link leads.
    pub target: Vec<u8>,
    /// What is in a file.
    pub content: Vec<u8>,
    /// Its time, with what is below a second, if it has that.
    pub mtime: (u64, Option<String>),
    /// Its extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// An ACI.
pub struct Archive {
    /// By name.
    pub entries: BTreeMap<String, Member>,
}

impl Archive {
    /// The ACI at a path, which gzip has compressed.
    pub fn read(path: &Path) -> Self {
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut tar).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let (mut below_second, mut xattrs) = (None, BTreeMap::new());
            for record in entry.pax_extensions().unwrap().into_iter().flatten() {
                let record = record.unwrap();
                match (record.key().unwrap(), record.value_bytes()) {
                    ("mtime", value) => below_second = Some(String::from_utf8(value.to_vec()).unwrap()),
                    (key, value) => drop(xattrs.insert(key.to_owned(), value.to_vec())),
                }
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            let member = Member {
                kind: header.entry_type(),
                mode: header.mode().unwrap(),
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                target: entry.link_name_bytes().unwrap_or_default().into_owned(),
                mtime: (header.mtime().unwrap(), below_second),
                content,
                xattrs,
            };
            (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), member)
        });
        Self { entries: entries.collect() }
    }
}
