//! Which interface of this host leads to a pod.

use std::net::Ipv4Addr;

/// `RTF_UP` and `RTF_GATEWAY` of the kernel's route flags.
const UP: u32 = 1;
const GATEWAY: u32 = 2;

/// The interface at which `address` is, by the kernel's list of IPv4 routes (`/proc/net/route`); none, if it is nowhere or behind somebody else.
pub fn interface_to(address: Ipv4Addr, routes: &str) -> Option<&str> {
    let routes = routes.lines().skip(1).filter_map(Route::parse);
    let fitting = routes.filter(|route| u32::from(address) & route.mask == route.destination);
    let best = fitting.max_by_key(|route| route.mask)?;
    best.direct.then_some(best.interface)
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
            assert_eq!(interface_to(address.parse().unwrap(), ROUTES), interface, "{address}");
        }
        assert_eq!(interface_to(Ipv4Addr::LOCALHOST, "Iface\nlo\tx\n"), None);
    }
}
