//! The virtual processors: what they are (CPUID), how they start (registers), and the threads that run them.

pub(crate) mod clock;
pub mod cpuid;
mod feature;
mod level;
pub mod registers;
mod state;
pub mod thread;
mod topology;

use kvm_ioctls::VcpuFd;

pub use cpuid::Leaves;
pub use level::Level;

use crate::error::Error;
use crate::vm::Vm;

/// The most processors a machine can have.
pub const VCPUS_MAX: u8 = 32;

/// How many virtual processors a machine has: 1 to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuCount(u8);

impl VcpuCount {
    /// A single one.
    pub const ONE: Self = Self(1);

    /// `count` processors; `None` if a machine cannot have so many, or so few.
    pub fn new(count: u8) -> Option<Self> {
        (1..=VCPUS_MAX).contains(&count).then_some(Self(count))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// Creates a machine's processors, in the state of ones that firmware has set up.
pub(crate) fn create(vm: &Vm, cpuid: &Leaves) -> Result<Vec<VcpuFd>, Error> {
    let new = |index| {
        let vcpu = vm.create_vcpu(index)?;
        let leaves = cpuid
            .for_vcpu(index)
            .map_err(|_| Error::kvm("take so many CPUID leaves")(kvm_ioctls::Error::new(libc::E2BIG)))?;
        vcpu.set_cpuid2(&leaves).map_err(Error::kvm("set what the processor supports"))?;
        registers::set_msrs(&vcpu).map_err(Error::kvm("set model-specific registers"))?;
        Ok(vcpu)
    };
    (0..cpuid.vcpus().get()).map(new).collect()
}

/// Lets the first processor enter the kernel at `entry`; the others wait until it starts them.
pub(crate) fn enter_kernel(vcpus: &[VcpuFd], entry: u32) -> Result<(), Error> {
    let first = vcpus.first();
    let entered = first.map_or(Ok(()), |first| registers::set_pvh_entry(first, entry));
    entered.map_err(Error::kvm("set the entry registers"))
}
