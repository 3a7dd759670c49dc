//! From a process that is about to become an app to the supervisor: why that failed, or nothing. The channel closes
//! itself when the program is executed.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use crate::error::{Error, causes};

/// The longest chain of causes that is passed on.
const MAX_BYTES: usize = 16 << 10;
/// Sent along with a descriptor, for a message needs a byte.
const NAMESPACE: &[u8] = b"\0";

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
    /// The app's mount namespace, for its post-stop handler.
    Namespace(OwnedFd),
    /// The chain of causes of a failure, outermost first.
    Failed(Vec<String>),
    /// The program was executed, or the process has died without a word.
    Closed,
}

/// A channel.
pub fn pair() -> nix::Result<(Listener, Reporter)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (listener, reporter) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
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
        self.send(NAMESPACE, &[namespace.as_raw_fd()])
    }

    fn send(&self, bytes: &[u8], descriptors: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).map(drop)
    }
}

impl Listener {
    /// What has come, without waiting.
    pub fn hear(&self) -> News {
        let mut bytes = vec![0; MAX_BYTES];
        let mut control = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return News::Nothing,
            Err(_) => return News::Closed,
        };
        let length = message.bytes;
        let descriptors = message.cmsgs().into_iter().flatten().find_map(|message| match message {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        match (descriptors, length) {
            // SAFETY: the kernel has just made it for this message, and nobody else knows of it.
            (Some(fd), _) => News::Namespace(unsafe { OwnedFd::from_raw_fd(fd) }),
            (None, 0) => News::Closed,
            (None, length) => {
                let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
                News::Failed(text.split('\0').map(str::to_owned).collect())
            }
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
        let (listener, reporter) = pair().unwrap();
        assert!(matches!(listener.hear(), News::Nothing));
        reporter.fail(&Error::path("mount tmpfs on", "/dev")(Errno::EPERM));
        drop(reporter);
        let News::Failed(causes) = listener.hear() else { panic!("no failure") };
        assert_eq!(causes, ["cannot mount tmpfs on /dev", "EPERM: Operation not permitted"]);
        assert!(matches!(listener.hear(), News::Closed));
    }

    #[test]
    fn a_descriptor_is_handed_over() {
        let (listener, reporter) = pair().unwrap();
        reporter.hand_over(std::fs::File::open("/proc/self/ns/mnt").unwrap().as_fd()).unwrap();
        assert!(matches!(listener.hear(), News::Namespace(_)));
    }
}
