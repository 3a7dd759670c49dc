//! Where the service is reached.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::error::Error;

const BACKLOG: i32 = 128;

/// The port at every address of the host, of both versions of IP where it has them: which one a pod reaches depends on its
/// network.
pub fn to_pods(port: u16) -> Result<TcpListener, Error> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let one = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match at(both) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
            at(one).map_err(|errno| Error::Listen(one, errno.into()))
        }
        other => other.map_err(|errno| Error::Listen(both, errno.into())),
    }
}

fn at(address: SocketAddr) -> nix::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    if address.is_ipv6() {
        // Whatever the host has by default.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    // A service that is started again does not wait for connections of the one before.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

/// The socket for rkt. One that is there belongs to nobody, since the service is locked.
pub fn to_rkt(path: &Path) -> Result<UnixListener, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", path)(error));
        }
        _ => {}
    }
    let listening = || {
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listening().map_err(Error::io("listen at", path))
}
