//! The network cards of a VM, one for each interface that the plugins have made in the pod's network namespace. If it is a tap, the
//! machine has it; else there is a tap beside it, which all packets are redirected to and from.

use std::fs::File;

use net::handover::Handover;
use net::{InterfaceName, handover, line, redirect};
use pod::guest_network::{GuestNetwork, MacAddress};
use stage1::network::Network;
use vmm::virtio::net::tap::Queues;
use vmm::virtio::net::{Mover, NetConfig, Throttles, tap, vhost};

use crate::error::Error;

/// Both ends of the cards.
#[derive(Debug, Default)]
pub struct NetworkCards {
    /// What the guest is to make of them.
    pub guest: GuestNetwork,
    /// What the machine is to have.
    pub host: Vec<NetConfig>,
}

impl NetworkCards {
    /// Says who moves the frames of each.
    pub fn tell(&self) {
        for (card, interface) in self.host.iter().zip(&self.guest.interfaces) {
            let who = match card.mover {
                Mover::Kernel(_) => "the host's kernel (vhost-net)",
                Mover::Vmm(_) => "the VMM",
            };
            eprintln!("stage1-kvm: {} is served by {who}", interface.name);
        }
    }
}

/// Attaches a machine that is yet to be made to the pod's networks. The taps are gone with the machine and the namespace.
pub fn attach(network: &Network, throttles: Option<&Throttles>) -> Result<NetworkCards, Error> {
    let interfaces = network.interfaces();
    network.within(|| attach_here(&interfaces, throttles))?
}

fn attach_here(interfaces: &[InterfaceName], throttles: Option<&Throttles>) -> Result<NetworkCards, Error> {
    let mut cards = NetworkCards::default();
    for (number, handover) in handover::read(interfaces)?.into_iter().enumerate() {
        let tap = tap_for(&handover, number)?;
        let MacAddress(mac) = handover.interface.mac;
        cards.host.push(NetConfig { tap, mac, mover: mover(throttles)? });
        cards.guest.interfaces.push(handover.interface);
    }
    Ok(cards)
}

/// The host's kernel moves the frames where it can, and where nothing of ours has to count them.
fn mover(throttles: Option<&Throttles>) -> Result<Mover, Error> {
    let device = match throttles {
        Some(throttles) => return Ok(Mover::Vmm(throttles.clone())),
        None => vhost::open().map_err(Error::Vhost)?,
    };
    Ok(device.map_or_else(|| Mover::Vmm(Throttles::default()), Mover::Kernel))
}

/// The plugin's tap, or one of the machine's own that is joined to the plugin's interface.
fn tap_for(handover: &Handover, number: usize) -> Result<File, Error> {
    if let Some(made) = handover.tap {
        line::leave_to_guest(handover)?;
        let queues = if made.multi_queue { Queues::Many } else { Queues::One };
        return Ok(tap::open(handover.interface.name.as_str(), queues)?);
    }
    let name = format!("tap{number}");
    let tap = tap::open(&name, Queues::One)?;
    redirect::join(handover, &name)?;
    Ok(tap)
}
