//! The streams of sessions. The host connects each to the guest, never the other way round: a guest gets none that it
//! was not given, and cannot have more than the host makes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::SockType;
use pod::abi::PodDirectory;
use pod::control::{Stream, StreamHello};
use pod::session::SessionId;
use stage1::entrance::{connect_to, listen_at};

/// The socket whose clients the machine connects to the guest's supervisor.
pub fn listen(directory: &PodDirectory) -> Result<UnixListener, stage1::Error> {
    listen_at(&directory.guest_entrance(), SockType::Stream).map(UnixListener::from)
}

/// Connects a session's streams; the host's ends.
pub fn open(directory: &PodDirectory, session: SessionId, streams: &[Stream]) -> nix::Result<Vec<OwnedFd>> {
    let open_one = |stream: &Stream| {
        let connection = connect_to(&directory.guest_entrance(), SockType::Stream)?;
        // It fits: nothing else is on the way in a new connection.
        nix::unistd::write(&connection, &StreamHello { app: session, stream: *stream }.encode())?;
        Ok(connection)
    };
    streams.iter().map(open_one).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use pod::session::session_streams;

    #[test]
    fn each_stream_says_what_it_is() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        let listener = listen(&directory).unwrap();
        let ends = open(&directory, 258, session_streams(false)).unwrap();
        assert_eq!(ends.len(), 3);
        for stream in session_streams(false) {
            let mut hello = [0; StreamHello::BYTES];
            listener.accept().unwrap().0.read_exact(&mut hello).unwrap();
            assert_eq!(StreamHello::decode(hello).unwrap(), StreamHello { app: 258, stream: *stream });
        }
        drop(listener);
        assert!(open(&directory, 1, session_streams(true)).is_err(), "the machine has gone");
    }
}
