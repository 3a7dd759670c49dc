//! Listening sockets that the caller passes for the apps, as systemd does (sd_listen_fds(3)).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};
use pod::pod_manifest::PodManifest;
use pod::ports::Protocol;
use pod::sockets::{Announced, FIRST, LISTEN_FDS, Listening, Passed, asking, assign};

use crate::cli::Stage1;

/// Why the sockets that were passed, or not, cannot be the apps'.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variables, or which socket is whose.
    #[error(transparent)]
    Pod(#[from] pod::Error),
    /// What was announced is not there.
    #[error("descriptor {descriptor}, which {LISTEN_FDS} announces, cannot be used")]
    Descriptor {
        /// Which.
        descriptor: RawFd,
        /// The cause.
        #[source]
        source: Errno,
    },
    /// It is something else.
    #[error("descriptor {descriptor}, which {LISTEN_FDS} announces, is not {wanted}")]
    Kind {
        /// Which.
        descriptor: RawFd,
        /// What it should be.
        wanted: &'static str,
    },
    /// A guest's kernel has sockets of its own.
    #[error(
        "{0} is socket-activated, which --stage1=kvm cannot do: a VM's kernel has none of the host's sockets; use \
        --stage1=nspawn, or let the app open its own socket"
    )]
    OfVm(String),
}

/// The caller's sockets, held for the apps: no program that is started meanwhile inherits them.
#[derive(Debug, Default)]
pub struct Sockets {
    descriptors: Vec<OwnedFd>,
    listening: Vec<Listening>,
}

impl Sockets {
    /// Takes what is announced to this process; nothing, if nothing is. To be called once, before other descriptors are
    /// opened.
    pub fn take() -> Result<Self, Error> {
        let announced = Announced::parse(std::process::id(), |name| std::env::var(name).ok())?;
        let mut sockets = Self::default();
        for (descriptor, name) in (FIRST..).zip(announced.names) {
            let socket = take(descriptor)?;
            sockets.listening.push(examine(&socket, name)?);
            sockets.descriptors.push(socket);
        }
        Ok(sockets)
    }

    /// Which app gets which.
    pub fn assign(&self, manifest: &PodManifest, stage1: Stage1) -> Result<Vec<Vec<Passed>>, Error> {
        match (stage1, asking(manifest)?) {
            (Stage1::Kvm, Some(port)) => Err(Error::OfVm(port)),
            _ => Ok(assign(manifest, &self.listening)?),
        }
    }

    /// Lets the program that is executed next inherit them.
    pub fn pass_on(&self) -> nix::Result<()> {
        let inherit = |socket: &OwnedFd| fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).map(drop);
        self.descriptors.iter().try_for_each(inherit)
    }
}

fn take(descriptor: RawFd) -> Result<OwnedFd, Error> {
    // SAFETY: the descriptor is only asked about; a number that is not open is an error of fcntl.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|source| Error::Descriptor { descriptor, source })?;
    // SAFETY: it is open, as fcntl has just shown, and by the protocol it is this process's; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn examine(socket: &OwnedFd, name: Option<String>) -> Result<Listening, Error> {
    let descriptor = socket.as_raw_fd();
    let kind = |wanted| Error::Kind { descriptor, wanted };
    let failed = |source| match source {
        Errno::ENOTSOCK => kind("a socket"),
        source => Error::Descriptor { descriptor, source },
    };
    let socket_type = getsockopt(socket, sockopt::SockType).map_err(failed)?;
    let address: SockaddrStorage = getsockname(descriptor).map_err(failed)?;
    let address =
        internet(&address).ok_or_else(|| kind("a socket of an Internet address, which has a port"))?;
    let protocol = match socket_type {
        SockType::Stream if getsockopt(socket, sockopt::AcceptConn).map_err(failed)? => Protocol::Tcp,
        SockType::Stream => return Err(kind("a socket that listens (of a systemd unit with Accept=no)")),
        SockType::Datagram => Protocol::Udp,
        _ => return Err(kind("a socket of TCP or UDP")),
    };
    Ok(Listening { descriptor, name, protocol, address })
}

fn internet(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::new(IpAddr::V6(v6.ip()), v6.port())))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_a_socket_is() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let found = examine(&tcp.into(), Some("web".into())).unwrap();
        assert_eq!(
            (found.protocol, found.address, found.name.as_deref()),
            (Protocol::Tcp, address, Some("web"))
        );
        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        assert_eq!(examine(&udp.into(), None).unwrap().protocol, Protocol::Udp);
    }

    #[test]
    fn what_is_no_listening_socket_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cases: [(OwnedFd, &str); 3] = [
            (std::fs::File::open("/dev/null").unwrap().into(), "not a socket"),
            (UnixListener::bind(home.path().join("s")).unwrap().into(), "has a port"),
            (TcpStream::connect(listener.local_addr().unwrap()).unwrap().into(), "that listens"),
        ];
        for (descriptor, expected) in cases {
            let error = examine(&descriptor, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
