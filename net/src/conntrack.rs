//! Flows that the kernel keeps track of (`nf_conntrack`), by netlink (linux/netfilter/nfnetlink_conntrack.h).

use netlink_packet_core::DecodeError;
use nix::sys::socket::SockProtocol;

use crate::Error;
use crate::netfilter::{HEADER_BYTES, Message, value};
use crate::netlink::{Netlink, Told};

/// `NFNL_SUBSYS_CTNETLINK`, and the messages of it.
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// Attributes of a flow, of an end of it, and of that one's protocol.
const TUPLE_ORIG: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// Has the kernel forget flows of UDP to these ports, of this host or beyond it. Rules that translate addresses are only asked for the first
/// datagram of a flow: without this, one that goes on would go where rules led that are gone.
pub fn forget_udp(ports: &[u16]) -> Result<(), Error> {
    let mut netlink = Netlink::open_for(SockProtocol::NetlinkNetFilter)?;
    let flows: Vec<Flow> = netlink.dump("list the flows that are tracked", GET, &Message::of(0))?;
    for flow in flows.iter().filter(|flow| ports.contains(&flow.port)) {
        match netlink.request("forget a flow", DELETE, &flow.message(), 0) {
            // It has ended meanwhile.
            Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            forgotten => forgotten?,
        }
    }
    Ok(())
}

/// A flow of UDP.
#[derive(Debug)]
struct Flow {
    family: u8,
    /// Both ends as they were first seen, as the kernel tells them.
    ends: Vec<u8>,
    /// The port that it was sent to first.
    port: u16,
}

impl Told for Flow {
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let family = payload.first().copied().unwrap_or_default();
        let Some(ends) = value(payload, HEADER_BYTES, TUPLE_ORIG)? else {
            return Ok(None);
        };
        let protocol = value(&ends, 0, TUPLE_PROTO)?.unwrap_or_default();
        let is_udp = value(&protocol, 0, PROTO_NUM)?.as_deref() == Some(&[UDP]);
        let port = value(&protocol, 0, PROTO_DST_PORT)?.and_then(|port| port.try_into().ok());
        let port = port.map(u16::from_be_bytes);
        Ok(port.filter(|_| is_udp).map(|port| Self { family, ends, port }))
    }
}

impl Flow {
    /// What means this flow, to the kernel.
    fn message(&self) -> Message {
        Message::of(self.family).with(TUPLE_ORIG | NESTED, &self.ends)
    }
}
