//! No isolation: one app with a root and a mount namespace of its own, and everything else of the host. This process sets that
//! up and becomes the app, so that nothing of rkt is there while it runs; its number is the pod's, and the pod's lock is its own.
//!
//! One program with several names, as stage1 images have several entrypoints: called as `gc` it cleans up after a pod, as
//! `stop` it ends one, as `enter` it becomes a command in one, by any other name it runs a pod.

mod enter;
mod error;
mod gc;
mod members;
mod record;
mod run;
mod stop;

use std::path::Path;
use std::process::ExitCode;

use error::Error;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let result = match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("gc") => gc::gc(arguments),
        Some("stop") => stop::stop(arguments),
        Some("enter") => enter::enter(arguments).map(|never| match never {}),
        Some(name @ ("attach" | "app" | "stats" | "port-forward")) => {
            Err(Error::NoEntrypoint(name.to_owned()))
        }
        _ => run::run(arguments).map(|never| match never {}),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => stage1::error::exit_code(&error),
    }
}
