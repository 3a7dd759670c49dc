//! Joins two interfaces of a network namespace: whatever arrives at one leaves by the other, unseen by the namespace itself
//! (tc-mirred(8); what Kata Containers and Firecracker's tc-redirect-tap do, too).
//!
//! So the plugins' interface keeps its addresses, which some plugins look for when they undo what they have done, and yet
//! nobody but the guest answers there.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use nix::sched::{CloneFlags, unshare};

use crate::handover::Handover;
use crate::netlink::Netlink;
use crate::plan::{self, Link};
use crate::{Error, namespace};

/// One request to the kernel's traffic control.
#[derive(Clone, Debug, PartialEq)]
struct Request {
    /// For errors: "redirect packets from eth0 to tap0".
    what: String,
    /// The netlink message's type.
    kind: u16,
    /// The message.
    message: TcMessage,
}

/// Where an interface's incoming packets are filtered (the kernel's `TC_H_INGRESS` and its qdisc).
const INGRESS: TcHandle = TcHandle { major: u16::MAX, minor: 0 };
/// The filter's place among others, of which there are none.
const PRIORITY: u32 = 1;
/// Packets of every protocol (`ETH_P_ALL`), as it is on the wire.
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();
/// What the loopback interface is in a new namespace.
const LOOPBACK: (u32, &str) = (1, "lo");

/// Joins an interface of this network namespace to the tap `tap`, which gets its MTU and goes into operation. The interface receives
/// all multicast groups: which ones the guest has joined the namespace does not know, and a macvlan passes no other ones on.
pub fn join(handover: &Handover, tap: &str) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let found: Option<&Link> = links.iter().find(|link| link.name == tap);
    let tap_index = found.map(|link| link.index).ok_or_else(|| Error::NoTap(tap.to_owned()))?;
    let interface = &handover.interface;
    if let Some(mtu) = interface.mtu {
        netlink.execute(&plan::set_mtu(tap_index, tap, mtu))?;
    }
    let ends = ((handover.index, interface.name.as_str()), (tap_index, tap));
    execute(&mut netlink, &both_ways(ends.0, ends.1))?;
    netlink.execute(&plan::receive_all_groups(handover.index, &interface.name))?;
    netlink.execute(&plan::set_up(tap_index, tap))
}

/// Whether this kernel can do it, by trying it in a network namespace that is gone afterwards.
pub fn check() -> Result<(), Error> {
    let tried = namespace::in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Trial(errno.into()))?;
        let mut netlink = Netlink::open()?;
        execute(&mut netlink, &one_way(LOOPBACK, LOOPBACK))
            .map_err(|error| Error::NoRedirect(Box::new(error)))
    });
    tried.unwrap_or_else(|error| Err(Error::Trial(error)))
}

fn execute(netlink: &mut Netlink, requests: &[Request]) -> Result<(), Error> {
    requests.iter().try_for_each(|request| {
        netlink.request(&request.what, request.kind, &request.message, NLM_F_CREATE | NLM_F_EXCL)
    })
}

/// An interface by the kernel's number, and its name for errors.
type End<'a> = (u32, &'a str);

fn both_ways(one: End, other: End) -> Vec<Request> {
    [one_way(one, other), one_way(other, one)].concat()
}

fn one_way(from: End, to: End) -> Vec<Request> {
    vec![
        Request {
            what: format!("filter the packets that arrive at {}", from.1),
            kind: libc::RTM_NEWQDISC,
            message: ingress(from.0),
        },
        Request {
            what: format!("redirect packets from {} to {}", from.1, to.1),
            kind: libc::RTM_NEWTFILTER,
            message: redirect(from.0, to.0),
        },
    ]
}

fn ingress(index: u32) -> TcMessage {
    let mut message = message(index);
    message.header.handle = INGRESS;
    message.header.parent = TcHandle::INGRESS;
    message.attributes.push(TcAttribute::Kind("ingress".into()));
    message
}

/// Not every kernel has the classifier "matchall"; "u32" with a key that masks everything out is the same.
fn redirect(from: u32, to: u32) -> TcMessage {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut message = message(from);
    message.header.parent = INGRESS;
    message.header.info = PRIORITY << 16 | u32::from(ALL_PROTOCOLS);
    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.into()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![leave_by(to)])),
    ]));
    message
}

fn leave_by(index: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = index;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    action
}

fn message(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    // The kernel counts interfaces in an int.
    message.header.index = index.cast_signed();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_leads_to_the_other() {
        let requests = both_ways((7, "eth0"), (9, "tap0"));
        let what: Vec<&str> = requests.iter().map(|request| request.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "filter the packets that arrive at eth0",
                "redirect packets from eth0 to tap0",
                "filter the packets that arrive at tap0",
                "redirect packets from tap0 to eth0",
            ]
        );
        let at: Vec<i32> = requests.iter().map(|request| request.message.header.index).collect();
        assert_eq!(at, [7, 7, 9, 9]);
        let leads_to = |request: &Request, index: u32| {
            let wanted = TcOption::U32(TcFilterU32Option::Action(vec![leave_by(index)]));
            request.message.attributes.iter().any(
                |attribute| matches!(attribute, TcAttribute::Options(options) if options.contains(&wanted)),
            )
        };
        assert!(leads_to(&requests[1], 9) && leads_to(&requests[3], 7) && !leads_to(&requests[1], 7));
    }
}
