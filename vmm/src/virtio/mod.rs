//! Virtio 1.2 devices and their transport.

pub mod device;
