//! `rkt metadata-service`.

use std::io::Write;
use std::process::ExitCode;

use metadata::{Places, service};

use super::Outcome;

/// Why the service cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot run as unprivileged user: the metadata service is root's")]
struct Unprivileged;

/// Runs it until a signal ends it.
pub fn metadata_service(port: u16) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Unprivileged.into());
    }
    let places = Places::default();
    service::run(&places, port, |port, damaged| {
        for path in damaged {
            eprintln!("metadata-service: {} is damaged, and its pod unknown", path.display());
        }
        let socket = places.socket();
        let line =
            format!("metadata-service: pods are registered at {} and reach port {port}\n", socket.display());
        // Nobody may read it.
        let _ = std::io::stdout().write_all(line.as_bytes());
    })?;
    Ok(ExitCode::SUCCESS)
}
