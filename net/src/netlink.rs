//! The executor: one blocking netlink socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator, parse_string, parse_u32,
};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::Error;
use crate::MacAddress;
use crate::plan::{Link, Message, Request, Tap};

/// The largest datagram that the kernel answers with (its `NLMSG_GOODSIZE` for dumps into buffers of this size).
const RECEIVE_BYTES: usize = 32 << 10;
/// Netlink messages in a datagram begin at multiples of this.
const ALIGNMENT: usize = 4;

pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_for(SockProtocol::NetlinkRoute)
    }

    /// To another part of the kernel.
    pub(crate) fn open_for(part: SockProtocol) -> Result<Self, Error> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, part)
            .map_err(failed("open a socket"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits until the kernel has carried it out.
    pub(crate) fn execute(&mut self, request: &Request) -> Result<(), Error> {
        let (kind, body) = parts(&request.message);
        self.request(&request.what, kind, body, request.flags)
    }

    /// Sends a message of any kind and waits until the kernel has done `what` it asks for.
    pub(crate) fn request(
        &mut self,
        what: &str,
        kind: u16,
        body: &dyn Emitable,
        flags: u16,
    ) -> Result<(), Error> {
        self.send(Outgoing { kind, body }, flags | NLM_F_ACK)?;
        self.answers(|_: Link| ()).map_err(|answer| answer.to(what))
    }

    /// The interfaces of this network namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump("list the network interfaces", libc::RTM_GETLINK, &LinkHeader::default())
    }

    /// Everything of a kind in this network namespace, as far as it is wanted.
    pub(crate) fn dump<T: Told>(
        &mut self,
        what: &str,
        kind: u16,
        body: &dyn Emitable,
    ) -> Result<Vec<T>, Error> {
        self.send(Outgoing { kind, body }, NLM_F_DUMP)?;
        let mut told = Vec::new();
        self.answers(|one| told.push(one)).map_err(|answer| answer.to(what))?;
        Ok(told)
    }

    fn send(&mut self, message: Outgoing<'_>, flags: u16) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty()).map_err(failed("send"))?;
        Ok(())
    }

    /// Takes the kernel's messages up to the acknowledgement or the end of the dump.
    fn answers<T: Told>(&self, mut take: impl FnMut(T)) -> Result<(), Answer> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let received = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .map_err(|errno| Answer::Failed(failed("receive")(errno)))?;
            let mut rest = buffer.get(..received).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Incoming<T>>::deserialize(rest)
                    .map_err(|error| Answer::Failed(Error::Answer(error.to_string())))?;
                // The header's length is at least the header's size, or it would not have parsed.
                let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(Answer::Refused(error.to_io())),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(Incoming(Some(one))) => take(one),
                    _ => {}
                }
            }
        }
    }
}

enum Answer {
    Refused(io::Error),
    Failed(Error),
}

impl Answer {
    fn to(self, what: &str) -> Error {
        match self {
            Self::Refused(source) => Error::Refused { what: what.to_owned(), source },
            Self::Failed(error) => error,
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(nix::Error) -> Error {
    move |errno| Error::Socket { what, source: errno.into() }
}

/// What goes to the kernel.
struct Outgoing<'a> {
    kind: u16,
    body: &'a dyn Emitable,
}

fn parts(message: &Message) -> (u16, &dyn Emitable) {
    match message {
        Message::Link(message) => (libc::RTM_NEWLINK, message),
        Message::Address(message) => (libc::RTM_NEWADDR, message),
        Message::NoAddress(message) => (libc::RTM_DELADDR, message),
        Message::Route(message) => (libc::RTM_NEWROUTE, message),
    }
}

impl NetlinkSerializable for Outgoing<'_> {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.body.emit(buffer);
    }
}

/// What the kernel tells of when it is asked for all of a kind.
pub(crate) trait Told: Sized {
    /// From a message without netlink's own header; `None` for what is not wanted.
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError>;
}

/// What comes from the kernel: the one kind of message that is asked for, and of it what is needed.
struct Incoming<T>(Option<T>);

impl<T: Told> NetlinkDeserializable for Incoming<T> {
    type Error = DecodeError;
    fn deserialize(_header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        T::parse(payload).map(Self)
    }
}

/// The attributes of a message, which come after a header of the kind's own.
pub(crate) fn attributes(
    payload: &[u8],
    header_bytes: usize,
) -> impl Iterator<Item = Result<NlaBuffer<&[u8]>, DecodeError>> {
    NlasIterator::new(payload.get(header_bytes..).unwrap_or_default())
}

/// Bytes of a link message before its attributes (`struct ifinfomsg`).
const LINK_HEADER_BYTES: usize = 16;

/// The kind of taps (the kernel's `DRV_NAME` of tun.c), which comes before what is the kind's own.
const TAP_KIND: &str = "tun";
/// linux/if_link.h.
const IFLA_TUN_MULTI_QUEUE: u16 = 7;

impl Told for Link {
    fn parse(payload: &[u8]) -> Result<Option<Self>, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        let no_arp = header.flags.contains(LinkFlags::Noarp);
        let mut link =
            Link { index: header.index, name: String::new(), mac: None, mtu: None, no_arp, tap: None };
        for attribute in attributes(payload, LINK_HEADER_BYTES) {
            let attribute = attribute?;
            match attribute.kind() {
                libc::IFLA_IFNAME => link.name = parse_string(attribute.value())?,
                libc::IFLA_ADDRESS => link.mac = attribute.value().try_into().ok().map(MacAddress),
                libc::IFLA_MTU => link.mtu = Some(parse_u32(attribute.value())?),
                libc::IFLA_LINKINFO => link.tap = tap(attribute.value())?,
                _ => {}
            }
        }
        Ok(Some(link))
    }
}

/// What the information on an interface says of a tap, if it is one.
fn tap(information: &[u8]) -> Result<Option<Tap>, DecodeError> {
    let (mut is_tap, mut multi_queue) = (false, false);
    for attribute in attributes(information, 0) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::IFLA_INFO_KIND => is_tap = parse_string(attribute.value())? == TAP_KIND,
            libc::IFLA_INFO_DATA if is_tap => multi_queue = is_multi_queue(attribute.value())?,
            _ => {}
        }
    }
    Ok(is_tap.then_some(Tap { multi_queue }))
}

fn is_multi_queue(data: &[u8]) -> Result<bool, DecodeError> {
    for attribute in attributes(data, 0) {
        let attribute = attribute?;
        if attribute.kind() == IFLA_TUN_MULTI_QUEUE {
            return Ok(attribute.value() == [1]);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
    use nix::ifaddrs::getifaddrs;
    use nix::net::if_::InterfaceFlags;
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::{GuestNetwork, Interface, Route, configure, loopback_up};

    /// Runs `test` in a network namespace of its own; as root only, for want of which nothing is tested.
    fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(errno) => eprintln!("skipped: no network namespace can be made: {errno}"),
        });
        thread.join().unwrap();
    }

    /// A bridge needs no partner, and every kernel that runs containers has it.
    fn make_bridge(name: &str, mac: MacAddress) {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let request = Request {
            what: format!("make the interface {name}"),
            message: Message::Link(message),
            flags: NLM_F_CREATE | NLM_F_EXCL,
        };
        Netlink::open().unwrap().execute(&request).unwrap();
    }

    fn addresses(name: &str) -> Vec<IpAddr> {
        getifaddrs()
            .unwrap()
            .filter(|entry| entry.interface_name == name)
            .filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
            })
            .collect()
    }

    #[test]
    fn loopback() {
        in_new_namespace(|| {
            loopback_up().unwrap();
            let lo = getifaddrs().unwrap().find(|entry| entry.interface_name == "lo").unwrap();
            assert!(lo.flags.contains(InterfaceFlags::IFF_UP));
            assert!(addresses("lo").contains(&"127.0.0.1".parse().unwrap()));
        });
    }

    #[test]
    fn a_whole_network() {
        in_new_namespace(|| {
            let macs = [1, 2].map(|last| MacAddress([2, 0, 0, 0, 0, last]));
            make_bridge("one", macs[0]);
            make_bridge("two", macs[1]);
            let interface = |mac, name: &str, v4: &str, v6: &str| Interface {
                mac,
                name: name.parse().unwrap(),
                mtu: Some(1400),
                no_arp: false,
                addresses: vec![v4.parse().unwrap(), v6.parse().unwrap()],
                routes: Vec::new(),
            };
            // The two swap their names.
            let mut first = interface(macs[0], "two", "192.0.2.5/24", "2001:db8:1::5/64");
            for (destination, gateway) in [("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8:1::1")] {
                first.routes.push(Route {
                    destination: destination.parse().unwrap(),
                    gateway: Some(gateway.parse().unwrap()),
                });
            }
            // Routes to gateways come first, which are those to the addresses' own networks.
            for destination in ["192.0.2.0/24", "2001:db8:1::/64"] {
                let destination = destination.parse().unwrap();
                first.routes.insert(0, Route { destination, gateway: None });
            }
            let second = interface(macs[1], "one", "198.51.100.5/24", "2001:db8:2::5/64");
            configure(&GuestNetwork { interfaces: vec![first, second] }).unwrap();

            for (name, v4, v6) in
                [("two", "192.0.2.5", "2001:db8:1::5"), ("one", "198.51.100.5", "2001:db8:2::5")]
            {
                let found = addresses(name);
                assert!(found.contains(&v4.parse().unwrap()), "{name}: {found:?}");
                assert!(found.contains(&v6.parse().unwrap()), "{name}: {found:?}");
            }
            // Interface, destination, gateway 192.0.2.1 in the processor's byte order.
            let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
            assert!(routes.contains("two\t00000000\t010200C0"), "{routes}");
            let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
            assert!(routes.lines().any(|line| line.starts_with(&"0".repeat(32)) && line.ends_with(" two")));
            let links = Netlink::open().unwrap().links().unwrap();
            assert!(links.iter().any(|link| link.name == "two" && link.mac == Some(macs[0])), "{links:?}");
        });
    }

    #[test]
    fn a_refusal_says_what_was_asked_for() {
        in_new_namespace(|| {
            let mac = MacAddress([2, 0, 0, 0, 0, 3]);
            make_bridge("three", mac);
            let route = Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: Some("203.0.113.1".parse().unwrap()),
            };
            let interface = Interface {
                mac,
                name: "three".parse().unwrap(),
                mtu: None,
                no_arp: false,
                addresses: Vec::new(),
                routes: vec![route],
            };
            let error = configure(&GuestNetwork { interfaces: vec![interface] }).unwrap_err();
            let expected = "cannot add the route to 0.0.0.0/0 by three through 203.0.113.1";
            assert_eq!(error.to_string(), expected);
        });
    }
}
