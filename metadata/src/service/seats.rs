//! How many connections there are, and whose.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// Room for so many connections, and for so many of one peer.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    most_of_peer: usize,
    taken: Rc<RefCell<HashMap<IpAddr, usize>>>,
}

/// One connection; given back with this value.
#[derive(Debug)]
pub struct Seat {
    peer: IpAddr,
    taken: Rc<RefCell<HashMap<IpAddr, usize>>>,
}

impl Seats {
    /// All of them free.
    pub fn new(most: usize, most_of_peer: usize) -> Self {
        Self { most, most_of_peer, taken: Rc::default() }
    }

    /// Takes one, if there is one for this peer.
    pub fn take(&self, address: IpAddr) -> Option<Seat> {
        let peer = peer(address);
        let mut taken = self.taken.borrow_mut();
        if taken.values().sum::<usize>() >= self.most {
            return None;
        }
        let of_peer = taken.entry(peer).or_default();
        if *of_peer >= self.most_of_peer {
            return None;
        }
        *of_peer += 1;
        Some(Seat { peer, taken: Rc::clone(&self.taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.borrow_mut();
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Who has an address: of IPv6, whoever has its network of 64 bits, in which one interface has as many as it likes.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_not_all_of_them() {
        let seats = Seats::new(5, 2);
        let take = |address: &str| seats.take(address.parse().unwrap());
        let mut held = vec![take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap()];
        assert!(take("192.0.2.1").is_none(), "in whatever form");
        held.extend([take("fd00::1").unwrap(), take("fd00::2").unwrap()]);
        assert!(take("fd00::3").is_none(), "by whatever address");
        held.push(take("fd00:0:0:1::1").unwrap());
        assert!(take("192.0.2.9").is_none(), "all are taken");
        held.clear();
        assert!(take("192.0.2.1").is_some() && seats.taken.borrow().is_empty());
    }
}
