//! The appc executor (appc spec, "App Container Executor"): what it must do for an app, sentence by sentence.

mod environment;
mod events;
mod execution;
mod files;
mod users;

use serde_json::Value;

use crate::harness::{Aci, Entry, Finished, Host, Process};

/// Runs an image with this app section and these files, and further options of `run`.
fn run(app: Value, entries: &[Entry<'_>], options: &[&str]) -> Finished {
    run_at(&Host::empty(), app, entries, options)
}

fn run_at(host: &Host, app: Value, entries: &[Entry<'_>], options: &[&str]) -> Finished {
    let aci = Aci::new(app, entries);
    let mut command = host.run(&[&aci.path()]);
    Process::start(command.args(options)).finish()
}
