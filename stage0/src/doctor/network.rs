//! What networks of VMs need.

use std::error::Error;
use std::fs::File;

use net::redirect;
use vmm::virtio::net::tap::TUN_DEVICE;
use vmm::virtio::net::vhost::{self, VHOST_DEVICE};

use super::{Need, Row};

pub fn rows() -> Vec<Row> {
    vec![tap(), redirection(), vhost()]
}

fn tap() -> Row {
    match File::options().read(true).write(true).open(TUN_DEVICE) {
        Ok(_) => Row::ok("tap devices", Need::Optional, TUN_DEVICE),
        Err(error) => {
            let found = format!("{TUN_DEVICE}: {error}");
            Row::missing("tap devices", Need::Optional, found, "modprobe tun, as root")
        }
    }
}

fn redirection() -> Row {
    let name = "networks of VMs";
    match redirect::check() {
        Ok(()) => Row::ok(name, Need::Optional, "packets can be redirected"),
        Err(error) => {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let remedy = "modprobe -a sch_ingress cls_u32 act_mirred, as root";
            Row::missing(name, Need::Optional, cause, remedy)
        }
    }
}

/// Nobody lacks it: without it the VMM moves the packets.
fn vhost() -> Row {
    let name = "packets of VMs";
    match vhost::open() {
        Ok(Some(_)) => Row::ok(name, Need::Optional, format!("moved by the host's kernel: {VHOST_DEVICE}")),
        Ok(None) => Row::ok(name, Need::Optional, format!("moved by the VMM: there is no {VHOST_DEVICE}")),
        Err(error) => {
            let remedy = "allow the use of the device, or take the module vhost_net from this host";
            Row::missing(name, Need::Optional, format!("{VHOST_DEVICE}: {error}"), remedy)
        }
    }
}
