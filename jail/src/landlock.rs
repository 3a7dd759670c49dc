//! Landlock (landlock(7)): a second lock on the file system, should an empty root not be enough.

use nix::errno::Errno;

use crate::sys;

/// How many rights on files each version of the interface knows, from the first on.
const RIGHTS_BY_VERSION: [u32; 5] = [13, 14, 15, 15, 16];

/// Gives up every right that the kernel's Landlock knows. Not every kernel has it, and it is the second of two locks: without
/// it, the empty root and the filters of system calls hold alone.
pub fn restrict() -> nix::Result<()> {
    match sys::landlock_version() {
        Ok(version) => sys::landlock_restrict(rights(version)),
        // Not built in, or not switched on.
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
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
}
