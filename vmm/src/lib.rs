//! The virtual machine monitor: a minimal machine of KVM, virtio-mmio and nothing else. It knows nothing of pods.
//!
//! [`Machine::build`] is the recipe, [`Machine::run`] the machine's life. The guest is started by PVH in an ELF kernel that
//! is mapped into its memory; it finds its processors in an MP table and its devices on its command line. A processor is a
//! thread ([`cpu::thread`]), all I/O is one more ([`event_loop`]), and between them there are eventfds.

pub mod boot;
pub mod bus;
pub mod confinement;
pub mod console;
pub mod cpu;
pub mod devices;
pub mod error;
pub mod event_loop;
#[cfg(feature = "gdb")]
pub mod gdb;
#[cfg(not(feature = "gdb"))]
#[path = "gdb_absent.rs"]
pub mod gdb;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod probe;
pub mod rate_limiter;
pub mod timeline;
pub mod virtio;
pub mod vm;

pub use cpu::{Level, VcpuCount};
pub use error::Error;
pub use kvm_ioctls::Kvm;
pub use machine::{Exit, Machine, MachineConfig, Ram, StopHandle};
