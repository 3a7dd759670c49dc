//! Apps that come into a pod that runs.

use std::borrow::Cow;
use std::path::Path;

use pod::plan::{NewApp, Operation};
use relay::Carrier;

use crate::app::{App, Role};
use crate::error::{Error, errno};
use crate::operations::carry_out;
use crate::scope::Scope;
use crate::{AppSockets, HandedOver, cgroup, streams};

/// An app, and what is carried for it.
#[derive(Debug)]
pub struct Newcomer {
    /// It does not run yet.
    pub app: App<'static>,
    /// What goes to it.
    pub inputs: Vec<Carrier>,
    /// What comes from it.
    pub outputs: Vec<Carrier>,
}

/// Sets an app up in the pod's root, where others run; if that fails, nothing of it stays there.
pub fn take_in(new: NewApp, handed: HandedOver) -> Result<Newcomer, Error> {
    let scope = Scope::new(Path::new("/"))?;
    let set_up = carry_out(&new.setup, &scope, &handed.trees);
    let taken = set_up.and_then(|()| {
        let cgroups = match handed.cgroups {
            Some(cgroups) => cgroups,
            None => cgroup::make_late(&new.app)?,
        };
        Ok((cgroups, streams::prepare(handed.streams)?))
    });
    leave_mounts()?;
    match taken {
        Ok((cgroups, prepared)) => {
            let app = App::new(
                Cow::Owned(new.app),
                prepared.own,
                prepared.terminal,
                cgroups,
                AppSockets::default(),
                Role::Guest,
            );
            Ok(Newcomer { app, inputs: prepared.inputs, outputs: prepared.outputs })
        }
        Err(error) => {
            // What failed is told; that this may fail, too, says nothing more.
            let _ = cgroup::remove(&new.app).and(take_out(&new.teardown));
            Err(error)
        }
    }
}

/// Takes away what an app had in the pod's root: all of it, whatever fails; then the first failure.
pub fn take_out(teardown: &[Operation]) -> Result<(), Error> {
    let scope = Scope::new(Path::new("/"))?;
    let mut result = Ok(());
    for operation in teardown {
        result = result.and(carry_out(std::slice::from_ref(operation), &scope, &[]));
    }
    leave_mounts().and(result)
}

/// The working directory of the supervisor is not to keep a mount.
fn leave_mounts() -> Result<(), Error> {
    std::env::set_current_dir("/").map_err(|error| Error::path("enter", "/")(errno(&error)))
}
