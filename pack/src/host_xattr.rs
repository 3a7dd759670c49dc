//! Extended attributes of files of the host, read: nix has no calls for them.

use std::ffi::CStr;
use std::io;

/// What the kernel lets a list of names, and a value, have at most (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_BYTES: usize = 1 << 16;

/// The names of what a path names, also if that is a symbolic link. A file system without attributes has none.
pub fn names(path: &CStr) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0u8; MAX_BYTES];
    // SAFETY: the path ends with NUL, and the buffer is valid for its length.
    let length = unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    match usize::try_from(length) {
        Ok(length) => {
            let names = buffer.get(..length).unwrap_or_default().split(|byte| *byte == 0);
            Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
        }
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            error => Err(error),
        },
    }
}

/// The value of one of them.
pub fn value(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; MAX_BYTES];
    // SAFETY: both strings end with NUL, and the buffer is valid for its length.
    let length =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    buffer.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(buffer)
}
