//! What an app tells of itself, as a service tells systemd (sd_notify(3)): datagrams to a socket of its own root, which no other
//! app of the pod sees.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, recv, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use pod::plan::NOTIFY_SOCKET;

use crate::error::Error;

/// The longest message that is looked at whole, as in systemd.
const MAX_BYTES: usize = 4096;
/// How many messages are taken before anything else has its turn.
const MAX_AT_ONCE: usize = 16;

/// The socket, and what has come of it.
#[derive(Debug)]
pub struct Notifications {
    socket: OwnedFd,
    is_ready: bool,
}

/// Makes the socket in this process's root, which is the app's; any user of it may send.
pub fn listen() -> Result<OwnedFd, Error> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listening = || {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(NOTIFY_SOCKET)?)?;
        fchmodat(AT_FDCWD, NOTIFY_SOCKET, Mode::from_bits_truncate(0o666), FchmodatFlags::FollowSymlink)?;
        Ok(socket)
    };
    listening().map_err(Error::path("listen at", NOTIFY_SOCKET))
}

impl Notifications {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, is_ready: false }
    }

    /// Takes what has come; whether it says that the app is ready, for the first time. What else an app tells systemd is for
    /// nobody here.
    pub fn take(&mut self) -> bool {
        let was_ready = self.is_ready;
        let mut bytes = [0; MAX_BYTES];
        for _ in 0..MAX_AT_ONCE {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(count) => self.is_ready |= says_ready(bytes.get(..count).unwrap_or_default()),
                Err(_) => break,
            }
        }
        self.is_ready && !was_ready
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{send, socketpair};

    #[test]
    fn an_app_becomes_ready_once() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (here, app) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).unwrap();
        let mut notifications = Notifications::new(here);
        let mut tell = |text: &str| {
            send(app.as_raw_fd(), text.as_bytes(), MsgFlags::empty()).unwrap();
            notifications.take()
        };
        assert!(!tell("STATUS=READY=1") && !tell("") && !tell(&"x".repeat(5000)));
        assert!(tell("STATUS=up\nREADY=1\n"));
        assert!(!tell("READY=1"));
    }
}
