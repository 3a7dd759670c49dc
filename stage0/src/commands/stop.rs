//! `rkt stop`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use super::{Outcome, failure};
use crate::cli::{Globals, PodChoice};
use crate::pods::{Pods, State};
use crate::{render, stage1};

/// Why a pod cannot be stopped.
#[derive(Debug, thiserror::Error)]
#[error("pod \"{0}\" is {1}, not running")]
struct NotRunning(uuid::Uuid, State);

/// Ends pods; goes on after one that cannot be ended.
pub fn stop(globals: &Globals, choices: &[PodChoice], force: bool) -> Outcome {
    let pods = Pods::new(&globals.directory);
    let mut code = 0;
    for choice in choices {
        match stop_one(&pods, choice, force) {
            Ok(line) => writeln!(std::io::stdout(), "{line}")?,
            Err(error) => {
                code = failure("stop", error.as_ref());
                eprint!("{}", render("stop", error.as_ref()));
            }
        }
    }
    Ok(ExitCode::from(code))
}

/// What to print of it, as upstream has it.
fn stop_one(pods: &Pods, choice: &PodChoice, force: bool) -> Result<String, Box<dyn Error>> {
    pods.follow(pods.choose(choice)?, |pod| match pod.state {
        State::Running => {
            stage1::stop(&pod.path, pod.uuid, force)?;
            Ok(format!("\"{}\"", pod.uuid))
        }
        State::Exited | State::ExitedDeleting | State::ExitedGarbage => {
            Ok(format!("pod \"{}\" is already stopped", pod.uuid))
        }
        state => Err(NotRunning(pod.uuid, state).into()),
    })
}
