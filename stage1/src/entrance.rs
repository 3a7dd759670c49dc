//! Sockets in the pod's directory. Only root gets through them, whatever the directory's mode.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use ::pod::abi::PodDirectory;
use ::pod::session::MAX_SESSIONS;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use crate::Error;

/// The most connections that wait to be accepted: no session has more than three streams.
const BACKLOG: usize = 4 * MAX_SESSIONS;

/// Where the pod's parent waits for sessions. Its connections keep packets apart, which accepting does not ask about.
#[derive(Debug)]
pub struct Entrance(pub(crate) UnixListener);

impl Entrance {
    /// Opens it; clients wait until the parent attends to the pod.
    pub fn open(directory: &PodDirectory) -> Result<Self, Error> {
        listen_at(&directory.entrance(), SockType::SeqPacket).map(|socket| Self(socket.into()))
    }
}

/// A new listening socket with this file; accepting from it does not wait.
pub fn listen_at(path: &Path, kind: SockType) -> Result<OwnedFd, Error> {
    let listening = || {
        let socket = unix_socket(kind)?;
        let (_directory, address) = address(path)?;
        bind(socket.as_raw_fd(), &address)?;
        // Until it listens nobody can connect.
        fchmodat(AT_FDCWD, path, Mode::S_IRUSR | Mode::S_IWUSR, FchmodatFlags::FollowSymlink)?;
        listen(&socket, Backlog::new(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?)?;
        Ok(socket)
    };
    listening().map_err(|errno: Errno| Error::file("listen at", path)(errno.into()))
}

/// Connects to such a socket, without waiting.
pub fn connect_to(path: &Path, kind: SockType) -> nix::Result<OwnedFd> {
    let socket = unix_socket(kind)?;
    let (_directory, address) = address(path)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn unix_socket(kind: SockType) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// An address holds some hundred bytes (unix(7)), a path may have more: it goes by the open directory.
fn address(path: &Path) -> nix::Result<(OwnedFd, UnixAddr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EISDIR) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    let address = UnixAddr::new(&short)?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn however_long_the_path_is() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        assert_eq!(connect_to(&path, SockType::SeqPacket).unwrap_err(), Errno::ENOENT);
        let listener = listen_at(&path, SockType::SeqPacket).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        connect_to(&path, SockType::SeqPacket).unwrap();
        assert!(listen_at(&path, SockType::SeqPacket).is_err(), "it is there already");
        drop(listener);
        assert_eq!(connect_to(&path, SockType::SeqPacket).unwrap_err(), Errno::ECONNREFUSED);
    }
}
