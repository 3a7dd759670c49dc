//! What each subcommand does.

pub mod add;
pub mod app;
mod content;
pub mod enter;
pub mod export;
mod foreign;
pub mod image;
pub mod images;
pub mod import;
pub mod logs;
pub mod manual;
pub mod metadata_service;
pub mod pods;
pub mod run;
mod statistics;
pub mod status;
pub mod stop;
mod table;
mod timestamp;
pub mod trust;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use crate::cli::{Format, Globals};
use crate::doctor;
use crate::pods::Error as PodError;

/// How a command ends: with an exit status, or with an error that main prints with its causes.
type Outcome = Result<ExitCode, Box<dyn Error>>;

/// The exit status of a command that fails, upstream's: 254, but that `status` and `stop` tell a file with a UUID that cannot be read.
pub fn failure(command: &str, error: &(dyn Error + 'static)) -> u8 {
    match (command, error.downcast_ref()) {
        ("status" | "stop", Some(PodError::UuidFile { .. })) => 1,
        _ => pod::abi::EXIT_ERROR,
    }
}

/// `rkt version`.
pub fn version() -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "rkt Version: {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "appc Version: {}", pod::pod_manifest::AC_VERSION)?;
    writeln!(out, "Stage1 Interface Version: {}", pod::abi::INTERFACE_VERSION)?;
    writeln!(out, "OS/Arch: linux/{}", crate::image::ARCHITECTURE)?;
    Ok(ExitCode::SUCCESS)
}

/// `rkt doctor`.
pub fn doctor(globals: &Globals, format: Format) -> Outcome {
    let report = doctor::examine(&globals.directory, &globals.local_config);
    let text = match format {
        Format::Table => report.to_table(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(match report.can_run_namespaces() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(pod::abi::EXIT_ERROR),
    })
}
