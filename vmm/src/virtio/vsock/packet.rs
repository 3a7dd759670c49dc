//! The header of a vsock packet (virtio 1.2, section 5.10.6).

/// The length of a header.
pub const HEADER_BYTES: usize = 44;
/// The host's context ID.
pub const HOST_CID: u64 = 2;
/// The type of stream sockets.
pub const TYPE_STREAM: u16 = 1;

const SHUTDOWN_RECEIVE: u32 = 1;
const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Asks for a connection.
    Request = 1,
    /// Accepts a connection.
    Response = 2,
    /// Refuses, aborts or finally ends a connection.
    Reset = 3,
    /// Says what the sender will no longer do; see [`Halves`].
    Shutdown = 4,
    /// Carries data.
    Data = 5,
    /// Tells the sender's credit.
    CreditUpdate = 6,
    /// Asks for a credit update.
    CreditRequest = 7,
}

impl Operation {
    fn from_wire(value: u16) -> Option<Self> {
        use Operation::*;
        [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest]
            .into_iter()
            .find(|operation| *operation as u16 == value)
    }
}

/// The directions of a connection that one end has shut down, from that end's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    /// It will not receive any more.
    pub receive: bool,
    /// It will not send any more.
    pub send: bool,
}

impl Halves {
    /// The halves that the flags of a SHUTDOWN packet name.
    pub fn from_flags(flags: u32) -> Self {
        Self { receive: flags & SHUTDOWN_RECEIVE != 0, send: flags & SHUTDOWN_SEND != 0 }
    }

    /// The flags of a SHUTDOWN packet.
    pub fn flags(self) -> u32 {
        u32::from(self.receive) * SHUTDOWN_RECEIVE + u32::from(self.send) * SHUTDOWN_SEND
    }

    /// Both sets together.
    pub fn and(self, other: Self) -> Self {
        Self { receive: self.receive || other.receive, send: self.send || other.send }
    }

    /// Whether both directions are shut down.
    pub fn both(self) -> bool {
        self.receive && self.send
    }
}

/// The two ends of a connection; one of them is always the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The guest's context ID.
    pub guest_cid: u64,
    /// The host's port.
    pub host_port: u32,
    /// The guest's port.
    pub guest_port: u32,
}

/// A header, in either direction, as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's context ID.
    pub src_cid: u64,
    /// The receiver's context ID.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// The number of data bytes that follow.
    pub len: u32,
    /// The socket type, [`TYPE_STREAM`].
    pub kind: u16,
    /// The operation's number.
    pub op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// How many bytes the sender buffers for this connection.
    pub buf_alloc: u32,
    /// How many bytes the sender has consumed, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// A packet from the host along `route`, without data and credit.
    pub fn to_guest(route: Route, operation: Operation) -> Self {
        Self {
            src_cid: HOST_CID,
            dst_cid: route.guest_cid,
            src_port: route.host_port,
            dst_port: route.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op: operation as u16,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    /// The connection that a packet from the guest belongs to.
    pub fn route_from_guest(&self) -> Route {
        Route { guest_cid: self.src_cid, host_port: self.dst_port, guest_port: self.src_port }
    }

    /// The operation, if it is one that exists.
    pub fn operation(&self) -> Option<Operation> {
        Operation::from_wire(self.op)
    }

    /// Decodes a header; each value of each field is possible.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// Encodes the header.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (byte, field) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *field;
        }
        bytes
    }
}

/// Takes the next field; zeros where there is none, which the fixed length of a header rules out.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, tail) = rest.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
    *rest = tail;
    *field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_that_of_the_specification() {
        let route = Route { guest_cid: 3, host_port: 0x1122_3344, guest_port: 0x5566_7788 };
        let mut header = Header::to_guest(route, Operation::Shutdown);
        header.len = 0x0a0b_0c0d;
        header.flags = Halves { receive: true, send: true }.flags();
        header.buf_alloc = 0x100;
        header.fwd_cnt = 0xffff_ffff;
        let expected = "0200000000000000 0300000000000000 44332211 88776655 0d0c0b0a 0100 0400 03000000 00010000 ffffffff";
        let hex: String = header.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.replace(' ', ""));
    }

    #[test]
    fn unknown_operations_are_none() {
        for op in [0, 8, 0x0105, u16::MAX] {
            assert_eq!(Operation::from_wire(op), None);
        }
        assert_eq!(Operation::from_wire(5), Some(Operation::Data));
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes in proptest::array::uniform32(any::<u8>()), tail in proptest::array::uniform12(any::<u8>())) {
            let bytes: [u8; HEADER_BYTES] = [&bytes[..], &tail].concat().try_into().unwrap();
            prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
        }
    }
}
