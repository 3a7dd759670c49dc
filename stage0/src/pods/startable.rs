//! What a pod is that is about to run, be it new or prepared.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use net::resolv_conf;
use pod::abi::{HostsFrom, PodDirectory, ResolvFrom};
use pod::hosts;
use pod::users::UserRange;

use super::Error;
use crate::cli::Names;

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

    /// Leaves the stage1 what of the apps' names comes from here.
    fn note_names(&self, names: &Names, hostname: &str) -> Result<(), Error> {
        let layout = PodDirectory::new(self.path());
        let resolv = (names.from.resolv == ResolvFrom::Stage0).then(|| resolv_conf::text(&names.dns));
        let hosts = (names.from.hosts == HostsFrom::Stage0).then(|| hosts::text(hostname, &names.hosts));
        for (path, text) in [(layout.resolv_conf(), resolv), (layout.hosts(), hosts)] {
            let Some(text) = text else { continue };
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(&path, text)).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}
