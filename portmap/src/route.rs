//! Which interfaces of this host lead to pods.

use std::net::Ipv4Addr;

/// `RTF_UP` and `RTF_GATEWAY` of the kernel's route flags.
const UP: u32 = 1;
const GATEWAY: u32 = 2;

/// The IPv4 routes of a network namespace.
pub struct Routes<'a>(Vec<Route<'a>>);

impl<'a> Routes<'a> {
    /// Those of the kernel's list (`/proc/net/route`).
    pub fn parse(list: &'a str) -> Self {
        Self(list.lines().skip(1).filter_map(Route::parse).collect())
    }

    /// The interface at which `address` is; none, if it is nowhere or behind somebody else.
    pub fn interface_to(&self, address: Ipv4Addr) -> Option<&'a str> {
        let fitting = self.0.iter().filter(|route| route.leads_to(address));
        let best = fitting.max_by_key(|route| route.mask)?;
        best.direct.then_some(best.interface)
    }

    /// Whether one of these addresses may be at an interface.
    pub fn may_lead(&self, interface: &str, mut addresses: impl Iterator<Item = Ipv4Addr>) -> bool {
        let there = |route: &&Route<'_>| route.direct && route.interface == interface;
        let routes: Vec<&Route<'_>> = self.0.iter().filter(there).collect();
        addresses.any(|address| routes.iter().any(|route| route.leads_to(address)))
    }
}

struct Route<'a> {
    interface: &'a str,
    destination: u32,
    mask: u32,
    direct: bool,
}

impl<'a> Route<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return None };
        // Addresses are as in memory.
        let address =
            |text| u32::from_str_radix(text, 16).ok().map(|bits| u32::from_be_bytes(bits.to_ne_bytes()));
        let flags = u32::from_str_radix(flags, 16).ok().filter(|flags| flags & UP != 0)?;
        let (destination, mask) = (address(destination)?, address(mask)?);
        Some(Self { interface, destination, mask, direct: flags & GATEWAY == 0 })
    }

    fn leads_to(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask == self.destination
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        ens1\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        lan\t0000090A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        veth1\t021C10AC\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
        veth0\t001C10AC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_narrowest_route_counts() {
        for (address, interface) in [
            ("10.9.0.77", Some("lan")),
            ("172.16.28.2", Some("veth1")),
            ("172.16.28.3", Some("veth0")),
            ("192.0.2.1", None),
        ] {
            let routes = Routes::parse(ROUTES);
            assert_eq!(routes.interface_to(address.parse().unwrap()), interface, "{address}");
        }
        assert_eq!(Routes::parse("Iface\nlo\tx\n").interface_to(Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn what_may_be_at_an_interface() {
        let routes = Routes::parse(ROUTES);
        let may_lead =
            |interface, address: &str| routes.may_lead(interface, std::iter::once(address.parse().unwrap()));
        assert!(may_lead("lan", "10.9.0.2") && !may_lead("lan", "10.9.1.2"));
        // The narrower route does not count: it may go first.
        assert!(may_lead("veth0", "172.16.28.2"));
        assert!(!may_lead("ens1", "192.0.2.1") && !may_lead("none", "10.9.0.2"));
        assert!(!routes.may_lead("lan", std::iter::empty()));
    }
}
