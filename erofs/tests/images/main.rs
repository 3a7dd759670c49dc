//! Whole images: written, read back, mounted, checked by erofs-utils, extracted, damaged.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // as in every test

mod extract;
mod kernel;
mod layers;
mod limits;
mod listing;
mod model;
mod tools;
mod zoo;

use erofs::{EntryPath, Metadata, Reader, Summary, Writer};

/// An entry of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) metadata: Metadata,
    pub(crate) what: What,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Special(erofs::Special),
    /// A hard link to an earlier path.
    Link(Vec<u8>),
}

pub(crate) fn path(name: impl AsRef<[u8]>) -> EntryPath {
    EntryPath::parse(name.as_ref()).unwrap()
}

/// Adds one entry.
pub(crate) fn add<S: erofs::Sink>(writer: &mut Writer<S>, item: &Item) -> Result<(), erofs::Error> {
    let (path, metadata) = (path(&item.path), &item.metadata);
    match &item.what {
        What::Directory => writer.directory(&path, metadata),
        What::File(data) => writer.file(&path, metadata, &mut data.as_slice(), data.len() as u64),
        What::Symlink(target) => writer.symlink(&path, metadata, target),
        What::Special(special) => writer.special(&path, metadata, *special),
        What::Link(target) => writer.hard_link(&path, &EntryPath::in_root(target).unwrap()),
    }
}

/// An image of one layer in memory.
pub(crate) fn image(items: &[Item]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(Vec::new());
    for item in items {
        add(&mut writer, item).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let items = zoo::items();
    let (image, summary) = image(&items);
    assert_eq!(summary.blocks * 4096, image.len() as u64);
    assert_eq!(summary.dead_blocks, 0);
    let read = listing::of_image(&Reader::open(&image).unwrap());
    listing::assert_same(&read, &listing::of_items(&items));
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    let items = zoo::items();
    let file = tempfile::tempfile().unwrap();
    let mut writer = Writer::new(file);
    items.iter().for_each(|item| add(&mut writer, item).unwrap());
    let (file, summary) = writer.finish().unwrap();
    let (memory, summary_again) = image(&items);
    assert_eq!(summary, summary_again);
    let mut on_disk = vec![0; memory.len()];
    assert_eq!(file.metadata().unwrap().len(), memory.len() as u64);
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut on_disk, 0).unwrap();
    assert!(on_disk == memory);
}

#[test]
fn lookups_follow_links_inside_the_image_only() {
    let directory = |path: &str| zoo::item(path, What::Directory);
    let link = |path: &str, target: &str| zoo::item(path, What::Symlink(target.into()));
    let (image, _) = image(&[
        zoo::item("usr/lib/passwd", What::File(b"root:x:0:0".to_vec())),
        directory("etc"),
        link("etc/passwd", "../../../lib/passwd"),
        link("lib", "/usr/lib"),
        link("loop", "loop"),
        link("etc/dangling", "nowhere"),
    ]);
    let reader = Reader::open(&image).unwrap();
    let at = |name: &str| EntryPath::in_root(name.as_bytes()).unwrap();
    let found = reader.resolve(&at("/etc/passwd")).unwrap().unwrap();
    assert_eq!(found.nid(), reader.lookup(&at("/lib/passwd")).unwrap().unwrap().nid());
    assert_eq!(std::io::read_to_string(reader.read_file(&found).unwrap()).unwrap(), "root:x:0:0");
    assert_eq!(reader.lookup(&at("/etc/passwd")).unwrap().unwrap().kind(), erofs::Kind::Symlink);
    assert!(reader.resolve(&at("/etc/dangling")).unwrap().is_none());
    assert!(reader.lookup(&at("/usr/lib/passwd/x")).unwrap().is_none());
    assert!(matches!(reader.resolve(&at("/loop")), Err(erofs::Error::TooManyLinks { .. })));
    assert_eq!(reader.lookup(&EntryPath::ROOT).unwrap().unwrap().nid(), reader.root().unwrap().nid());
}

#[test]
fn a_hundred_thousand_files_take_little_memory_and_time() {
    let start = std::time::Instant::now();
    let before = resident_bytes();
    let mut writer = Writer::new(tempfile::tempfile().unwrap());
    let metadata = Metadata::root_owned(0o644);
    for number in 0..100_000 {
        let name = format!("usr/share/directory{}/some-file-{number}.txt", number / 100);
        // Each byte of data costs a block: one file in ten has some.
        let size = if number % 10 == 1 { 8 } else { 0 };
        writer.file(&path(name), &metadata, &mut name_of(number).as_bytes(), size).unwrap();
    }
    let grown = resident_bytes() - before;
    let (file, summary) = writer.finish().unwrap();
    // A tenth of the files may take a tenth of 1 GiB.
    assert!(grown < 100 << 20, "{grown} bytes for 100,000 files");
    assert_eq!(summary.inodes, 101_003);
    let reader = Reader::open(file).unwrap();
    assert_eq!(reader.walk().map(Result::unwrap).count() as u64, summary.inodes);
    let found = reader.lookup(&path("usr/share/directory777/some-file-77701.txt")).unwrap().unwrap();
    assert_eq!(std::io::read_to_string(reader.read_file(&found).unwrap()).unwrap(), name_of(77701));
    println!("100,000 files: {:?}, {} KiB of memory", start.elapsed(), grown >> 10);
}

fn name_of(number: u32) -> String {
    format!("{number:08}")
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
