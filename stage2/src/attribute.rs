//! What a security module of the kernel is told of this process (proc_pid_attr(5)).

use std::fs::File;
use std::io::{ErrorKind, Write};

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::errno;

/// Writes to the first of these files that there is.
pub fn write(files: &[&str], text: &[u8]) -> nix::Result<()> {
    let open = |path: &&str| File::options().write(true).open(path);
    let mut opened = files
        .iter()
        .map(open)
        .filter(|opened| !opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound));
    let mut file = opened.next().ok_or(Errno::ENOENT)?.map_err(|error| errno(&error))?;
    // A volume over /proc would take what is written and confine nothing (CVE-2019-16884).
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::ENOTSUP);
    }
    file.write_all(text).map_err(|error| errno(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernel_is_told() {
        let volume = tempfile::NamedTempFile::new().unwrap();
        let path = volume.path().to_str().unwrap();
        assert_eq!(write(&["/proc/self/attr/nowhere", path], b"x"), Err(Errno::ENOTSUP));
        assert_eq!(write(&["/proc/self/attr/nowhere"], b"x"), Err(Errno::ENOENT));
        assert_eq!(std::fs::read(path).unwrap(), b"");
    }
}
