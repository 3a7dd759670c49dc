//! Names inside an image, parsed once where they come in.

use std::fmt;

use thiserror::Error;

/// The longest name of one directory entry, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// The longest path, in bytes (`PATH_MAX` without its NUL).
pub const MAX_PATH_BYTES: usize = 4095;

/// A path below the image's root: components without `.`, `..`, NUL and empty names. The root itself has no component.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

/// Why a name is no path inside an image. The message quotes the name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// No byte at all.
    #[error("an entry has an empty name")]
    Empty,
    /// A leading slash, which would mean the host's root to other tools.
    #[error("{0:?}: the name is absolute; names in an archive are relative to the image's root")]
    Absolute(String),
    /// A `..` component.
    #[error("{0:?}: the name has a \"..\" component and could leave the image's root")]
    ParentComponent(String),
    /// A NUL byte.
    #[error("{0:?}: the name has a NUL byte")]
    Nul(String),
    /// A component longer than [`MAX_NAME_BYTES`].
    #[error("{0:?}: a component of the name is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong(String),
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("{0:?}...: the name is longer than {MAX_PATH_BYTES} bytes")]
    PathTooLong(String),
}

impl EntryPath {
    /// The image's root directory.
    pub const ROOT: Self = Self(Vec::new());

    /// Parses the name of an archive member. `./etc/passwd`, `etc//passwd` and `etc/` are as usual in archives: `.` and
    /// empty components are dropped, so `./` is the root. Absolute names and `..` are refused.
    pub fn parse(name: &[u8]) -> Result<Self, PathError> {
        if name.first() == Some(&b'/') {
            return Err(PathError::Absolute(quote(name)));
        }
        Self::in_root(name)
    }

    /// Parses a path that is understood to begin at the image's root, whether or not it has a leading slash: the
    /// `/etc/passwd` to look up, the target of a hard link. Otherwise as [`EntryPath::parse`].
    pub fn in_root(name: &[u8]) -> Result<Self, PathError> {
        if name.is_empty() {
            return Err(PathError::Empty);
        }
        if name.contains(&0) {
            return Err(PathError::Nul(quote(name)));
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::ParentComponent(quote(name))),
                _ if component.len() > MAX_NAME_BYTES => return Err(PathError::NameTooLong(quote(name))),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::PathTooLong(quote(name.get(..64).unwrap_or(name))));
        }
        Ok(Self(path))
    }

    /// Whether this is the image's root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components joined by single slashes; nothing for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The path without its last component, and that component; `None` for the root.
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((self.0.get(..slash)?, self.0.get(slash + 1..)?)),
            None => Some((b"", &self.0)),
        }
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", quote(&self.0))
    }
}

/// Bytes of a name as text for messages: names are hostile, so control characters never reach a terminal.
pub(crate) fn quote(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &[u8]) -> Vec<u8> {
        EntryPath::parse(name).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn members_as_archives_write_them() {
        assert_eq!(parsed(b"./etc/passwd"), b"etc/passwd");
        assert_eq!(parsed(b"etc//init.d/./x/"), b"etc/init.d/x");
        assert!(EntryPath::parse(b"./").unwrap().is_root());
        assert!(EntryPath::parse(b".").unwrap().is_root());
        assert_eq!(parsed(b"..a/b.."), b"..a/b..");
    }

    #[test]
    fn names_that_leave_the_root_or_cannot_be_stored_are_refused() {
        assert_eq!(EntryPath::parse(b""), Err(PathError::Empty));
        assert_eq!(EntryPath::parse(b"/etc"), Err(PathError::Absolute("/etc".into())));
        assert_eq!(EntryPath::parse(b"a/../b"), Err(PathError::ParentComponent("a/../b".into())));
        assert_eq!(EntryPath::in_root(b"/.."), Err(PathError::ParentComponent("/..".into())));
        assert!(matches!(EntryPath::parse(b"a\0b"), Err(PathError::Nul(_))));
        assert!(EntryPath::parse(&[b'n'; 255]).is_ok());
        assert!(matches!(EntryPath::parse(&[b'n'; 256]), Err(PathError::NameTooLong(_))));
        let long = [b"a/".repeat(2047), b"b".to_vec()].concat();
        assert_eq!(parsed(&long).len(), MAX_PATH_BYTES);
        assert!(matches!(EntryPath::parse(&b"a/".repeat(2049)), Err(PathError::PathTooLong(_))));
    }

    #[test]
    fn a_lookup_may_begin_with_a_slash() {
        assert_eq!(EntryPath::in_root(b"/etc/passwd").unwrap().as_bytes(), b"etc/passwd");
        assert!(EntryPath::in_root(b"/").unwrap().is_root());
    }

    #[test]
    fn components_and_parent() {
        let path = EntryPath::parse(b"usr/lib/x").unwrap();
        assert_eq!(path.components().collect::<Vec<_>>(), [&b"usr"[..], b"lib", b"x"]);
        assert_eq!(path.split_last(), Some((&b"usr/lib"[..], &b"x"[..])));
        assert_eq!(EntryPath::parse(b"usr").unwrap().split_last(), Some((&b""[..], &b"usr"[..])));
        assert_eq!(EntryPath::ROOT.split_last(), None);
        assert_eq!(EntryPath::ROOT.components().count(), 0);
    }

    #[test]
    fn messages_carry_no_control_characters() {
        assert!(!PathError::Absolute(quote(b"/\x1b[2J")).to_string().contains('\x1b'));
    }
}
