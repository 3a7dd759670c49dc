//! The process that makes a template: a machine's, jailed like one, for as long as its kernel boots. There is nothing of a pod in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollTimeout;
use nix::sys::resource::Resource;
use nix::sys::wait::WaitStatus;
use stage1::error::Causes;
use vmm::template::{self, Key};
use vmm::{Kvm, Shape};

use crate::error::Error;
use crate::jailed::{self, Place};
use crate::report::{MAX_BYTES, Report};

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

/// Makes the template of `key` in `file`. The calling process must have one thread.
pub fn make(
    kvm: &Kvm,
    shape: &Shape,
    kernel: &File,
    file: &File,
    key: &Key,
    interrupted: &dyn Fn() -> bool,
) -> Result<Made, Error> {
    let system = |action| move |source| Error::System { action, source };
    let (socket, parent) = UnixStream::pair().map_err(system("make a socket pair"))?;
    let place = Place::here()?;
    let Some(mut child) = jail::fork()? else {
        let parent = OwnedFd::from(parent);
        let result = in_jail(kvm, shape, kernel, file, key, &parent, &place);
        jailed::report(
            &parent,
            &result.map_or_else(|error| Report::failed(error.as_ref()), |()| Report::default()),
        );
    };
    drop(parent);
    let mut looks = BOOT_TIME_MS / u32::from(LOOK_MS);
    let status = loop {
        match child.wait(PollTimeout::from(LOOK_MS)) {
            Ok(Some(status)) => break status,
            Ok(None) if interrupted() => return Ok(Made::Interrupted),
            Ok(None) if looks == 0 => {
                return Err(Error::VmmGone {
                    end: format!("its kernel has not booted in {} s", BOOT_TIME_MS / 1000),
                });
            }
            Ok(None) => looks -= 1,
            Err(errno) => return Err(system("wait for the process that makes a template")(errno.into())),
        }
    };
    let mut told = Vec::new();
    let _partial = socket.take(MAX_BYTES as u64).read_to_end(&mut told);
    let report = pod::control::read_message::<Report>(&mut told.as_slice(), MAX_BYTES);
    match (status, report) {
        (WaitStatus::Exited(_, 0), Ok(report)) => match Causes::new(report.causes) {
            Some(causes) => Err(causes.into()),
            None => Ok(Made::Done),
        },
        (status, _) => Err(Error::VmmGone { end: format!("{status:?}") }),
    }
}

fn in_jail(
    kvm: &Kvm,
    shape: &Shape,
    kernel: &File,
    file: &File,
    key: &Key,
    parent: &OwnedFd,
    place: &Place,
) -> Result<(), Box<dyn std::error::Error>> {
    let kernel_bytes = kernel.metadata()?.len();
    let descriptors = [kvm.as_raw_fd(), kernel.as_raw_fd(), file.as_raw_fd(), parent.as_raw_fd()];
    let limits = [
        (Resource::RLIMIT_AS, jailed::address_space(shape.memory_bytes, &[kernel_bytes])),
        (Resource::RLIMIT_FSIZE, shape.memory_bytes.saturating_add(STATE_MAX_BYTES)),
    ];
    jailed::shut_in(place, descriptors.to_vec(), &limits, None)?;
    Ok(template::make(kvm, shape, kernel, file, key)?)
}
