//! The `gc` entrypoint. Mounts have gone with the pod's processes; a pod that has some yet stays.

use crate::error::Error;
use crate::members::{members, uuid_of};

/// Cleans up after the pod in the working directory.
pub fn gc(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    still_run(uuid_of(&stage1::pod::here()?)?)?;
    Ok(stage1::gc::gc(arguments)?)
}

/// An error if there are processes of the pod.
pub fn still_run(uuid: uuid::Uuid) -> Result<(), Error> {
    let left: Vec<String> = members(uuid)?.iter().map(|member| member.pid.to_string()).collect();
    match left.is_empty() {
        true => Ok(()),
        false => Err(Error::StillRun { uuid, processes: left.join(", ") }),
    }
}
