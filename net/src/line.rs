//! The host's end of a line to a guest: a tap that a plugin has made in the pod's network namespace.
//!
//! What the plugin has given to it is the guest's, at the other end. No two ends can have the same addresses: the namespace would
//! answer for the guest, and take the guest's packets for its own.

use pod::guest_network::MacAddress;

use crate::Error;
use crate::handover::Handover;
use crate::netlink::Netlink;
use crate::plan::{self, Request};

/// The first byte of the MAC address of the host's end, as libvirt has it: the address is locally administered, and no bridge takes
/// the greatest of its ports' for its own.
const FIRST_BYTE: u8 = 0xfe;
/// The same for a guest's address that begins so.
const OTHER_FIRST_BYTE: u8 = 0xfa;

/// Leaves to the guest what it takes over from a tap of this network namespace. Do it before a program has the tap: it has no carrier
/// until then, so that the kernel has not made it an address of the link's from the guest's MAC address.
pub fn leave_to_guest(handover: &Handover) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    requests(handover).iter().try_for_each(|request| netlink.execute(request))
}

fn requests(handover: &Handover) -> Vec<Request> {
    let Handover { index, interface, .. } = handover;
    let mut requests = vec![plan::set_mac(*index, &interface.name, host_end_of(interface.mac))];
    // Where the first address of a network goes, all of it may go.
    let addresses = interface.addresses.iter().rev();
    requests.extend(addresses.map(|address| plan::remove_address(*index, &interface.name, *address)));
    requests.push(plan::set_up(*index, &interface.name));
    requests
}

fn host_end_of(MacAddress([first, rest @ ..]): MacAddress) -> MacAddress {
    let first = if first == FIRST_BYTE { OTHER_FIRST_BYTE } else { FIRST_BYTE };
    let [b, c, d, e, f] = rest;
    MacAddress([first, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_differ() {
        let of = |text: &str| host_end_of(text.parse().unwrap()).to_string();
        assert_eq!(of("02:00:00:00:00:07"), "fe:00:00:00:00:07");
        assert_eq!(of("fe:00:00:00:00:07"), "fa:00:00:00:00:07");
    }
}
