//! Extended attributes in the form that follows an inode.

use crate::error::Error;
use crate::format::Fields;
use crate::limits::MAX_XATTR_BYTES;
use crate::metadata::Xattrs;
use crate::path::quote;

/// The name spaces EROFS has a number for (`EROFS_XATTR_INDEX_*`). The ACLs have no suffix.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// `struct erofs_xattr_ibody_header`: a filter of names and the count of shared attributes, neither in use.
const HEADER_BYTES: usize = 12;
/// Attributes and their total are padded to this.
const ALIGN: usize = 4;

/// Whether an image can store an attribute of this name; an importer may drop the others.
pub fn is_storable(name: &[u8]) -> bool {
    split(name).is_some()
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let suffix = name.strip_prefix(*prefix)?;
        let fits = if prefix.ends_with(b".") { (1..=255).contains(&suffix.len()) } else { suffix.is_empty() };
        (fits && !suffix.contains(&0)).then_some((*index, suffix))
    })
}

/// The attributes as stored; nothing at all for none of them. `entry` is for the message.
pub(crate) fn encode(xattrs: &Xattrs, entry: &dyn Fn() -> String) -> Result<Box<[u8]>, Error> {
    if xattrs.is_empty() {
        return Ok(Box::default());
    }
    let mut out = vec![0; HEADER_BYTES];
    for (name, value) in xattrs {
        let (index, suffix) =
            split(name).ok_or_else(|| Error::XattrName { entry: entry(), name: quote(name) })?;
        let too_large = || Error::XattrsTooLarge { entry: entry() };
        let length = u16::try_from(value.len()).map_err(|_| too_large())?;
        out.extend([u8::try_from(suffix.len()).map_err(|_| too_large())?, index]);
        out.extend(length.to_le_bytes());
        out.extend(suffix);
        out.extend(value);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        if out.len() > MAX_XATTR_BYTES {
            return Err(too_large());
        }
    }
    Ok(out.into_boxed_slice())
}

/// `i_xattr_icount` for so many stored bytes: the header counts as one, each four bytes after it as one more.
pub(crate) fn count(stored_bytes: usize) -> u16 {
    match stored_bytes.checked_sub(HEADER_BYTES) {
        Some(rest) => (rest / ALIGN + 1).try_into().unwrap_or(u16::MAX), // at most MAX_XATTR_BYTES / 4
        None => 0,
    }
}

/// The inverse of [`count`].
pub(crate) fn stored_bytes(count: u16) -> usize {
    match usize::from(count).checked_sub(1) {
        Some(rest) => HEADER_BYTES + rest * ALIGN,
        None => 0,
    }
}

/// The inverse of [`encode`]. The error says which rule of the format the bytes break.
pub(crate) fn decode(stored: &[u8]) -> Result<Xattrs, &'static str> {
    const SHORT: &str = "an extended attribute ends after its area";
    let mut xattrs = Xattrs::new();
    let mut fields = Fields(stored);
    if stored.is_empty() {
        return Ok(xattrs);
    }
    let header: [u8; HEADER_BYTES] = fields.bytes().ok_or(SHORT)?;
    if header[4] != 0 {
        return Err("shared extended attributes are not in use here");
    }
    while !fields.0.is_empty() {
        let [name_length, index] = fields.bytes().ok_or(SHORT)?;
        let value_length = usize::from(fields.u16().ok_or(SHORT)?);
        let (_, prefix) = PREFIXES
            .iter()
            .find(|(known, _)| *known == index)
            .ok_or("an extended attribute's name space is unknown")?;
        let name = [*prefix, fields.take(name_length.into()).ok_or(SHORT)?].concat();
        if !is_storable(&name) {
            return Err("an extended attribute's name is empty, or an ACL has a name");
        }
        let value = fields.take(value_length).ok_or(SHORT)?.to_vec();
        let padding = (4 + usize::from(name_length) + value_length).next_multiple_of(ALIGN)
            - (4 + usize::from(name_length) + value_length);
        fields.skip(padding).ok_or(SHORT)?;
        if xattrs.insert(name, value).is_some() {
            return Err("an extended attribute is there twice");
        }
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(xattrs: &[(&[u8], &[u8])]) -> Result<Box<[u8]>, Error> {
        let xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        encode(&xattrs, &|| "/entry".to_owned())
    }

    #[test]
    fn round_trip_of_every_name_space() {
        let long = [b"user.".to_vec(), vec![b'n'; 255]].concat();
        let all: Vec<(&[u8], &[u8])> = vec![
            (b"user.a", b""),
            (&long, b"xyz"),
            (b"system.posix_acl_access", &[2, 0, 0, 0]),
            (b"system.posix_acl_default", &[2, 0, 0, 0]),
            (b"trusted.overlay.opaque", b"y"),
            (b"security.capability", &[1; 20]),
        ];
        let stored = encoded(&all).unwrap();
        assert_eq!(stored_bytes(count(stored.len())), stored.len());
        let decoded = decode(&stored).unwrap();
        assert_eq!(decoded.len(), all.len());
        for (name, value) in all {
            assert_eq!(decoded[name], value);
        }
    }

    #[test]
    fn none_take_no_space() {
        assert_eq!((encoded(&[]).unwrap().len(), count(0), stored_bytes(0)), (0, 0, 0));
        assert_eq!(decode(&[]), Ok(Xattrs::new()));
    }

    #[test]
    fn names_and_sizes_that_cannot_be_stored() {
        let long = [b"user.".to_vec(), vec![b'n'; 256]].concat();
        for name in [&b"user."[..], b"com.apple.quarantine", b"system.posix_acl_accessx", b"user.\0", &long] {
            assert!(!is_storable(name));
            assert!(matches!(encoded(&[(name, b"")]), Err(Error::XattrName { .. })), "{name:?}");
        }
        let value = vec![0; 32 << 10];
        assert!(encoded(&[(b"user.a", &value)]).is_ok());
        let error = encoded(&[(b"user.a", &value), (b"user.b", &value)]).unwrap_err();
        assert!(error.to_string().starts_with("/entry: "), "{error}");
    }

    #[test]
    fn cut_and_doubled_attributes_are_refused() {
        let stored = encoded(&[(b"user.name", b"value")]).unwrap();
        for length in 1..stored.len() {
            // Cut behind the header there is simply no attribute.
            assert_eq!(decode(&stored[..length]).is_ok(), length == HEADER_BYTES, "{length}");
        }
        let twice = [&stored[..], &stored[HEADER_BYTES..]].concat();
        assert!(decode(&twice).is_err());
    }
}
