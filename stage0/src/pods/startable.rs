//! What a pod is that is about to run, be it new or prepared.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use pod::abi::PodDirectory;
use pod::users::UserRange;

use super::Error;

/// A pod that this process has for itself until it becomes its stage1; dropped before that, it is what it was before.
pub trait Startable {
    /// Where it is now.
    fn path(&self) -> PathBuf;

    /// The lock, which whoever runs the pod holds.
    fn lock(&self) -> BorrowedFd<'_>;

    /// The last step: from now on the pod lives as long as its lock is held.
    fn start(&mut self) -> Result<(), Error>;

    /// Notes which users the pod has for itself.
    fn note_users(&self, users: UserRange) -> Result<(), Error> {
        let path = PodDirectory::new(self.path()).private_users();
        fs::write(&path, users.to_string()).map_err(Error::io("write", &path))
    }
}
