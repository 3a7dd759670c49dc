//! The pod's lock, which stage0 took and handed over: the pod runs exactly as long as somebody holds it.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use pod_abi::{ENV_LOCK_FD, ENV_USERS_LOCK_FD};

use crate::Error;
use ::pod::abi as pod_abi;

/// Takes the lock's descriptor from the environment; no program that is started from here on inherits it. Must be
/// called once, before other descriptors are opened; keep the result until the pod has ended.
pub fn take() -> Result<OwnedFd, Error> {
    take_by(ENV_LOCK_FD)?.ok_or_else(|| Error::Lock { why: format!("{ENV_LOCK_FD} is not set") })
}

/// The same of the lock on the pod's users, if it has some of its own: no other pod has them as long as this is open.
pub fn take_users() -> Result<Option<OwnedFd>, Error> {
    take_by(ENV_USERS_LOCK_FD)
}

fn take_by(variable: &str) -> Result<Option<OwnedFd>, Error> {
    let lock = |why: String| Error::Lock { why };
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number: RawFd = match text.parse() {
        Ok(number) if number > 2 => number,
        _ => return Err(lock(format!("{variable} is \"{text}\""))),
    };
    inherited(number).map(Some).map_err(|errno| lock(format!("descriptor {number} is not open ({errno})")))
}

/// Takes over a descriptor that this process has inherited by the stage1 interface, once; no other program inherits it.
pub(crate) fn inherited(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: the descriptor is only asked about; a number that is not open is an error of fcntl.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, as fcntl has just shown, and by the stage1 interface it is ours; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
