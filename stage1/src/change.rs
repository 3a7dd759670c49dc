//! The `app` entrypoint: has an app of the pod changed, and waits until it is.

use std::os::fd::AsFd;

use ::pod::abi::AppArguments;
use ::pod::session::{FromClient, ToClient};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Error;
use crate::error::Causes;
use crate::parent::Parent;

/// Changes an app of the pod in the working directory.
pub fn change(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let AppArguments { change } = AppArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let parent = Parent::call()?;
    parent.say(&FromClient::Change(change.clone()))?;
    loop {
        let mut set = [PollFd::new(parent.as_fd(), PollFlags::POLLIN)];
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(Error::System { action: "wait for the pod", source }),
        }
        match parent.hear()? {
            Some((ToClient::Exited(_), _)) => return Ok(()),
            Some((ToClient::Failed(causes), _)) => {
                let source = Causes::new(causes).ok_or(Error::PodGone)?;
                return Err(Error::NotChanged { app: change.app, action: change.action, source });
            }
            Some((ToClient::Connected | ToClient::Measured(_), _)) | None => {}
        }
    }
}
