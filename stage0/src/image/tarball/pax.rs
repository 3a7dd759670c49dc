//! PAX records: `LENGTH KEY=VALUE\n` (POSIX pax interchange format).

use std::collections::BTreeMap;

use erofs::Metadata;
use pack::is_kept;

use super::error::Error;

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Records by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

/// Parses the data of an extension header.
pub fn parse(mut data: &[u8]) -> Result<Records, Error> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or(Error::Pax("no length"))?;
        let length: usize = data
            .get(..space)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or(Error::Pax("a length that is not a number"))?;
        let (record, rest) = data.split_at_checked(length).ok_or(Error::Pax("a record past their end"))?;
        let record = record
            .get(space + 1..)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or(Error::Pax("a record without its newline"))?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(Error::Pax("a record without ="))?;
        let (key, value) = record.split_at(equals);
        records.insert(key.to_vec(), value.get(1..).unwrap_or_default().to_vec());
        data = rest;
    }
    Ok(Records(records))
}

impl Records {
    /// These records, with those of one entry over them; an empty value takes a record away.
    pub fn overridden_by(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.retain(|key, value| !value.is_empty() || key.starts_with(XATTR_PREFIX));
        self
    }

    pub fn path(&self) -> Option<Vec<u8>> {
        self.0.get(&b"path"[..]).cloned()
    }

    pub fn link_path(&self) -> Option<Vec<u8>> {
        self.0.get(&b"linkpath"[..]).cloned()
    }

    pub fn size(&self) -> Result<Option<u64>, String> {
        self.number("size")
    }

    /// Whether the entry's data is a map of holes and the bytes between them.
    pub fn is_sparse(&self) -> bool {
        self.0.keys().any(|key| key.starts_with(b"GNU.sparse."))
    }

    /// Replaces what the header could not say exactly.
    pub fn apply(&self, metadata: &mut Metadata) -> Result<(), String> {
        metadata.uid = self.number("uid")?.unwrap_or(metadata.uid);
        metadata.gid = self.number("gid")?.unwrap_or(metadata.gid);
        if let Some(time) = self.0.get(&b"mtime"[..]) {
            (metadata.mtime_s, metadata.mtime_ns) =
                time_of(time).ok_or_else(|| "its PAX mtime is not a time".to_owned())?;
        }
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX).filter(|name| is_kept(name)) {
                metadata.xattrs.insert(name.to_vec(), value.clone());
            }
        }
        Ok(())
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key.as_bytes()) else { return Ok(None) };
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.map(Some).ok_or_else(|| format!("its PAX {key} is not a number in range"))
    }
}

/// `[-]SECONDS[.FRACTION]`, rounded down to a nanosecond.
fn time_of(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if seconds.is_empty() || !seconds.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let parsed = parse(b"12 path=a/b\n11 size=77\n25 SCHILY.xattr.user.a=b\n").unwrap();
        assert_eq!(parsed.path(), Some(b"a/b".to_vec()));
        assert_eq!(parsed.size(), Ok(Some(77)));
        let mut metadata = Metadata::root_owned(0o644);
        parsed.apply(&mut metadata).unwrap();
        assert_eq!(metadata.xattrs.get(&b"user.a"[..]), Some(&b"b".to_vec()));
    }

    #[test]
    fn a_value_with_newlines_is_one_record() {
        let record = b"47 SCHILY.xattr.user.a=x\n22 linkpath=/etc/evil\n";
        let parsed = parse(record).unwrap();
        assert_eq!(parsed.link_path(), None, "a value must not forge a record");
        let mut metadata = Metadata::root_owned(0o644);
        parsed.apply(&mut metadata).unwrap();
        assert_eq!(metadata.xattrs.get(&b"user.a"[..]), Some(&b"x\n22 linkpath=/etc/evil".to_vec()));
    }

    #[test]
    fn an_entry_overrides_and_takes_away() {
        let global = parse(b"12 path=a/b\n11 size=77\n").unwrap();
        let merged = global.overridden_by(parse(b"8 path=\n11 size=78\n").unwrap());
        assert_eq!((merged.path(), merged.size()), (None, Ok(Some(78))));
    }

    #[test]
    fn malformed() {
        for bad in [&b"path=a\n"[..], b"99 path=a\n", b"9 path=a/b\n", b"7 path\n", b"0 x=y\n", b"-1 a=b\n"] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let negative = parse(b"11 size=-7\n").unwrap();
        assert!(negative.size().is_err());
    }

    #[test]
    fn times() {
        assert_eq!(time_of(b"1350244992.023960108"), Some((1_350_244_992, 23_960_108)));
        assert_eq!(time_of(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time_of(b"7"), Some((7, 0)));
        assert_eq!(time_of(b"7.0000000001"), Some((7, 0)));
        for bad in [&b""[..], b".5", b"1e9", b"--1", b"99999999999999999999"] {
            assert_eq!(time_of(bad), None);
        }
    }
}
