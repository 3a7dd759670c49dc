//! The virtual machine monitor: a minimal machine of KVM, virtio-mmio and nothing else. It knows nothing of pods.

pub mod event_loop;
pub mod memory;
pub mod virtio;
