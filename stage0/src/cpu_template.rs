//! `--cpu-template`: which processor the guest of a VM sees. Only the command line and the configuration of this host say that, never
//! an image or a pod's manifest.

use pod::abi::CpuTemplate;
use vmm::Level;
use vmm::probe::{self, Problem};

use crate::cli::{Globals, Stage1};
use crate::config;

/// Why a pod cannot have it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// There is no guest.
    #[error(
        "--cpu-template={0} is not possible with --stage1={1}, whose apps see the host's processor: leave it out, or use \
        --stage1=kvm"
    )]
    NoGuest(CpuTemplate, &'static str),
    /// KVM cannot be asked.
    #[error("cannot ask KVM what the processor supports; rkt doctor shows what is missing")]
    Kvm(#[source] Problem),
    /// The host has less.
    #[error(
        "guests cannot have the processor {template} on this host, which lacks {}; choose a lower one with --cpu-template, or \
        another host",
        missing.join(", ")
    )]
    Missing {
        /// What is wanted.
        template: CpuTemplate,
        /// Features.
        missing: Vec<&'static str>,
    },
}

/// The template that the user `wants`, or the administrator, if this host has what it takes.
pub fn choose(globals: &Globals, wants: Option<CpuTemplate>, stage1: Stage1) -> Result<CpuTemplate, Error> {
    let template = match (stage1, wants) {
        (Stage1::Kvm, Some(template)) => template,
        (Stage1::Kvm, None) => config::cpu_template(globals)?.unwrap_or_default(),
        (Stage1::Nspawn | Stage1::Fly, Some(template)) => {
            return Err(Error::NoGuest(template, stage1.name()));
        }
        (Stage1::Nspawn | Stage1::Fly, None) => CpuTemplate::Host,
    };
    let Some(level) = level(template) else { return Ok(template) };
    let missing = probe::open_checked().and_then(|kvm| {
        let asked = level.missing(&kvm);
        asked.map_err(|error| Problem::Refused {
            what: "tell what the processor supports",
            source: error.into(),
        })
    });
    match missing.map_err(Error::Kvm)? {
        missing if missing.is_empty() => Ok(template),
        missing => Err(Error::Missing { template, missing }),
    }
}

fn level(template: CpuTemplate) -> Option<Level> {
    match template {
        CpuTemplate::Host => None,
        CpuTemplate::V2 => Some(Level::V2),
        CpuTemplate::V3 => Some(Level::V3),
        CpuTemplate::V4 => Some(Level::V4),
    }
}
