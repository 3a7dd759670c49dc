//! Files that are written into an app's root.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::Error;
use crate::scope::Scope;

const ACTION: &str = "write";

/// Writes a file that everybody may read. Whatever has its name is taken away first, so that no link of the image is
/// followed, or stays if it is not to be replaced.
pub fn write(scope: &Scope, path: &Path, content: &str, replace: bool) -> Result<(), Error> {
    if !replace && scope.find(path, ACTION).is_ok() {
        return Ok(());
    }
    let (directory, name) = scope.find_parent(path, ACTION)?;
    match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(Error::path(ACTION, path)(errno)),
    }
    let mode = Mode::from_bits_truncate(0o644);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&directory, name, flags, mode).map_err(Error::path(ACTION, path))?;
    fchmod(&file, mode).map_err(Error::path(ACTION, path))?;
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
    File::from(file).write_all(content.as_bytes()).map_err(|error| Error::path(ACTION, path)(errno(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn no_link_is_followed() {
        let (outside, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = outside.path().join("kept");
        fs::write(&kept, "old").unwrap();
        symlink(&kept, root.path().join("resolv.conf")).unwrap();
        let path = root.path().join("resolv.conf");
        let scope = Scope::new(root.path()).unwrap();
        for content in ["nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n"] {
            write(&scope, &path, content, true).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        write(&scope, &path, "other", false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.2\n");
        let new = root.path().join("new");
        write(&scope, &new, "new", false).unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
    }
}
