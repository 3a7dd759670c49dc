//! What all messages of netfilter's parts have in common (linux/netfilter/nfnetlink.h).

use netlink_packet_core::{DecodeError, Emitable};

use crate::netlink::attributes;

/// `struct nfgenmsg`, whose first byte is a family.
pub const HEADER_BYTES: usize = 4;
/// Of an attribute.
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// The value of the first attribute of a kind among others, which come after so many bytes.
pub fn value(all: &[u8], header_bytes: usize, kind: u16) -> Result<Option<Vec<u8>>, DecodeError> {
    for attribute in attributes(all, header_bytes) {
        let attribute = attribute?;
        if attribute.kind() == kind {
            return Ok(Some(attribute.value().to_vec()));
        }
    }
    Ok(None)
}

/// A message to the kernel.
pub struct Message(Vec<u8>);

impl Message {
    /// About a family of addresses, or about all: 0.
    pub fn of(family: u8) -> Self {
        Self(vec![family, 0, 0, 0])
    }

    /// With an attribute more. Those that are sent here are short: names of our own, and what came in an attribute itself.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Some(buffer) = buffer.get_mut(..self.0.len()) {
            buffer.copy_from_slice(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_begin_at_words() {
        let message = Message::of(2).with(1, b"\x0a").with(2, b"word");
        assert_eq!(message.0, b"\x02\0\0\0\x05\0\x01\0\x0a\0\0\0\x08\0\x02\0word");
        let mut buffer = vec![1; message.buffer_len()];
        message.emit(&mut buffer);
        assert_eq!(buffer, message.0);
        assert_eq!(value(&buffer, HEADER_BYTES, 2).unwrap().as_deref(), Some(&b"word"[..]));
        assert_eq!(value(&buffer, HEADER_BYTES, 3).unwrap(), None);
    }
}
