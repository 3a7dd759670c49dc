//! What people read and shells complete, made from the command line's own definition.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;

use super::Outcome;
use super::status::indented;
use crate::cli::{self, Globals};
use crate::config;

/// `rkt completion`: prints a script for a shell.
pub fn completion(shell: Shell) -> Outcome {
    // The generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(true), "rkt", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// `rkt manual`: writes a manual page for each command to a directory.
pub fn manual(directory: &Path) -> Outcome {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(cli::definition(false), directory)?;
    Ok(ExitCode::SUCCESS)
}

/// `rkt config`: prints the configuration, and where each part of it is from.
pub fn config(globals: &Globals, pretty: bool) -> Outcome {
    let json = config::load(globals)?.to_json();
    let json = if pretty { indented(&json)? } else { json.to_string() };
    writeln!(std::io::stdout(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}
