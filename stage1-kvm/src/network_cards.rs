//! The network cards of a VM: for each interface that the plugins have made in the pod's network namespace a tap beside it,
//! which the machine has and which all packets are redirected to and from.

use net::{InterfaceName, handover, redirect};
use pod::guest_network::{GuestNetwork, MacAddress};
use stage1::network::Network;
use vmm::virtio::net::{NetConfig, Throttles, tap};

use crate::error::Error;

/// Both ends of the cards.
#[derive(Debug, Default)]
pub struct NetworkCards {
    /// What the guest is to make of them.
    pub guest: GuestNetwork,
    /// What the machine is to have.
    pub host: Vec<NetConfig>,
}

/// Attaches a machine that is yet to be made to the pod's networks. The taps are gone with the machine and the namespace.
pub fn attach(network: &Network, throttles: &Throttles) -> Result<NetworkCards, Error> {
    let interfaces = network.interfaces();
    network.within(|| attach_here(&interfaces, throttles))?
}

fn attach_here(interfaces: &[InterfaceName], throttles: &Throttles) -> Result<NetworkCards, Error> {
    let mut cards = NetworkCards::default();
    for (number, handover) in handover::read(interfaces)?.into_iter().enumerate() {
        let name = format!("tap{number}");
        let tap = tap::open(&name)?;
        redirect::join(&handover, &name)?;
        let MacAddress(mac) = handover.interface.mac;
        cards.host.push(NetConfig { tap, mac, throttles: throttles.clone() });
        cards.guest.interfaces.push(handover.interface);
    }
    Ok(cards)
}
