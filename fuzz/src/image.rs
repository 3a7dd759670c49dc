//! EROFS images: bytes that need not be one, and a good one of which the fuzzer damages any part.

use std::io::Read;
use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use erofs::{EntryPath, Metadata, Reader, Writer};

const SUPERBLOCK: std::ops::Range<usize> = 1024..4096;
/// Of the checksum, in the superblock.
const CHECKSUM: std::ops::Range<usize> = 1028..1032;

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
    for number in 0..200 {
        writer.file(&path(&format!("many/{number}"))?, &metadata, &mut &b""[..], 0)?;
    }
    Ok(writer.finish()?.0)
}

/// The good image with parts of it overwritten, but for the checksum, which is right.
fn damaged(parts: &[Damage]) -> Vec<u8> {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    let mut image = GOOD.get_or_init(|| good().expect("an image")).clone();
    for Damage { at, bytes } in parts {
        let start = SUPERBLOCK.start + usize::from(*at) % (image.len() - SUPERBLOCK.start);
        for (to, from) in image[start..].iter_mut().zip(bytes) {
            *to = *from;
        }
    }
    image[CHECKSUM].fill(0);
    let checksum = crc32c(&image[SUPERBLOCK]);
    image[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
    image
}

fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

/// The target.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice & 1 == 1 {
        return look(data.to_vec());
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
    for path in ["link", "many/7", "directory/short/below"] {
        let _damaged = EntryPath::parse(path.as_bytes()).map(|path| reader.lookup(&path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_damaged_is_a_good_image() {
        let reader = Reader::open(damaged(&[])).expect("an image");
        assert_eq!(reader.walk().filter(Result::is_ok).count(), 207);
    }
}
