//! Users and groups by name, number or path, resolved inside the app's root (appc spec, "Image Manifest Schema").

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::error::{Error, errno};

/// How much of a user database is read: the image may hold anything.
const MAX_DATABASE_BYTES: u64 = 4 << 20;

/// Who an app's process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// IDs of further groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Event handlers run as root.
    pub const ROOT: Self = Self { uid: 0, gid: 0, groups: Vec::new() };

    /// Looks a user and a group up in the present root.
    pub fn resolve(user: &str, group: &str, groups: &[u32]) -> Result<Self, Error> {
        Ok(Self {
            uid: resolve(user, "user", "/etc/passwd", |stat| stat.st_uid)?,
            gid: resolve(group, "group", "/etc/group", |stat| stat.st_gid)?,
            groups: groups.to_vec(),
        })
    }
}

/// In upstream's order: root by its name whatever the image says, a number, the owner of a path, a name.
fn resolve(text: &str, what: &str, database: &str, owner: fn(&FileStat) -> u32) -> Result<u32, Error> {
    if text == "root" {
        return Ok(0);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The highest number means "no change" to the kernel.
        return match text.parse() {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(Error::Impossible(format!("{what} {text} is not a number of a {what}"))),
        };
    }
    if text.starts_with('/') {
        let place = place(Path::new(text), OFlag::O_PATH);
        return match place.and_then(fstat) {
            Ok(stat) => Ok(owner(&stat)),
            Err(errno) => Err(Error::path(format!("find the {what} that owns"), text)(errno)),
        };
    }
    let missing = || {
        Error::Impossible(format!("{what} \"{text}\" is not in the image's {database} (numbers always work)"))
    };
    match read_database(Path::new(database)) {
        Ok(file) => find_id(BufReader::new(file), text)
            .map_err(|error| Error::path("read", database)(errno(&error)))?
            .ok_or_else(missing),
        Err(Errno::ENOENT) => Err(missing()),
        Err(errno) => Err(Error::path("read", database)(errno)),
    }
}

/// A database of the image: a regular file, for reading anything else might never end.
fn read_database(path: &Path) -> nix::Result<impl Read + use<>> {
    let fd = place(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
    match SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok(File::from(fd).take(MAX_DATABASE_BYTES)),
        _ => Err(Errno::EINVAL),
    }
}

fn place(path: &Path, flags: OFlag) -> nix::Result<std::os::fd::OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// The third field of the line whose first is `name`: both /etc/passwd and /etc/group have the ID there.
fn find_id(mut database: impl BufRead, name: &str) -> std::io::Result<Option<u32>> {
    let mut line = Vec::new();
    while database.read_until(b'\n', &mut line)? > 0 {
        let mut fields = line.trim_ascii_end().split(|byte| *byte == b':');
        if fields.next() == Some(name.as_bytes()) {
            let id = fields.nth(1).and_then(|id| str::from_utf8(id).ok()?.parse().ok());
            return Ok(id.filter(|id| *id != u32::MAX));
        }
        line.clear();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::causes;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# note\n\nbad\nweb:x:33:34::/:/bin/false\nodd:x:y:1\n\
        max:x:4294967295:1\nlast:x:7:8";

    #[test]
    fn databases() {
        let id = |name| find_id(PASSWD, name).unwrap();
        assert_eq!((id("root"), id("web"), id("last")), (Some(0), Some(33), Some(7)));
        assert_eq!((id("nobody"), id("odd"), id("bad"), id("max")), (None, None, None, None));
    }

    #[test]
    fn names_numbers_and_paths() {
        let user = |text| resolve(text, "user", "/nowhere/passwd", |stat| stat.st_uid);
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(user("1000").unwrap(), 1000);
        assert_eq!(user("/").unwrap(), 0);
        assert!(user("4294967295").is_err());
        assert!(causes(&user("/nowhere").unwrap_err()).concat().contains("/nowhere"));
        assert!(
            user("web").unwrap_err().to_string().contains("\"web\" is not in the image's /nowhere/passwd")
        );
    }

    #[test]
    fn a_database_that_is_no_file_is_refused() {
        assert_eq!(read_database(Path::new("/dev/null")).map(drop), Err(Errno::EINVAL));
        assert_eq!(read_database(Path::new("/proc/self/root/etc/passwd")).map(drop), Err(Errno::ELOOP));
    }
}
