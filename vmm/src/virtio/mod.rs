//! Virtio 1.2 devices and their transport.

pub mod balloon;
pub mod block;
pub mod buffers;
pub mod console;
pub mod device;
pub mod fs;
pub mod mmio;
pub mod net;
pub mod pmem;
pub mod queue;
pub mod rng;
pub mod throttle;
pub mod vsock;
pub mod window;

#[cfg(test)]
pub(crate) mod testing;
