//! The `app` entrypoint: has an app of the pod changed, and waits until it is.

use ::pod::abi::AppArguments;
use ::pod::session::{Action, Change, FromClient, ToClient};

use crate::Error;
use crate::error::Causes;
use crate::parent::Parent;

/// Changes an app of the pod in the working directory.
pub fn change(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let AppArguments { change } = AppArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    if change.action == Action::Remove {
        // It may take its time to end; the pod's other apps may come and go meanwhile.
        make(&Change { app: change.app.clone(), action: Action::Stop })?;
    }
    make(&change)
}

fn make(change: &Change) -> Result<(), Error> {
    let parent = Parent::call()?;
    parent.say(&FromClient::Change(change.clone()))?;
    loop {
        match parent.await_answer(None)? {
            ToClient::Exited(_) => return Ok(()),
            ToClient::Failed(causes) => {
                let source = Causes::new(causes).ok_or(Error::PodGone)?;
                return Err(Error::NotChanged { app: change.app.clone(), action: change.action, source });
            }
            ToClient::Connected | ToClient::Measured(_) => {}
        }
    }
}
