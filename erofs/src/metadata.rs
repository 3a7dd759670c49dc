//! What an inode is and carries besides its data.

use std::collections::BTreeMap;

/// Extended attributes: full name (`user.comment`) to value, in the order of their names.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Owner, permissions, time and extended attributes of a file of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, set-id and sticky bits; other bits, such as the type that some archives put here, are ignored.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970, negative before.
    pub mtime_s: i64,
    /// Nanoseconds within the second, below 10^9.
    pub mtime_ns: u32,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Owned by root, from 1970, without extended attributes.
    pub fn root_owned(permissions: u16) -> Self {
        Self { permissions, uid: 0, gid: 0, mtime_s: 0, mtime_ns: 0, xattrs: Xattrs::new() }
    }
}

/// A file that is neither data, directory nor link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The numbers of a device need no words.
pub enum Special {
    /// A character device.
    Character { major: u32, minor: u32 },
    /// A block device.
    Block { major: u32, minor: u32 },
    /// A named pipe.
    Fifo,
    /// A socket, which nothing listens on.
    Socket,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special(Special),
}

impl Kind {
    /// The type bits of `st_mode` (inode(7)).
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Special(Special::Character { .. }) => 0o020_000,
            Self::Special(Special::Block { .. }) => 0o060_000,
            Self::Special(Special::Fifo) => 0o010_000,
            Self::Special(Special::Socket) => 0o140_000,
        }
    }

    /// The inverse of [`Kind::mode_bits`] and [`Kind::device_number`]; `None` if the bits name no type.
    pub(crate) fn from_mode(mode: u16, rdev: u32) -> Option<Self> {
        let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00));
        Some(match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::Special(Special::Character { major, minor }),
            0o060_000 => Self::Special(Special::Block { major, minor }),
            0o010_000 => Self::Special(Special::Fifo),
            0o140_000 => Self::Special(Special::Socket),
            _ => return None,
        })
    }

    /// The kernel's 32-bit form of a device number: 12 bits of major, 20 of minor. 0 for what is no device.
    pub(crate) fn device_number(self) -> u32 {
        match self {
            Self::Special(Special::Character { major, minor } | Special::Block { major, minor }) => {
                (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
            }
            _ => 0,
        }
    }

    /// The type of a directory entry, which is the same in EROFS as in other Linux file systems (`FT_*`).
    pub(crate) fn dirent_type(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Special(Special::Character { .. }) => 3,
            Self::Special(Special::Block { .. }) => 4,
            Self::Special(Special::Fifo) => 5,
            Self::Special(Special::Socket) => 6,
            Self::Symlink => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_mode_and_device_number() {
        let device = |major, minor| Kind::Special(Special::Block { major, minor });
        let kinds = [
            Kind::Regular,
            Kind::Directory,
            Kind::Symlink,
            Kind::Special(Special::Fifo),
            Kind::Special(Special::Socket),
            Kind::Special(Special::Character { major: 1, minor: 3 }),
            device(0xfff, 0xf_ffff),
            device(8, 0x100),
        ];
        for kind in kinds {
            assert_eq!(Kind::from_mode(kind.mode_bits() | 0o7777, kind.device_number()), Some(kind));
        }
        assert_eq!(Kind::from_mode(0o755, 0), None);
        assert_eq!(device(259, 65537).device_number(), 0x1001_0301);
    }
}
