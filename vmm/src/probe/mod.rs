//! Whether this host can run a machine, asked before anything is created.
//!
//! Each check is a small function, so that a diagnosis can show them one by one; [`preflight`] makes all of them.

mod payload;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;

use kvm_ioctls::{Cap, Kvm};

pub use payload::{Defect, can_run_guest};

/// The device that KVM is.
pub const KVM_PATH: &str = "/dev/kvm";
/// The only version of KVM's interface there has been since 2007.
const API_VERSION: i32 = 12;

/// What a machine needs of KVM, by the names that its documentation uses.
const REQUIRED: [(Cap, &str); 10] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];

/// Why this host cannot run a machine.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such device.
    #[error(
        "there is no {KVM_PATH}: turn virtualisation on in the firmware and load kvm_intel or kvm_amd; \
         in a virtual machine, its host must allow nesting"
    )]
    Missing,
    /// The user may not use it.
    #[error("no permission to open {KVM_PATH}: add the user to the device's group (usually kvm)")]
    Denied,
    /// The processor or its firmware does not offer virtualisation to the driver.
    #[error("{KVM_PATH} is there but its driver is not: load kvm_intel or kvm_amd")]
    NoDriver(#[source] io::Error),
    /// Opening it fails for another reason.
    #[error("cannot open {KVM_PATH}")]
    Open(#[source] io::Error),
    /// What is there is not the KVM that is documented.
    #[error("{KVM_PATH} speaks version {0} of KVM's interface, not {API_VERSION}")]
    ApiVersion(i32),
    /// It lacks something.
    #[error("this host's KVM lacks {}: use a newer kernel", .0.join(", "))]
    Lacks(Vec<&'static str>),
    /// A call that every machine needs fails.
    #[error("KVM cannot {what}")]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// It does not execute guests as a processor does.
    #[error("this host's KVM cannot run an unmodified kernel: {0}")]
    Defective(Defect),
}

/// Makes all checks. The last of them makes a machine, which on some hosts takes more than 10 ms.
pub fn preflight() -> Result<Kvm, Problem> {
    let kvm = open_checked()?;
    can_run_guest(&kvm)?;
    Ok(kvm)
}

/// Makes the checks that take no machine; the result is what [`crate::MachineConfig`] needs.
pub fn open_checked() -> Result<Kvm, Problem> {
    let kvm = open_kvm()?;
    check_api_version(&kvm)?;
    match missing_capabilities(&kvm) {
        missing if missing.is_empty() => Ok(kvm),
        missing => Err(Problem::Lacks(missing)),
    }
}

/// Opens `/dev/kvm`.
pub fn open_kvm() -> Result<Kvm, Problem> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(KVM_PATH);
    let file = opened.map_err(explain_open)?;
    // SAFETY: the descriptor is that of /dev/kvm, open, and handed over to the new owner.
    Ok(unsafe { Kvm::from_raw_fd(file.into_raw_fd()) })
}

fn explain_open(error: io::Error) -> Problem {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Problem::Missing,
        Some(libc::EACCES | libc::EPERM) => Problem::Denied,
        Some(libc::ENODEV | libc::ENXIO) => Problem::NoDriver(error),
        _ => Problem::Open(error),
    }
}

/// That the interface is the one that this was written for.
pub fn check_api_version(kvm: &Kvm) -> Result<(), Problem> {
    match kvm.get_api_version() {
        API_VERSION => Ok(()),
        other => Err(Problem::ApiVersion(other)),
    }
}

/// The names of the capabilities that a machine needs, and whether this KVM has them.
pub fn capabilities(kvm: &Kvm) -> impl Iterator<Item = (&'static str, bool)> {
    REQUIRED.iter().map(|(cap, name)| (*name, kvm.check_extension(*cap)))
}

/// The names of the capabilities that a machine needs and this KVM has not.
pub fn missing_capabilities(kvm: &Kvm) -> Vec<&'static str> {
    capabilities(kvm).filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_for_not_opening_are_told_apart() {
        let explain = |errno| explain_open(io::Error::from_raw_os_error(errno));
        assert!(matches!(explain(libc::ENOENT), Problem::Missing));
        assert!(matches!(explain(libc::EACCES), Problem::Denied));
        assert!(matches!(explain(libc::ENODEV), Problem::NoDriver(_)));
        assert!(matches!(explain(libc::EMFILE), Problem::Open(_)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = Problem::Lacks(vec!["KVM_CAP_IRQFD", "KVM_CAP_IOEVENTFD"]).to_string();
        assert_eq!(message, "this host's KVM lacks KVM_CAP_IRQFD, KVM_CAP_IOEVENTFD: use a newer kernel");
    }
}
