//! Passing sockets to a program as systemd does (sd_listen_fds(3)).

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::c_int;

/// Far above the number of any descriptor that a test has.
const ASIDE: c_int = 500;

/// `command`, started with these descriptors from 3 on, and with LISTEN_PID; LISTEN_FDS is set to their number.
pub fn pass_sockets(command: &Command, descriptors: Vec<OwnedFd>) -> Command {
    let mut passing = Command::new("sh");
    passing
        .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    passing.env("LISTEN_FDS", descriptors.len().to_string());
    let place = move || {
        // First aside, since one may have a number that another is to get.
        for (index, descriptor) in (0..).zip(&descriptors) {
            duplicate(descriptor.as_raw_fd(), ASIDE + index)?;
        }
        let count = descriptors.len() as c_int;
        (0..count).try_for_each(|index| duplicate(ASIDE + index, 3 + index))?;
        for number in ASIDE..ASIDE + count {
            // SAFETY: no memory is involved.
            unsafe { libc::close(number) };
        }
        Ok(())
    };
    // SAFETY: between fork and execution it makes system calls only, and takes no memory.
    unsafe { passing.pre_exec(place) };
    passing
}

fn duplicate(from: c_int, to: c_int) -> Result<()> {
    // SAFETY: no memory is involved.
    if unsafe { libc::dup2(from, to) } < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
