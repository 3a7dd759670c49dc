//! What the guest finds in memory when it starts: the kernel, and the tables that describe the machine to it.

pub mod elf;
pub mod mp_table;
pub mod pvh;

use vm_memory::{Bytes, GuestAddress};

use crate::layout::{COMMAND_LINE_MAX, COMMAND_LINE_START};
use crate::memory::DeviceMemory;

/// Why the guest could not be prepared for its start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel's file cannot be read.
    #[error("cannot read the guest kernel")]
    Read(#[source] std::io::Error),
    /// The kernel's file is not one that this machine starts.
    #[error(
        "the guest kernel cannot be started: {0}; an uncompressed x86-64 vmlinux with CONFIG_PVH=y is needed"
    )]
    Kernel(&'static str),
    /// Something does not fit in the guest's memory.
    #[error(
        "{what} ({bytes} bytes) does not fit in the guest's {memory_bytes} bytes of memory; give it more"
    )]
    Memory {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The guest's memory.
        memory_bytes: u64,
    },
    /// The command line is too long, or has a zero in it.
    #[error("the kernel command line must be below {COMMAND_LINE_MAX} bytes and without zeros: {0:?}")]
    CommandLine(String),
    /// A file cannot be laid over guest memory.
    #[error(transparent)]
    Map(#[from] crate::memory::MemoryError),
    /// A table lies outside of memory.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// The table.
        what: &'static str,
        /// vm-memory's answer.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Writes `bytes` to `address`, naming them as `what` if that fails.
pub(crate) fn write(
    memory: &DeviceMemory,
    what: &'static str,
    address: u64,
    bytes: &[u8],
) -> Result<(), BootError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|source| BootError::Write { what, source })
}

/// Writes the command line, with its zero, where the PVH start info says it is.
pub fn write_command_line(memory: &DeviceMemory, line: &str) -> Result<(), BootError> {
    check_command_line(line)?;
    write(memory, "the command line", COMMAND_LINE_START, format!("{line}\0").as_bytes())
}

/// That the kernel has room for `line`, and reads all of it.
pub fn check_command_line(line: &str) -> Result<(), BootError> {
    let fits = line.len() < COMMAND_LINE_MAX && !line.contains('\0');
    if fits { Ok(()) } else { Err(BootError::CommandLine(line.to_owned())) }
}
