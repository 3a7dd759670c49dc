//! FUSE requests (Linux, include/uapi/linux/fuse.h) as a guest writes them, parsed into types. Every length is checked; names
//! are single names.

use std::ffi::CString;

use nix::errno::Errno;

/// The most bytes that one request reads or writes.
pub const MAX_IO_BYTES: u32 = 64 << 10;
/// `FUSE_ROOT_ID`.
pub const ROOT: u64 = 1;
/// The most inodes that one BATCH_FORGET can name: what fits into a request.
const MAX_FORGETS: u32 = 64 << 6;

/// `struct fuse_in_header`, without what says how the rest is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the request is called.
    pub opcode: u32,
    /// Its number, which the reply repeats.
    pub unique: u64,
    /// The inode that it is about.
    pub node: u64,
    /// The user that asks.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Changes of an inode's attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// An open file to be used.
    pub handle: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of the last access.
    pub accessed: Option<Time>,
    /// Time of the last change of the content.
    pub modified: Option<Time>,
    /// Whether set-user-ID and set-group-ID are lost.
    pub kill_suid: bool,
}

/// A point in time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The server's.
    Now,
    /// Seconds since 1970 and nanoseconds.
    At(i64, u32),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of fuse.h")]
pub enum Request<'a> {
    Init {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
    },
    Destroy,
    Lookup {
        name: CString,
    },
    /// Inodes, and how many look-ups of each are forgotten.
    Forget(Vec<(u64, u64)>),
    GetAttr {
        handle: Option<u64>,
    },
    SetAttr(Changes),
    ReadLink,
    Symlink {
        name: CString,
        target: CString,
    },
    MakeNode {
        name: CString,
        mode: u32,
    },
    MakeDirectory {
        name: CString,
        mode: u32,
    },
    Unlink {
        name: CString,
    },
    RemoveDirectory {
        name: CString,
    },
    Rename {
        name: CString,
        new_directory: u64,
        new_name: CString,
        flags: u32,
    },
    Link {
        node: u64,
        name: CString,
    },
    Open {
        flags: u32,
        kill_suid: bool,
    },
    Create {
        name: CString,
        flags: u32,
        mode: u32,
        kill_suid: bool,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        data: &'a [u8],
        kill_suid: bool,
    },
    StatFs,
    Release {
        handle: u64,
    },
    Sync {
        handle: u64,
        data_only: bool,
    },
    OpenDirectory,
    ReadDirectory {
        handle: u64,
        offset: u64,
        size: u32,
    },
    ReleaseDirectory {
        handle: u64,
    },
    SyncDirectory {
        handle: u64,
        data_only: bool,
    },
    SetXattr {
        name: CString,
        value: &'a [u8],
        flags: u32,
    },
    GetXattr {
        name: CString,
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: CString,
    },
    Allocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Seek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyRange {
        from: u64,
        from_offset: u64,
        to: u64,
        to_offset: u64,
        length: u64,
    },
    SyncFs,
    /// What this server does not do.
    Unknown,
}

impl Request<'_> {
    /// Whether FUSE has no reply to requests of this name.
    pub fn has_no_reply(opcode: u32) -> bool {
        matches!(opcode, FORGET | BATCH_FORGET | INTERRUPT)
    }
}

const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// `FATTR_*`.
mod attribute {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

const GETATTR_FH: u32 = 1;
const OPEN_KILL_SUIDGID: u32 = 1;
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
const FSYNC_DATA_ONLY: u32 = 1;

/// Parses the header, and returns it with what follows.
pub fn parse_header(message: &[u8]) -> Result<(Header, &[u8]), Errno> {
    let mut cursor = Cursor(message);
    let length = cursor.u32()?;
    if usize::try_from(length) != Ok(message.len()) {
        return Err(Errno::EINVAL);
    }
    let (opcode, unique, node) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
    let (uid, gid) = (cursor.u32()?, cursor.u32()?);
    let (_pid, _extensions) = (cursor.u32()?, cursor.u32()?);
    Ok((Header { opcode, unique, node, uid, gid }, cursor.0))
}

/// Parses what follows the header. What there is too much is ignored: younger kernels may add to what they say.
pub fn parse_body<'a>(header: &Header, body: &'a [u8]) -> Result<Request<'a>, Errno> {
    let mut cursor = Cursor(body);
    let c = &mut cursor;
    Ok(match header.opcode {
        1 => Request::Lookup { name: c.name()? },
        FORGET => Request::Forget(vec![(header.node, c.u64()?)]),
        3 => {
            let (flags, _, handle) = (c.u32()?, c.u32()?, c.u64()?);
            Request::GetAttr { handle: (flags & GETATTR_FH != 0).then_some(handle) }
        }
        4 => Request::SetAttr(changes(c)?),
        5 => Request::ReadLink,
        6 => Request::Symlink { name: c.name()?, target: c.string()? },
        8 => {
            let (mode, _device, _umask, _) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
            Request::MakeNode { mode, name: c.name()? }
        }
        9 => {
            let (mode, _umask) = (c.u32()?, c.u32()?);
            Request::MakeDirectory { mode, name: c.name()? }
        }
        10 => Request::Unlink { name: c.name()? },
        11 => Request::RemoveDirectory { name: c.name()? },
        12 => Request::Rename { new_directory: c.u64()?, flags: 0, name: c.name()?, new_name: c.name()? },
        13 => Request::Link { node: c.u64()?, name: c.name()? },
        14 => {
            let (flags, open_flags) = (c.u32()?, c.u32()?);
            Request::Open { flags, kill_suid: open_flags & OPEN_KILL_SUIDGID != 0 }
        }
        15 => {
            let (handle, offset, size) = c.read_in()?;
            Request::Read { handle, offset, size }
        }
        16 => {
            let (handle, offset, size) = (c.u64()?, c.u64()?, c.u32()?);
            let (write_flags, _owner, _flags, _) = (c.u32()?, c.u64()?, c.u32()?, c.u32()?);
            let data = c.bytes(size.min(MAX_IO_BYTES + 1))?;
            Request::Write { handle, offset, data, kill_suid: write_flags & WRITE_KILL_SUIDGID != 0 }
        }
        17 => Request::StatFs,
        18 => Request::Release { handle: c.u64()? },
        20 => {
            let (handle, flags) = (c.u64()?, c.u32()?);
            Request::Sync { handle, data_only: flags & FSYNC_DATA_ONLY != 0 }
        }
        21 => {
            let (size, flags) = (c.u32()?, c.u32()?);
            Request::SetXattr { flags, name: c.string()?, value: c.bytes(size)? }
        }
        22 => {
            let (size, _) = (c.u32()?, c.u32()?);
            Request::GetXattr { size, name: c.string()? }
        }
        23 => Request::ListXattr { size: c.u32()? },
        24 => Request::RemoveXattr { name: c.string()? },
        26 => {
            let (major, minor) = (c.u32()?, c.u32()?);
            let (max_readahead, flags) = (c.u32()?, c.u32()?);
            Request::Init { major, minor, max_readahead, flags }
        }
        27 => Request::OpenDirectory,
        28 => {
            let (handle, offset, size) = c.read_in()?;
            Request::ReadDirectory { handle, offset, size }
        }
        29 => Request::ReleaseDirectory { handle: c.u64()? },
        30 => {
            let (handle, flags) = (c.u64()?, c.u32()?);
            Request::SyncDirectory { handle, data_only: flags & FSYNC_DATA_ONLY != 0 }
        }
        35 => {
            let (flags, mode, _umask, open_flags) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
            let kill_suid = open_flags & OPEN_KILL_SUIDGID != 0;
            Request::Create { flags, mode, kill_suid, name: c.name()? }
        }
        38 => Request::Destroy,
        BATCH_FORGET => {
            let (count, _) = (c.u32()?, c.u32()?);
            if count > MAX_FORGETS {
                return Err(Errno::EINVAL);
            }
            let forgets = (0..count).map(|_| Ok((c.u64()?, c.u64()?)));
            Request::Forget(forgets.collect::<Result<_, Errno>>()?)
        }
        43 => {
            let (handle, offset, length) = (c.u64()?, c.u64()?, c.u64()?);
            Request::Allocate { handle, offset, length, mode: c.u32()? }
        }
        45 => {
            let (new_directory, flags, _) = (c.u64()?, c.u32()?, c.u32()?);
            Request::Rename { new_directory, flags, name: c.name()?, new_name: c.name()? }
        }
        46 => Request::Seek { handle: c.u64()?, offset: c.u64()?, whence: c.u32()? },
        47 => {
            let (from, from_offset, _node_out) = (c.u64()?, c.u64()?, c.u64()?);
            let (to, to_offset, length) = (c.u64()?, c.u64()?, c.u64()?);
            Request::CopyRange { from, from_offset, to, to_offset, length }
        }
        50 => Request::SyncFs,
        _ => Request::Unknown,
    })
}

/// `struct fuse_setattr_in`.
fn changes(c: &mut Cursor<'_>) -> Result<Changes, Errno> {
    let (valid, _, handle, size, _owner) = (c.u32()?, c.u32()?, c.u64()?, c.u64()?, c.u64()?);
    let (atime, mtime, _ctime) = (c.u64()?.cast_signed(), c.u64()?.cast_signed(), c.u64()?);
    let (atime_ns, mtime_ns, _ctime_ns) = (c.u32()?, c.u32()?, c.u32()?);
    let (mode, _, uid, gid) = (c.u32()?, c.u32()?, c.u32()?, c.u32()?);
    let is = |bit: u32| valid & bit != 0;
    let time = |set, now, seconds, nanoseconds| match (is(set), is(now)) {
        (_, true) => Some(Time::Now),
        (true, false) => Some(Time::At(seconds, nanoseconds)),
        (false, false) => None,
    };
    Ok(Changes {
        handle: is(attribute::FH).then_some(handle),
        mode: is(attribute::MODE).then_some(mode & 0o7777),
        uid: is(attribute::UID).then_some(uid),
        gid: is(attribute::GID).then_some(gid),
        size: is(attribute::SIZE).then_some(size),
        accessed: time(attribute::ATIME, attribute::ATIME_NOW, atime, atime_ns),
        modified: time(attribute::MTIME, attribute::MTIME_NOW, mtime, mtime_ns),
        kill_suid: is(attribute::KILL_SUIDGID),
    })
}

/// What is left of a message.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, count: u32) -> Result<&'a [u8], Errno> {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// `struct fuse_read_in`: the handle, the offset and the size.
    fn read_in(&mut self) -> Result<(u64, u64, u32), Errno> {
        let read = (self.u64()?, self.u64()?, self.u32()?);
        self.bytes(20)?;
        Ok(read)
    }

    /// A string up to its zero.
    fn string(&mut self) -> Result<CString, Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
        let (string, rest) = self.0.split_at_checked(end + 1).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        CString::from_vec_with_nul(string.to_vec()).map_err(|_| Errno::EINVAL)
    }

    /// The name of a directory's entry: nothing that leads anywhere else.
    fn name(&mut self) -> Result<CString, Errno> {
        let name = self.string()?;
        match name.as_bytes() {
            b"" | b"." | b".." => Err(Errno::EINVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::EINVAL),
            _ => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(opcode: u32) -> Header {
        Header { opcode, unique: 1, node: ROOT, uid: 0, gid: 0 }
    }

    #[test]
    fn names_lead_nowhere() {
        for name in ["\0", ".\0", "..\0", "a/b\0", "/etc\0", "../x\0", "unfinished", ""] {
            assert_eq!(parse_body(&header(1), name.as_bytes()), Err(Errno::EINVAL), "{name:?}");
        }
        let name = c"...".to_owned();
        assert_eq!(parse_body(&header(1), b"...\0"), Ok(Request::Lookup { name }));
        let mut rename = 5_u64.to_le_bytes().to_vec();
        rename.extend(b"old\0..\0");
        assert_eq!(parse_body(&header(12), &rename), Err(Errno::EINVAL));
    }

    #[test]
    fn lengths_are_those_of_the_message() {
        let mut message = [0; 44];
        message[0] = 44;
        assert_eq!(parse_header(&message).unwrap().1.len(), 4);
        for wrong in [43, 45, 255] {
            message[0] = wrong;
            assert_eq!(parse_header(&message), Err(Errno::EINVAL));
        }
        let mut write = [0; 45];
        (write[16], write[40]) = (6, 7);
        assert_eq!(parse_body(&header(16), &write), Err(Errno::EINVAL));
        write[16] = 5;
        assert!(matches!(parse_body(&header(16), &write), Ok(Request::Write { data: [7, 0, 0, 0, 0], .. })));
        let forgets = [u32::MAX.to_le_bytes(), [0; 4]].concat();
        assert_eq!(parse_body(&header(BATCH_FORGET), &forgets), Err(Errno::EINVAL));
    }

    proptest! {
        #[test]
        fn anything_is_a_request_or_an_error(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_header(&body);
            let _ = parse_body(&header(opcode), &body);
        }
    }
}
