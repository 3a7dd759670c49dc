//! The way into the jail.

use std::os::fd::RawFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{chdir, pivot_root, setsid};

use crate::error::Error;
use crate::{landlock, sys};

/// Above every number that distributions or their tools give to users, containers and their subordinates, and below 2^31
/// with room for each PID (systemd's "UIDS-GIDS": 0x70000000 to 0x7FFFFFFF are nobody's).
const FIRST_USER: u32 = 0x7000_0000;

/// Where a process is to be shut in.
#[derive(Debug)]
pub struct Jail<'a> {
    /// A directory to mount the empty root on, where only the process itself sees it.
    pub mount_point: &'a Path,
    /// The user and group that it becomes; see [`Jail::user_of`].
    pub user: u32,
    /// The only descriptors that stay open.
    pub descriptors: &'a [RawFd],
    /// What it may use at most.
    pub limits: &'a [(Resource, u64)],
}

impl Jail<'_> {
    /// A user that no other process is while the process `pid` runs: no list is kept, and nothing is left to clean up.
    pub fn user_of(pid: i32) -> u32 {
        FIRST_USER.saturating_add(pid.unsigned_abs())
    }

    /// Shuts the calling process in, which [`crate::fork`] has made and which has one thread. It keeps no capability and can
    /// gain none, it dies with its parent, and it finds no file. After an error it is somewhere on the way, and must end.
    pub fn enter(&self) -> Result<(), Error> {
        // Away from the caller's terminal and its signals.
        setsid().map_err(Error::step("leave the caller's session"))?;
        self.close_the_rest()?;
        self.empty_root()?;
        for (resource, limit) in self.limits {
            setrlimit(*resource, *limit, *limit).map_err(Error::step("limit what the process may use"))?;
        }
        sys::drop_bounding_set().map_err(Error::step("drop the capabilities that could be gained"))?;
        self.become_user()?;
        sys::drop_capabilities().map_err(Error::step("drop all capabilities"))?;
        prctl::set_no_new_privs().map_err(Error::step("give up new privileges"))?;
        // Both are undone by a change of the user (prctl(2)), so they come after it.
        prctl::set_dumpable(false).map_err(Error::step("forbid looking into this process"))?;
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(Error::step("end with the parent"))?;
        landlock::restrict().map_err(Error::step("give up all files by Landlock"))
    }

    fn close_the_rest(&self) -> Result<(), Error> {
        let mut keep: Vec<u32> = self.descriptors.iter().map(|fd| fd.unsigned_abs()).collect();
        keep.sort_unstable();
        let mut next = 0;
        for fd in keep {
            sys::close_range(next, fd).map_err(Error::step("close what is not needed"))?;
            next = fd.saturating_add(1);
        }
        sys::close_range(next, u32::MAX).map_err(Error::step("close what is not needed"))
    }

    /// An empty, read-only root without a way back: what was mounted is let go of.
    fn empty_root(&self) -> Result<(), Error> {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(Error::step("keep mounts to this process"))?;
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let failed = |source| Error::Root { path: self.mount_point.to_owned(), source };
        mount(Some("none"), self.mount_point, Some("tmpfs"), flags, Some("mode=0000,size=4k"))
            .map_err(failed)?;
        chdir(self.mount_point).map_err(failed)?;
        // The old root ends on top of the new one (pivot_root(2)), which is also the working directory.
        pivot_root(".", ".").map_err(failed)?;
        umount2(".", MntFlags::MNT_DETACH).map_err(failed)?;
        chdir("/").map_err(failed)
    }

    fn become_user(&self) -> Result<(), Error> {
        let failed = |source| Error::User { user: self.user, source };
        sys::become_user(self.user).map_err(failed)
    }
}
