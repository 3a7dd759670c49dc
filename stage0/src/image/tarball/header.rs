//! The header block of an entry (POSIX ustar interchange format; GNU's and v7's variants of it).

use std::ops::Range;

use erofs::{Metadata, Xattrs};

pub const BLOCK_BYTES: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE_FLAG: usize = 156;
const LINK_NAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const DEVICE_MAJOR: Range<usize> = 329..337;
const DEVICE_MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// GNU's header, with a blank where this has its zero, has other fields where POSIX has the prefix. The version that
/// follows is not compared: some writers leave it blank.
const POSIX_MAGIC: &[u8] = b"ustar\0";

pub struct Header([u8; BLOCK_BYTES]);

impl Header {
    pub fn new(block: [u8; BLOCK_BYTES]) -> Self {
        Self(block)
    }

    fn field(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }

    fn text(&self, range: Range<usize>) -> Vec<u8> {
        let field = self.field(range);
        field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    }

    /// Whether the block is a header at all: the sum of its bytes, the checksum's own taken as spaces. Some old writers
    /// summed signed bytes.
    pub fn checksum_matches(&self) -> bool {
        let Some(expected) = number(self.field(CHECKSUM)) else { return false };
        let bytes =
            self.0.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
        let unsigned: i128 = bytes.clone().map(i128::from).sum();
        let signed: i128 = bytes.map(|byte| i128::from(byte as i8)).sum();
        expected == unsigned || expected == signed
    }

    pub fn type_flag(&self) -> u8 {
        self.0.get(TYPE_FLAG).copied().unwrap_or_default()
    }

    pub fn name(&self) -> Vec<u8> {
        let (prefix, name) = (self.text(PREFIX), self.text(NAME));
        if self.field(MAGIC) == POSIX_MAGIC && !prefix.is_empty() {
            [&prefix, &b"/"[..], &name].concat()
        } else {
            name
        }
    }

    pub fn link_name(&self) -> Vec<u8> {
        self.text(LINK_NAME)
    }

    /// The size of the data; a size of 8 EiB is one more number that no input has that many bytes for.
    pub fn size(&self) -> Result<u64, &'static str> {
        number(self.field(SIZE)).and_then(|size| u64::try_from(size).ok()).ok_or("its size is not a number")
    }

    pub fn device(&self) -> Result<(u32, u32), String> {
        let part = |range| number(self.field(range)).and_then(|part| u32::try_from(part).ok());
        part(DEVICE_MAJOR)
            .zip(part(DEVICE_MINOR))
            .ok_or_else(|| "its device number is not a number".to_owned())
    }

    pub fn metadata(&self) -> Result<Metadata, String> {
        let field = |range, what: &str| {
            number(self.field(range)).ok_or_else(|| format!("its {what} is not a number"))
        };
        let owner = |range, what: &str| {
            u32::try_from(field(range, what)?).map_err(|_| format!("its {what} does not fit in 32 bits"))
        };
        Ok(Metadata {
            permissions: (field(MODE, "mode")? & 0o7777) as u16,
            uid: owner(UID, "owner")?,
            gid: owner(GID, "group")?,
            mtime_s: i64::try_from(field(MTIME, "time")?)
                .map_err(|_| "its time is out of range".to_owned())?,
            mtime_ns: 0,
            xattrs: Xattrs::new(),
        })
    }
}

/// A number: octal digits between spaces and up to a NUL, or, with the top bit set, a big-endian two's complement one
/// (GNU). An empty field is 0.
fn number(field: &[u8]) -> Option<i128> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            // Bit 6 is the sign.
            let start = i128::from(first & 0x3f) - i128::from(first & 0x40);
            // Twelve bytes at most, so 96 bits: no overflow.
            Some(rest.iter().fold(start, |sum, byte| (sum << 8) | i128::from(*byte)))
        }
        _ => {
            let digits = field.split(|byte| *byte == 0).next()?.trim_ascii();
            digits.iter().try_fold(0, |sum, digit| match digit {
                b'0'..=b'7' => Some((sum << 3) | i128::from(digit - b'0')),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00000000"), Some(0), "no terminator");
        assert_eq!(number(b"0000008\0"), None);
        assert_eq!(number(b"-000001\0"), None);
        let mut large = [0; 12];
        large[0] = 0x80;
        large[3] = 0x80;
        assert_eq!(number(&large), Some(1 << 71));
        assert_eq!(number(&[0xff; 12]), Some(-1));
    }
}
