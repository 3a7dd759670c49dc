//! The rates of the pod as limits of the machine's devices.

use pod::rates::{MachineRates, RateKind};
use vmm::rate_limiter::{Rate, RateLimits};
use vmm::virtio::net::Throttles;
use vmm::virtio::throttle::Throttle;

/// The limit of the machine's disk.
pub fn of_disk(rates: &MachineRates) -> Throttle {
    Throttle::new(RateLimits {
        bytes: steady(rates, RateKind::BlockBandwidth),
        operations: steady(rates, RateKind::BlockIops),
    })
}

/// The limits of the machine's cards, if there are any, for all of them together and each direction by itself: have every card take a
/// clone.
pub fn of_cards(rates: &MachineRates) -> Option<Throttles> {
    let bytes = Some(steady(rates, RateKind::NetworkBandwidth)?);
    let limits = RateLimits { bytes, operations: None };
    Some(Throttles { to_guest: Throttle::new(limits), from_guest: Throttle::new(limits) })
}

fn steady(rates: &MachineRates, kind: RateKind) -> Option<Rate> {
    rates.get(kind).map(Rate::steady)
}
