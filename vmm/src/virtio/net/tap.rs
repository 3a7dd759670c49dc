//! Tap interfaces of the host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The length of the virtio header before each frame, `struct virtio_net_hdr_v1` (virtio 1.2, section 5.1.6).
pub const HEADER_BYTES: usize = 12;
/// Where taps are made.
pub const TUN_DEVICE: &str = "/dev/net/tun";

/// Why a tap could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is empty or too long for an interface.
    #[error("\"{0}\" cannot be an interface's name: it takes 1 to 15 bytes")]
    Name(String),
    /// The device from which taps are made cannot be opened.
    #[error("cannot open {TUN_DEVICE}; load the module tun, or allow this process to use the device")]
    Open(#[source] io::Error),
    /// The interface could not be attached to or made.
    #[error(
        "cannot attach to the tap {name}; it takes CAP_NET_ADMIN or the tap's owner, and nobody else attached"
    )]
    Attach {
        /// The interface.
        name: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// What the host may leave to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames without a checksum.
    pub checksum: bool,
    /// TCP segments over IPv4 that are not cut to the MTU.
    pub tso4: bool,
    /// TCP segments over IPv6 that are not cut to the MTU.
    pub tso6: bool,
}

/// How many programs a tap is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One.
    One,
    /// Any number (`IFF_MULTI_QUEUE`), of which this is one. A tap that is there is what it was made.
    Many,
}

/// Opens the tap `name` of the current network namespace, which is made if it is not there, as
/// [`super::NetConfig`] wants it.
pub fn open(name: &str, queues: Queues) -> Result<File, TapError> {
    let mut request = interface_request(name, queues).ok_or_else(|| TapError::Name(name.to_owned()))?;
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
        .map_err(TapError::Open)?;
    let failed = |source| TapError::Attach { name: name.to_owned(), source };
    let header_bytes = HEADER_BYTES as libc::c_int;
    // SAFETY: TUNSETIFF reads and writes the ifreq that it is given, which lives through the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map_err(failed)?;
    // SAFETY: TUNSETVNETHDRSZ reads the int that it is given, which lives through the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_bytes) })
        .map_err(failed)?;
    Ok(tap)
}

fn interface_request(name: &str, queues: Queues) -> Option<libc::ifreq> {
    // SAFETY: all zeros is a valid ifreq: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name ends with a zero byte.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return None;
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = byte as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = flags | if queues == Queues::Many { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    Some(request)
}

/// Tells the host what it may leave to the guest.
pub fn set_offloads(tap: &File, offloads: Offloads) -> io::Result<()> {
    let Offloads { checksum, tso4, tso6 } = offloads;
    let flags = [(checksum, libc::TUN_F_CSUM), (tso4, libc::TUN_F_TSO4), (tso6, libc::TUN_F_TSO6)]
        .into_iter()
        .filter_map(|(wanted, flag)| wanted.then_some(flag))
        .fold(0, |flags, flag| flags | flag);
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["", "sixteen-bytes-16", "a\0b"] {
            assert!(matches!(open(name, Queues::One), Err(TapError::Name(_))), "{name}");
        }
        assert!(interface_request("fifteen-bytes-1", Queues::One).is_some());
    }
}
