//! The virtual machine monitor: a minimal machine of KVM, virtio-mmio and nothing else. It knows nothing of pods.
//!
//! [`Machine::build`] is the recipe, [`Machine::run`] the machine's life. The guest is started by PVH in an ELF kernel that
//! is copied into its memory, or goes on from a [`template`]; it finds its processors in an MP table and its devices on its
//! second command line ([`purpose`]). A processor is a
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
pub mod ioapic;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod probe;
pub mod purpose;
pub mod rate_limiter;
pub mod shape;
pub mod template;
pub mod timeline;
pub mod virtio;
pub mod vm;

pub use cpu::{Leaves, Level, VcpuCount};
pub use error::Error;
pub use kvm_ioctls::Kvm;
pub use machine::{Exit, Machine, MachineConfig, Ram, Start, StopHandle};
pub use shape::Shape;
pub use template::Template;
