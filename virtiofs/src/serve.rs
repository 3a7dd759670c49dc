//! The server at work on its socket.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::server::Server;

/// More than the longest request that the device sends; longer ones are cut off, and so no requests.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// What answers a request that FUSE has no reply to.
const NO_REPLY: &[u8] = &[0];

/// Answers requests until the other end of `socket`, of sequenced packets, is closed.
pub fn serve(server: &mut Server, socket: impl AsFd) -> nix::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let mut message = vec![0; MAX_MESSAGE_BYTES];
    loop {
        let count = match recv(socket, &mut message, MsgFlags::empty()) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(()),
            Err(Errno::EINTR) => continue,
            count => count?,
        };
        let reply = server.answer(message.get(..count).unwrap_or_default());
        let reply = reply.as_deref().unwrap_or(NO_REPLY);
        match send(socket, reply, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}
