//! The process that makes a template: a machine's, jailed like one, for as long as its kernel boots. There is nothing of a pod in it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollTimeout;
use nix::sys::resource::Resource;
use stage1::error::Causes;
use vmm::template::{self, Key};
use vmm::{Kvm, Shape};

use crate::error::Error;
use crate::jailed::{self, Place};
use crate::report::Report;
use crate::running::End;

/// How long a machine without anything may take to boot.
const BOOT_TIME_MS: u32 = 180_000;
/// How often is looked meanwhile whether the pod is to end.
const LOOK_MS: u16 = 100;
/// Beside the memory: what KVM has of the machine.
const STATE_MAX_BYTES: u64 = 8 << 20;

/// Whether a template has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    Done,
    /// The pod is to end.
    Interrupted,
}

/// What a template is made of.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// `/dev/kvm`.
    pub kvm: &'a Kvm,
    /// The machine's shape.
    pub shape: &'a Shape,
    /// The kernel that boots in it.
    pub kernel: &'a File,
}

/// Makes the template of `key` in `file`. The calling process must have one thread.
pub fn make(
    recipe: Recipe<'_>,
    file: &File,
    key: &Key,
    interrupted: &dyn Fn() -> bool,
) -> Result<Made, Error> {
    let system = |action| move |source| Error::System { action, source };
    let (socket, parent) = UnixStream::pair().map_err(system("make a socket pair"))?;
    let place = Place::here()?;
    let Some(mut child) = jail::fork()? else {
        let parent = OwnedFd::from(parent);
        let result = in_jail(recipe, file, key, &parent, &place).map(|()| Report::default());
        jailed::report(&parent, &result.unwrap_or_else(|error| Report::failed(error.as_ref())));
    };
    drop(parent);
    let mut looks = BOOT_TIME_MS / u32::from(LOOK_MS);
    let status = loop {
        match child.wait(PollTimeout::from(LOOK_MS)) {
            Ok(Some(status)) => break status,
            Ok(None) if interrupted() => return Ok(Made::Interrupted),
            Ok(None) if looks == 0 => {
                let end = format!("its kernel has not booted in {} s", BOOT_TIME_MS / 1000);
                return Err(Error::VmmGone { end });
            }
            Ok(None) => looks -= 1,
            Err(errno) => return Err(system("wait for the process that makes a template")(errno.into())),
        }
    };
    match End::of(status, &socket) {
        End::Reported(report) => {
            Causes::new(report.causes).map_or(Ok(Made::Done), |causes| Err(causes.into()))
        }
        End::Forbidden(call) => Err(Error::Forbidden { call }),
        End::Unexpected(end) => Err(Error::VmmGone { end }),
        End::Killed => Err(Error::VmmGone { end: "killed".into() }),
    }
}

fn in_jail(
    recipe: Recipe<'_>,
    file: &File,
    key: &Key,
    parent: &OwnedFd,
    place: &Place,
) -> Result<(), Box<dyn std::error::Error>> {
    let Recipe { kvm, shape, kernel } = recipe;
    let descriptors = vec![kvm.as_raw_fd(), kernel.as_raw_fd(), file.as_raw_fd(), parent.as_raw_fd()];
    let limits = [
        (Resource::RLIMIT_AS, jailed::address_space(shape.memory_bytes, &[kernel.metadata()?.len()])),
        (Resource::RLIMIT_FSIZE, shape.memory_bytes.saturating_add(STATE_MAX_BYTES)),
    ];
    jailed::shut_in(place, descriptors, &limits, None)?;
    Ok(template::make(kvm, shape, kernel, file, key)?)
}
