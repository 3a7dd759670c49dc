//! Packets with descriptors, over sockets that keep packets apart (SOCK_SEQPACKET). Nothing here waits.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The most descriptors that go with a packet; the kernel closes those beyond.
const MAX_DESCRIPTORS: usize = 3;

/// What has come.
#[derive(Debug)]
pub struct Packet {
    /// Not empty: an empty packet is the end of the connection.
    pub bytes: Vec<u8>,
    /// What came along.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends a packet, which must not be empty.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).map(drop)
}

/// The next packet, of at most `limit` bytes; `None` at the end of the connection, EAGAIN if there is none yet.
pub fn receive(socket: impl AsFd, limit: usize) -> nix::Result<Option<Packet>> {
    let mut bytes = vec![0; limit];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let (length, truncated) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    let mut descriptors = Vec::new();
    for message in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(received) = message {
            // SAFETY: the kernel has just made them for this message, and nobody else knows of them.
            descriptors.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if truncated {
        return Err(Errno::EMSGSIZE);
    }
    bytes.truncate(length);
    Ok((length > 0).then_some(Packet { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn packets_and_descriptors_arrive_as_they_were_sent() {
        let (near, far) = pair();
        assert_eq!(receive(&far, 10).unwrap_err(), Errno::EAGAIN);
        let (read, write) = nix::unistd::pipe().unwrap();
        send(&near, b"one", &[read.as_fd(), near.as_fd()]).unwrap();
        send(&near, b"two", &[]).unwrap();
        let one = receive(&far, 10).unwrap().unwrap();
        assert_eq!((one.bytes.as_slice(), one.descriptors.len()), (&b"one"[..], 2));
        nix::unistd::write(&write, b"x").unwrap();
        assert_eq!(nix::unistd::read(&one.descriptors[0], &mut [0; 9]).unwrap(), 1);
        let two = receive(&far, 10).unwrap().unwrap();
        assert_eq!((two.bytes.as_slice(), two.descriptors.len()), (&b"two"[..], 0));
        drop((near, one));
        assert!(receive(&far, 10).unwrap().is_none());
    }

    #[test]
    fn a_packet_above_the_limit_is_an_error() {
        let (near, far) = pair();
        send(&near, &[b'x'; 11], &[]).unwrap();
        assert_eq!(receive(&far, 10).unwrap_err(), Errno::EMSGSIZE);
    }
}
