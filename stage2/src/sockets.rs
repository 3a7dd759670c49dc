//! The listening sockets that an app is started with (sd_listen_fds(3)).

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;
use pod::plan::Process;
use pod::sockets::{FIRST, environment};

use crate::error::Error;
use crate::sys;

/// The sockets of an app, which each of its starts gets.
#[derive(Debug, Default)]
pub struct AppSockets {
    /// Each with its name, in the app's order.
    pub sockets: Vec<(OwnedFd, String)>,
}

impl AppSockets {
    /// The first descriptor that none of the app's sockets will be.
    pub(crate) fn end(&self) -> i32 {
        i32::try_from(self.sockets.len()).map_or(i32::MAX, |count| FIRST.saturating_add(count))
    }

    /// Gives them to the program that this process executes next, and that program's environment; what has their numbers here
    /// is closed. Nothing of it reaches event handlers or sessions, which are other processes.
    pub(crate) fn give<'a>(&self, process: &'a Process) -> Result<Cow<'a, Process>, Error> {
        if self.sockets.is_empty() {
            return Ok(Cow::Borrowed(process));
        }
        let failed = || Error::system("give the app its listening sockets");
        // One may have the number that another is to get.
        let copies = self.sockets.iter().map(|(socket, _)| sys::duplicate_from(socket.as_fd(), self.end()));
        let copies: Vec<OwnedFd> = copies.collect::<Result<_, _>>().map_err(failed())?;
        for (number, copy) in (FIRST..).zip(&copies) {
            sys::give_number(copy.as_fd(), number).map_err(failed())?;
        }
        let names: Vec<String> = self.sockets.iter().map(|(_, name)| name.clone()).collect();
        let pid = Pid::this().as_raw().unsigned_abs();
        let environment = environment(&process.environment, &names, pid);
        Ok(Cow::Owned(Process { environment, ..process.clone() }))
    }
}
