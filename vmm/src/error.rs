//! What can go wrong with a machine.

use crate::boot::BootError;
use crate::cpu::Level;
use crate::cpu::thread::VcpuFailure;
use crate::memory::MemoryError;

/// Why a machine could not be built, or did not end in an orderly way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread could not be confined.
    #[error(transparent)]
    Confinement(#[from] jail::Error),
    /// KVM refused something. `probe` tells beforehand whether it can do what is needed.
    #[error("KVM cannot {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The host refused something else.
    #[error("cannot {what}")]
    Host {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// The host's processor is below the level that the guest is to see.
    #[error("this host's processor is not {level}: it lacks {}", missing.join(", "))]
    Level {
        /// The level.
        level: Level,
        /// What is missing, by name.
        missing: Vec<&'static str>,
    },
    /// The memory's size is impossible.
    #[error("a machine has between {min} and {max} bytes of memory in whole pages, not {wanted}")]
    MemorySize {
        /// What was asked for.
        wanted: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// There are not enough interrupts for so many devices.
    #[error(
        "a machine has at most {max} devices, its console, its entropy source and its balloon among them"
    )]
    TooManyDevices {
        /// How many there can be.
        max: usize,
    },
    /// A device could not be made.
    #[error("cannot set up the {name} device")]
    Device {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Memory could not be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel could not be placed.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The guest's kernel panicked.
    #[error("the guest kernel panicked; the last lines of its console:\n{console}")]
    GuestPanic {
        /// The last lines of the console.
        console: String,
    },
    /// A processor cannot go on.
    #[error(
        "processor {} of the guest failed: {}\nregisters: {}\nthe last lines of its console:\n{console}",
        failure.vcpu, failure.reason, failure.registers
    )]
    Vcpu {
        /// What happened.
        failure: VcpuFailure,
        /// The last lines of the console.
        console: String,
    },
}

impl Error {
    /// For `map_err`: KVM could not do `what`.
    pub(crate) fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { what, source }
    }

    /// For `map_err`: the device `name` could not be made.
    pub(crate) fn device<E>(name: &'static str) -> impl Fn(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Device { name, source: Box::new(source) }
    }

    /// For `map_err`: the host could not do `what`.
    pub(crate) fn host(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
