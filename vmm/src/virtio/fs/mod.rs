//! The file system device (virtio 1.2, section 5.11): carries FUSE messages between the guest and a server.
//!
//! The server is another process, behind a socket of sequenced packets, and has none of the guest's memory. Nothing of
//! a message is looked at here. Each request becomes one packet and is answered by one packet, in the same order; to a request
//! that has no reply in FUSE, the server answers with a single zero byte. So a reply needs no name.

#[cfg(test)]
mod tests;
mod worker;

use std::os::fd::OwnedFd;

use self::worker::Worker;
use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, RING_FEATURES};
use crate::event_loop::EventHandler;

/// The high priority queue, for what must not wait behind requests; the requests.
const QUEUE_SIZES: &[u16] = &[128, 128];
/// The length of a tag (section 5.11.4).
pub const TAG_BYTES: usize = 36;
/// The longest request: 64 KiB of data with what comes before it.
pub const MAX_REQUEST_BYTES: usize = (64 << 10) + 4096;
const CONFIG_BYTES: usize = TAG_BYTES + 4;

/// What a file system device is made of.
#[derive(Debug)]
pub struct FsConfig {
    /// The name by which the guest mounts it.
    pub tag: String,
    /// A connected Unix socket of sequenced packets (SOCK_SEQPACKET) to the server.
    pub server: OwnedFd,
}

/// Why there can be no file system device.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" cannot be a file system's tag: it has 1 to {TAG_BYTES} bytes, none of them zero")]
pub struct TagError(String);

/// A file system device.
#[derive(Debug)]
pub struct Fs {
    config: [u8; CONFIG_BYTES],
    server: OwnedFd,
}

impl Fs {
    /// A device.
    pub fn new(config: FsConfig) -> Result<Self, TagError> {
        let FsConfig { tag, server } = config;
        if tag.is_empty() || tag.len() > TAG_BYTES || tag.contains('\0') {
            return Err(TagError(tag));
        }
        Ok(Self { config: config_space(&tag), server })
    }
}

/// `struct virtio_fs_config` (section 5.11.4): the tag, padded with zeros, and the number of request queues.
fn config_space(tag: &str) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let padding = std::iter::repeat_n(0, TAG_BYTES.saturating_sub(tag.len()));
    let bytes = tag.bytes().chain(padding).chain(1_u32.to_le_bytes());
    config.iter_mut().zip(bytes).for_each(|(field, byte)| *field = byte);
    config
}

impl VirtioDevice for Fs {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Fs
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let (memory, queues) = queue::open(activation)?;
        let server = self.server.try_clone().map_err(ActivateError::Host)?;
        Ok(Box::new(Worker::new(memory, queues, server)))
    }
}
