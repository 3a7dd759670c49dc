//! From a process that is about to become an app to the supervisor: why that failed, or nothing. The channel closes
//! itself when the program is executed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use relay::packets::{self, Packet};

use crate::error::{Error, causes};
use crate::sys;

/// The longest chain of causes that is passed on.
const MAX_BYTES: usize = 16 << 10;
/// Sent along with a descriptor, and says what it is.
const NAMESPACE: &[u8] = b"\0";
const NOTIFICATIONS: &[u8] = b"\x01";

/// The end of the process that becomes an app.
#[derive(Debug)]
pub struct Reporter(OwnedFd);

/// The supervisor's end.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// What the supervisor hears.
#[derive(Debug)]
pub enum News {
    /// Nothing so far.
    Nothing,
    /// The app's mount namespace, for its post-stop handler and for sessions.
    Namespace(OwnedFd),
    /// The socket on which the app tells that it is ready.
    Notifications(OwnedFd),
    /// The chain of causes of a failure, outermost first.
    Failed(Vec<String>),
    /// The program was executed, or the process has died without a word.
    Closed,
}

/// A channel, whose reporter has no descriptor below `first`.
pub fn pair(first: RawFd) -> nix::Result<(Listener, Reporter)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (listener, reporter) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let reporter =
        if reporter.as_raw_fd() < first { sys::duplicate_from(reporter.as_fd(), first)? } else { reporter };
    Ok((Listener(listener), Reporter(reporter)))
}

impl Reporter {
    /// Reports a failure. That nobody may listen any more is no matter.
    pub fn fail(&self, error: &Error) {
        let text = causes(error).join("\0");
        let text = text.as_bytes().get(..MAX_BYTES).unwrap_or(text.as_bytes());
        let _ = self.send(text, &[]);
    }

    /// Hands over the namespace.
    pub fn hand_over(&self, namespace: BorrowedFd<'_>) -> nix::Result<()> {
        self.send(NAMESPACE, &[namespace])
    }

    /// Hands over the socket of the app's notifications.
    pub fn hand_over_notifications(&self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        self.send(NOTIFICATIONS, &[socket])
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
        packets::send(&self.0, bytes, descriptors)
    }
}

impl Listener {
    /// What has come, without waiting.
    pub fn hear(&self) -> News {
        let Packet { bytes, descriptors } = match packets::receive(&self.0, MAX_BYTES) {
            Ok(Some(packet)) => packet,
            Err(Errno::EAGAIN | Errno::EINTR) => return News::Nothing,
            Ok(None) | Err(_) => return News::Closed,
        };
        match descriptors.into_iter().next() {
            Some(socket) if bytes == NOTIFICATIONS => News::Notifications(socket),
            Some(namespace) => News::Namespace(namespace),
            None => News::Failed(String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_arrives_as_it_is() {
        let (listener, reporter) = pair(0).unwrap();
        assert!(matches!(listener.hear(), News::Nothing));
        reporter.fail(&Error::path("mount tmpfs on", "/dev")(Errno::EPERM));
        drop(reporter);
        let News::Failed(causes) = listener.hear() else { panic!("no failure") };
        assert_eq!(causes, ["cannot mount tmpfs on /dev", "EPERM: Operation not permitted"]);
        assert!(matches!(listener.hear(), News::Closed));
    }

    #[test]
    fn a_descriptor_is_handed_over() {
        let (listener, reporter) = pair(0).unwrap();
        reporter.hand_over(std::fs::File::open("/proc/self/ns/mnt").unwrap().as_fd()).unwrap();
        assert!(matches!(listener.hear(), News::Namespace(_)));
    }
}
