//! The caller's listening sockets, which stage0 has passed on for the apps.

use std::os::fd::OwnedFd;

use ::pod::abi::ENV_SOCKETS;
use ::pod::sockets::{FIRST, Passed};

use crate::Error;
use crate::lock::inherited;

/// The sockets of each app with their names, in the manifest's order; nothing, if there are none. Must be called once, before
/// other descriptors are opened.
pub fn take() -> Result<Vec<Vec<(OwnedFd, String)>>, Error> {
    let Ok(json) = std::env::var(ENV_SOCKETS) else { return Ok(Vec::new()) };
    let apps: Vec<Vec<Passed>> = serde_json::from_str(&json)
        .map_err(|error| Error::Sockets { why: format!("{ENV_SOCKETS} is \"{json}\" ({error})") })?;
    apps.into_iter().map(|app| app.into_iter().map(take_one).collect()).collect()
}

fn take_one(Passed { descriptor, name }: Passed) -> Result<(OwnedFd, String), Error> {
    let taken = if descriptor < FIRST { Err(nix::errno::Errno::EBADF) } else { inherited(descriptor) };
    let why = |errno| Error::Sockets {
        why: format!("descriptor {descriptor} of \"{name}\" is not open ({errno})"),
    };
    Ok((taken.map_err(why)?, name))
}
