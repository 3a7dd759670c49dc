//! The VM isolation: a micro-VM around the supervisor. This process is the pod's parent, and that of its VMM, which is
//! jailed (`jailed`); by the name that it is called by it is one of the stage1 interface's entrypoints.

mod error;
mod export;
#[cfg(feature = "gdb")]
mod gdb;
mod handshake;
mod image_writes;
mod images;
mod jailed;
mod kernel;
mod machine;
mod network_cards;
mod quota;
mod report;
mod run;
mod running;
mod sessions;
mod site;
mod template_maker;
mod templates;
mod throttles;
mod volume_server;
mod volumes;
mod waiting;
mod writable;

use std::path::Path;
use std::process::ExitCode;

use crate::error::Error;

fn main() -> ExitCode {
    match entrypoint() {
        Ok(code) => code,
        Err(error) => stage1::error::exit_code(&error),
    }
}

fn entrypoint() -> Result<ExitCode, Error> {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("init") => run::run(arguments),
        Some("gc") => Ok(stage1::gc::gc(arguments).map(|()| ExitCode::SUCCESS)?),
        Some("enter") => Ok(ExitCode::from(stage1::enter::enter(arguments)?.code())),
        Some("app") => Ok(stage1::change::change(arguments).map(|()| ExitCode::SUCCESS)?),
        Some("attach") => Ok(ExitCode::from(stage1::attach::attach(arguments)?.code())),
        Some("port-forward") => {
            Ok(stage1::port_forward::port_forward(arguments).map(|()| ExitCode::SUCCESS)?)
        }
        Some("stats") => Ok(stage1::stats::of_vm(arguments).map(|()| ExitCode::SUCCESS)?),
        Some("export") => export::export(arguments).map(|()| ExitCode::SUCCESS),
        Some("stop") => Ok(stage1::stop::stop(arguments).map(|()| ExitCode::SUCCESS)?),
        _ => Err(Error::Entrypoint(called)),
    }
}
