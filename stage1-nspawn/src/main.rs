//! The namespace isolation: namespaces, mounts and cgroups around the supervisor.
//!
//! One program with several names, as stage1 images have several entrypoints: called as `gc` it cleans up after a pod,
//! as `stop` it ends one, as `enter` it runs a command in one, as `attach` it connects to an app's streams, as `app` it
//! changes an app of one, as `port-forward` it connects ports to one, by any other name it runs a pod.

mod error;
mod run;
mod scaffold;
mod sessions;
mod site;
mod streams;
mod supervisor;
mod users;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let result = match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("gc") => stage1::gc::gc(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Some("enter") => {
            stage1::enter::enter(arguments).map(|status| ExitCode::from(status.code())).map_err(Into::into)
        }
        Some("app") => stage1::change::change(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Some("attach") => {
            stage1::attach::attach(arguments).map(|status| ExitCode::from(status.code())).map_err(Into::into)
        }
        Some("port-forward") => {
            stage1::port_forward::port_forward(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Some("stats") => {
            stage1::stats::of_namespaces(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Some("stop") => stage1::stop::stop(arguments).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        _ => run::run(arguments),
    };
    result.unwrap_or_else(|error| stage1::error::exit_code(&error))
}
