//! Landlock (landlock(7)): what a process takes from itself, for good. Here it is a second lock on the file system, should an
//! empty root not be enough; others have rules.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::sys;

/// How many rights on files each version of the interface knows, from the first on.
const RIGHTS_BY_VERSION: [u32; 5] = [13, 14, 15, 15, 16];

/// Rights on files and directories (linux/landlock.h).
pub mod files {
    /// Execute a file.
    pub const EXECUTE: u64 = 1 << 0;
    /// Open a file to write.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// Open a file to read.
    pub const READ_FILE: u64 = 1 << 2;
    /// List a directory.
    pub const READ_DIR: u64 = 1 << 3;
    /// Everything that changes what is in a directory: REMOVE_DIR to MAKE_SYM, and REFER of version 2.
    pub const CHANGE_DIR: u64 = 0x3ff << 4;
    /// Truncate a file; version 3.
    pub const TRUNCATE: u64 = 1 << 14;
    /// Those that a rule for a file can have.
    pub const OF_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;
}

/// Rights on TCP ports; version 4.
pub mod tcp {
    /// Bind a socket.
    pub const BIND: u64 = 1 << 0;
    /// Connect one.
    pub const CONNECT: u64 = 1 << 1;
}

/// What can be kept within the restricted processes; version 6.
pub mod scopes {
    /// Connecting abstract Unix sockets.
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
    /// Sending signals.
    pub const SIGNAL: u64 = 1 << 1;
}

/// What a ruleset forbids but for its rules (`landlock_ruleset_attr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Of [`files`].
    pub files: u64,
    /// Of [`tcp`].
    pub tcp: u64,
    /// Of [`scopes`], which have no rules.
    pub scopes: u64,
}

/// Rules that are being made.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// Without a rule: all that it handles is forbidden. `EINVAL` or `E2BIG`, if the kernel does not know some of it.
    pub fn new(handled: &Handled) -> nix::Result<Self> {
        sys::landlock_create_ruleset(handled).map(Self)
    }

    /// Gives back rights on a file, or on a directory and all below it.
    pub fn allow_beneath(&self, place: BorrowedFd<'_>, rights: u64) -> nix::Result<()> {
        sys::landlock_add_path(&self.0, place, rights)
    }

    /// Gives back rights on a port.
    pub fn allow_port(&self, port: u16, rights: u64) -> nix::Result<()> {
        sys::landlock_add_port(&self.0, port, rights)
    }

    /// Puts the calling thread under it, and what it starts. Takes CAP_SYS_ADMIN or no_new_privs, and no memory.
    pub fn restrict(&self) -> nix::Result<()> {
        sys::landlock_restrict(&self.0)
    }
}

/// The version of the interface that the kernel has; `None`, if it has no Landlock, or has it switched off.
pub fn version() -> nix::Result<Option<u32>> {
    match sys::landlock_version() {
        Ok(version) => Ok(Some(version)),
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Gives up every right on files that the kernel's Landlock knows. Not every kernel has it, and it is the second of two locks:
/// without it, the empty root and the filters of system calls hold alone.
pub(crate) fn restrict() -> nix::Result<()> {
    match version()? {
        Some(version) => Ruleset::new(&Handled { files: rights(version), ..Handled::default() })?.restrict(),
        None => Ok(()),
    }
}

/// The rights as bits.
fn rights(version: u32) -> u64 {
    let index = (version.saturating_sub(1)) as usize;
    let count = RIGHTS_BY_VERSION.get(index).or(RIGHTS_BY_VERSION.last());
    count.map_or(0, |count| (1 << count) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_versions_have_the_rights_of_the_last_known() {
        assert_eq!(rights(1), 0x1fff);
        assert_eq!(rights(3), 0x7fff);
        assert_eq!(rights(9), 0xffff);
    }

    #[test]
    fn all_rights_of_version_3_have_names() {
        assert_eq!(files::OF_FILE | files::READ_DIR | files::CHANGE_DIR, rights(3));
    }
}
