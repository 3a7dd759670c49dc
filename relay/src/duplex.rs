//! Two sockets that are connected to each other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::carrier::{Carrier, Source};
use crate::ends::{Sink, SinkEnd};

/// Carries between two sockets in both directions, of which each ends by itself: the end of what one says is passed on, and
/// the other may still answer.
pub fn both_directions(one: OwnedFd, other: OwnedFd) -> nix::Result<[Carrier; 2]> {
    let (from_one, from_other) = (duplicate(one.as_fd())?, duplicate(other.as_fd())?);
    let carry = |from, to| Ok(Carrier::new(vec![Source::new(from)], Sink::new(to, SinkEnd::HalfClose)?));
    Ok([carry(from_one, other)?, carry(from_other, one)?])
}

fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use nix::poll::{PollTimeout, poll};

    /// Carries between them, in a thread, until both directions have ended.
    fn carry(one: OwnedFd, other: OwnedFd) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || drive(both_directions(one, other).unwrap().into()))
    }

    fn drive(mut carriers: Vec<Carrier>) {
        while !carriers.is_empty() {
            let mut set = Vec::new();
            carriers.iter().for_each(|carrier| carrier.interests(&mut set));
            assert!(poll(&mut set, PollTimeout::from(10_000u16)).unwrap() > 0, "nothing happens");
            let mut answers = set.iter().map(|fd| fd.revents().unwrap()).collect::<Vec<_>>().into_iter();
            carriers.iter_mut().for_each(|carrier| carrier.advance(&mut answers));
            carriers.retain(|carrier| !carrier.is_done());
        }
    }

    /// The ends of a client and of a server, with what carries in between.
    fn connected() -> (TcpStream, UnixStream, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        let (far, server) = UnixStream::pair().unwrap();
        (client, server, carry(near.into(), far.into()))
    }

    #[test]
    fn who_has_said_all_still_hears_the_answer() {
        let (mut client, mut server, carrying) = connected();
        client.write_all(&[7; 300_000]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).unwrap();
        server.write_all(&question).unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == [7; 300_000]);
        drop(client);
        carrying.join().unwrap();
    }

    #[test]
    fn who_has_gone_is_not_waited_for() {
        for client_first in [true, false] {
            let (mut client, mut server, carrying) = connected();
            client.write_all(b"a").unwrap();
            server.write_all(b"b").unwrap();
            server.read_exact(&mut [0]).unwrap();
            client.read_exact(&mut [0]).unwrap();
            match client_first {
                true => {
                    drop(client);
                    assert_eq!(server.read(&mut [0]).unwrap(), 0);
                    drop(server);
                }
                false => {
                    drop(server);
                    assert_eq!(client.read(&mut [0]).unwrap(), 0);
                    drop(client);
                }
            }
            carrying.join().unwrap();
        }
    }
}
