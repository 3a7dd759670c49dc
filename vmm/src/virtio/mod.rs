//! Virtio 1.2 devices and their transport.

pub mod console;
pub mod buffers;
pub mod device;
pub mod mmio;
pub mod pmem;
pub mod queue;
pub mod rng;

#[cfg(test)]
pub(crate) mod testing;
