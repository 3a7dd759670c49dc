//! The `gc` entrypoint: removes what a pod that no longer runs has left outside its directory.

use std::process::ExitCode;

use crate::error::Error;

/// Nothing is left: a machine is this program's process and the files in the pod's directory, which stage0 removes. So it
/// may be called any number of times, also for a pod that never ran.
pub fn gc(_arguments: impl Iterator<Item = String>) -> Result<ExitCode, Error> {
    Ok(ExitCode::SUCCESS)
}
