//! Mounts below a directory, in the namespace of this process. Our own stage1s leave none there; others may.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// The mount points below a directory, in the order in which they were mounted.
pub fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = fs::canonicalize(directory)?;
    let mounts = fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&mounts).filter(|path| path.starts_with(&directory)).collect())
}

/// Detaches all of them.
pub fn detach_below(directory: &Path) -> io::Result<()> {
    for path in below(directory)?.iter().rev() {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Somebody else has done it, or it went with the one below.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Those of proc_pid_mountinfo(5).
fn mount_points(mountinfo: &[u8]) -> impl Iterator<Item = PathBuf> {
    const FIELD: usize = 4;
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(FIELD).map(unquoted))
}

/// Space, tab, line feed and backslash stand there as `\` and three octal digits.
fn unquoted(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_anything_in_them() {
        let text =
            b"1 2 0:1 / /a rw - tmpfs t rw\n2 1 0:2 /x /a/with\\040space\\134and\\0 rw - ext4 /dev/x rw\n\n";
        let found: Vec<PathBuf> = mount_points(text).collect();
        assert_eq!(found, [PathBuf::from("/a"), PathBuf::from("/a/with space\\and\\0")]);
    }

    #[test]
    fn nothing_is_mounted_in_a_new_directory() {
        let home = tempfile::tempdir().unwrap();
        assert!(below(home.path()).unwrap().is_empty());
        detach_below(home.path()).unwrap();
        assert!(below(Path::new("/")).unwrap().iter().any(|path| path.starts_with("/proc")));
    }
}
