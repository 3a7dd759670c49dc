//! The virtual processors: what they are (CPUID), how they start (registers), and the threads that run them.

pub mod cpuid;
mod feature;
mod level;
pub mod registers;
mod state;
pub mod thread;
mod topology;

pub use level::Level;

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
