//! The process that is to be confined.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::error::Error;
use crate::sys;

/// A child process. It is killed when this is dropped, and when its parent's thread ends.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    pid: i32,
    reaped: bool,
}

/// Forks a process into a PID, a mount, a network, an IPC and a UTS namespace of its own; `None` in that process, which is to
/// end by itself. The calling process must have no other thread.
pub fn fork() -> Result<Option<Child>, Error> {
    let namespaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let forked = sys::fork(namespaces).map_err(Error::step("fork a process into namespaces of its own"))?;
    Ok(forked.map(|(pid, pidfd)| Child { pidfd, pid, reaped: false }))
}

impl Child {
    /// Its number, as its parent sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits at most `timeout` for its end: how it has ended, or `None` if it has not.
    pub fn wait(&mut self, timeout: PollTimeout) -> nix::Result<Option<WaitStatus>> {
        let mut polled = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            result => result?,
        };
        let status = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        self.reaped = true;
        Ok(Some(status))
    }

    /// Ends it at once.
    pub fn kill(&self) {
        // One that has ended needs no signal.
        let _ended = sys::signal(self.pidfd.as_fd(), Signal::SIGKILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // It dies; it cannot be waited for only if somebody has done so.
            let _reaped = self.wait(PollTimeout::NONE);
        }
    }
}
