//! Directory data: blocks of entries sorted by name, so that the kernel finds a name by bisection.
//!
//! A block holds 12-byte records (inode number, offset of the name, type) and behind them the names; the first name's
//! offset gives the number of records, the last name ends with the block or at a NUL.

use std::cmp::Ordering;

use crate::format::{BLOCK, Fields};
use crate::path::MAX_NAME_BYTES;

const RECORD_BYTES: usize = 12;
const SHORT: &str = "a directory block is cut short";
const ILLEGAL: &str = "a directory's names are illegal or out of order";

/// One entry of a directory, `.` and `..` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub kind: u8,
}

/// Counts how names fill blocks, for [`size`] and [`encode`] alike.
#[derive(Default)]
struct Fill {
    full_blocks: u64,
    used: usize,
}

impl Fill {
    /// Adds a name; true if it began a new block.
    fn add(&mut self, name_length: usize) -> bool {
        let needed = RECORD_BYTES + name_length;
        let next_block = self.used + needed > BLOCK as usize;
        if next_block {
            self.full_blocks += 1;
            self.used = 0;
        }
        self.used += needed;
        next_block
    }
}

/// Bytes of a directory with names of these lengths, in the order they will be stored.
pub(crate) fn size(name_lengths: impl Iterator<Item = usize>) -> u64 {
    let mut fill = Fill::default();
    for length in name_lengths {
        fill.add(length);
    }
    fill.full_blocks * BLOCK + fill.used as u64
}

/// The directory's data. The records are sorted by name, and the names within [`MAX_NAME_BYTES`].
pub(crate) fn encode(records: &[Record]) -> Vec<u8> {
    let (mut out, mut fill, mut block) = (Vec::new(), Fill::default(), Vec::new());
    for record in records {
        if fill.add(record.name.len()) {
            flush(&block, &mut out);
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
            block.clear();
        }
        block.push(*record);
    }
    flush(&block, &mut out);
    out
}

fn flush(block: &[Record], out: &mut Vec<u8>) {
    let mut name_offset = block.len() * RECORD_BYTES;
    for record in block {
        out.extend(record.nid.to_le_bytes());
        out.extend((name_offset as u16).to_le_bytes()); // below a block's 4096
        out.extend([record.kind, 0]);
        name_offset += record.name.len();
    }
    for record in block {
        out.extend(record.name);
    }
}

/// A block as it is stored.
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    records: usize,
}

impl<'a> Block<'a> {
    /// A block with at least one entry.
    pub fn new(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let first = Fields(bytes.get(8..).unwrap_or_default()).u16().ok_or(SHORT)?;
        let names_start = usize::from(first);
        if names_start == 0 || names_start % RECORD_BYTES != 0 {
            return Err("a directory block's names begin inside its records");
        }
        Ok(Self { bytes, records: names_start / RECORD_BYTES })
    }

    /// An entry, and where its name begins; the name is within the block, and of legal bytes.
    fn record(&self, index: usize) -> Result<(Record<'a>, usize), &'static str> {
        let mut fields = Fields(self.bytes.get(index * RECORD_BYTES..).ok_or(SHORT)?);
        let (Some(nid), Some(start), Some([kind, _])) = (fields.u64(), fields.u16(), fields.bytes()) else {
            return Err(SHORT);
        };
        let start = usize::from(start);
        // The next record's offset ends this name; behind the last one comes padding.
        let name = if index + 1 < self.records {
            let end = fields.0.get(8..).and_then(|next| Fields(next).u16()).ok_or(SHORT)?;
            self.bytes.get(start..usize::from(end)).ok_or("a directory's name ends before it begins")?
        } else {
            let rest = self.bytes.get(start..).ok_or(SHORT)?;
            rest.split(|byte| *byte == 0).next().unwrap_or_default()
        };
        let legal =
            (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        if legal { Ok((Record { name, nid, kind }, start)) } else { Err(ILLEGAL) }
    }

    /// All of its entries, checked: names in order, one behind the other.
    pub fn decode(&self) -> Result<Vec<Record<'a>>, &'static str> {
        let mut expected_start = self.records * RECORD_BYTES;
        let mut decoded: Vec<Record> = Vec::with_capacity(self.records);
        for index in 0..self.records {
            let (record, start) = self.record(index)?;
            if start != expected_start {
                return Err("a directory's names are not one behind the other");
            }
            expected_start += record.name.len();
            if decoded.last().is_some_and(|last| last.name >= record.name) {
                return Err(ILLEGAL);
            }
            decoded.push(record);
        }
        Ok(decoded)
    }

    /// The name that it begins with.
    pub fn first_name(&self) -> Result<&'a [u8], &'static str> {
        self.record(0).map(|(record, _)| record.name)
    }

    /// The entry of a name, found by bisection; only what is looked at is checked.
    pub fn find(&self, name: &[u8]) -> Result<Option<Record<'a>>, &'static str> {
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low.midpoint(high);
            let (record, _) = self.record(middle)?;
            match record.name.cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(Some(record)),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize, length: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number:0length$}")).collect()
    }

    fn records(names: &[String]) -> Vec<Record<'_>> {
        names.iter().zip(2..).map(|(name, nid)| Record { name: name.as_bytes(), nid, kind: 1 }).collect()
    }

    fn decode(block: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
        Block::new(block)?.decode()
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        let names = names(100, 2);
        let data = encode(&records(&names));
        let block = Block::new(&data).unwrap();
        for record in records(&names) {
            assert_eq!(block.find(record.name), Ok(Some(record)));
        }
        for absent in [&b"0"[..], b"000", b"995", b"x", b" "] {
            assert_eq!(block.find(absent), Ok(None));
        }
        assert_eq!(block.first_name(), Ok(&b"00"[..]));
    }

    #[test]
    fn a_search_in_a_damaged_block_ends() {
        let names = names(3, 2);
        let good = encode(&records(&names));
        for at in 0..good.len() {
            for value in [0, 1, 35, 36, b'/', 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let found = Block::new(&bad).and_then(|block| block.find(b"02").map(|found| found.is_some()));
                assert!(
                    found.is_err()
                        || decode(&bad).is_err()
                        || found == Ok(decode(&bad).unwrap().iter().any(|r| r.name == b"02"))
                );
            }
        }
    }

    #[test]
    fn round_trip_at_the_edges_of_blocks() {
        for (count, length) in
            [(1, 1), (2, 255), (15, 255), (16, 255), (315, 1 + 2), (1000, 4), (273, 3), (274, 3)]
        {
            let names = names(count, length);
            let data = encode(&records(&names));
            assert_eq!(data.len() as u64, size(names.iter().map(String::len)), "{count} {length}");
            let decoded: Vec<Record> =
                data.chunks(BLOCK as usize).flat_map(|block| decode(block).unwrap()).collect();
            assert_eq!(decoded, records(&names), "{count} {length}");
        }
    }

    #[test]
    fn a_block_filled_to_the_last_byte() {
        // 256 records of 12 + 4 bytes are a block exactly: the last name ends with it, without a NUL.
        let names = names(256, 4);
        let data = encode(&records(&names));
        assert_eq!(data.len(), BLOCK as usize);
        assert_eq!(decode(&data).unwrap().len(), 256);
        assert_eq!(size([4; 257].into_iter()), BLOCK + 16);
    }

    #[test]
    fn damaged_blocks_are_refused() {
        let names = names(3, 2);
        let good = encode(&records(&names));
        assert!(decode(&[]).is_err());
        assert!(decode(&good[..9]).is_err());
        let damaged = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            decode(&bad).is_err()
        };
        assert!(damaged(8, 0), "no record");
        assert!(damaged(8, 35), "names inside a record");
        assert!(damaged(9, 0xff), "names outside the block");
        assert!(damaged(20, 0xff), "second name outside the block");
        assert!(damaged(20, 36), "empty first name");
        assert!(damaged(36, b'/'), "a slash");
        assert!(damaged(36, 0), "a NUL");
        assert!(damaged(36, b'9'), "out of order");
    }
}
