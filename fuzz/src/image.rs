//! EROFS images: a good superblock in front of bytes that need not be inodes, and a good image of which the fuzzer damages
//! any part.

use std::io::Read;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use erofs::{EntryPath, Metadata, Reader, Writer};

const SUPERBLOCK: std::ops::Range<usize> = 1024..4096;
const BLOCK: usize = 4096;
/// Of the superblock: the checksum, the root's number, how many blocks there are, and the first of those with inodes.
const CHECKSUM: std::ops::Range<usize> = 1028..1032;
const ROOT: std::ops::Range<usize> = 1038..1040;
const BLOCKS: std::ops::Range<usize> = 1060..1064;
const INODES: std::ops::Range<usize> = 1064..1068;
/// Files in the good image's largest directory.
const MANY: usize = 20;

#[derive(Arbitrary, Debug)]
struct Damage {
    at: u16,
    bytes: Vec<u8>,
}

fn good() -> Result<Vec<u8>, erofs::Error> {
    let mut metadata = Metadata::root_owned(0o755);
    metadata.xattrs.insert(b"user.comment".to_vec(), b"value".to_vec());
    let path = |name: &str| EntryPath::parse(name.as_bytes()).map_err(erofs::Error::from);
    let mut writer = Writer::new(Vec::new());
    writer.directory(&path("directory")?, &metadata)?;
    writer.file(&path("directory/short")?, &metadata, &mut &b"content"[..], 7)?;
    writer.file(&path("long")?, &metadata, &mut std::io::repeat(7), 9000)?;
    writer.symlink(&path("link")?, &metadata, b"directory/short")?;
    writer.hard_link(&path("again")?, &path("long")?)?;
    // A directory of two blocks.
    for number in 0..MANY {
        writer.file(&path(&format!("many/{number:0>250}"))?, &metadata, &mut &b""[..], 0)?;
    }
    Ok(writer.finish()?.0)
}

fn good_image() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| good().expect("an image"))
}

/// The good image with parts of it overwritten, but for the checksum, which is right.
fn damaged(parts: &[Damage]) -> Vec<u8> {
    let mut image = good_image().to_vec();
    for Damage { at, bytes } in parts {
        let start = SUPERBLOCK.start + usize::from(*at) % (image.len() - SUPERBLOCK.start);
        for (to, from) in image[start..].iter_mut().zip(bytes) {
            *to = *from;
        }
    }
    with_checksum(image)
}

/// An image whose inodes and data are `bytes`, from block 1 on.
fn with_inodes(bytes: &[u8]) -> Vec<u8> {
    let mut image = good_image()[..BLOCK].to_vec();
    image.extend(bytes);
    image.resize(image.len().next_multiple_of(BLOCK).max(2 * BLOCK), 0);
    let blocks = (image.len() / BLOCK) as u32;
    image[ROOT].fill(0);
    image[BLOCKS].copy_from_slice(&blocks.to_le_bytes());
    image[INODES].copy_from_slice(&1_u32.to_le_bytes());
    with_checksum(image)
}

fn with_checksum(mut image: Vec<u8>) -> Vec<u8> {
    image[CHECKSUM].fill(0);
    let checksum = crc32c(&image[SUPERBLOCK]);
    image[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    image
}

/// By a table: with a loop for each bit, instrumented as it is, this was most of a run.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: OnceLock<Vec<u32>> = OnceLock::new();
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    let table = TABLE.get_or_init(|| (0..256).map(|byte| (0..8).fold(byte, |crc, _| step(crc))).collect());
    bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
}

/// The target.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice & 1 == 1 {
        return look(with_inodes(data));
    }
    if let Ok(parts) = Vec::<Damage>::arbitrary_take_rest(Unstructured::new(data)) {
        look(damaged(&parts));
    }
}

/// Everything in an image is looked at, some of each file is read.
fn look(image: Vec<u8>) {
    let Ok(reader) = Reader::open(image) else { return };
    for entry in reader.walk().take(256) {
        let Ok((_, inode)) = entry else { return };
        let _damaged = reader.metadata(&inode);
        let _no_link = reader.read_link(&inode);
        if let Ok(mut file) = reader.read_file(&inode) {
            let _damaged = file.read(&mut [0; 8192]);
        }
    }
    for path in ["link", "many", "directory/short/below"] {
        let _damaged = EntryPath::parse(path.as_bytes()).map(|path| reader.lookup(&path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_damaged_is_a_good_image() {
        let reader = Reader::open(damaged(&[])).expect("an image");
        assert_eq!(reader.walk().filter(Result::is_ok).count(), 7 + MANY);
    }

    #[test]
    fn inodes_of_any_bytes_are_behind_a_good_superblock() {
        let good = Reader::open(good_image().to_vec()).expect("an image");
        assert!(good.root().expect("the root").size() > 0);
        // A directory of extended form without entries.
        let mut root = vec![0; 64];
        root[..2].copy_from_slice(&1_u16.to_le_bytes());
        root[4..6].copy_from_slice(&0o40755_u16.to_le_bytes());
        let reader = Reader::open(with_inodes(&root)).expect("an image");
        assert_eq!(reader.walk().filter(Result::is_ok).count(), 1);
        assert!(Reader::open(with_inodes(b"no inode")).is_err());
    }
}
