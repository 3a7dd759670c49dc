//! journald, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>): a datagram an entry, a field a line.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::pod::control::Stream;
use ::pod::types::AcName;
use uuid::Uuid;

/// Where it takes entries.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// How long the app waits for a journal that is busy. One that is stuck is not waited for again until it takes something.
const PATIENCE: Duration = Duration::from_millis(500);

/// The journal, for the entries of one app.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
    /// What all entries have.
    fields: Vec<u8>,
    stuck: bool,
}

impl Journal {
    /// The journal at `path`, if there is one.
    pub fn find(path: &Path, pod: Uuid, app: &AcName) -> Option<Self> {
        if !path.exists() {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        let fields =
            format!("SYSLOG_IDENTIFIER={app}\nRKT_POD_UUID={pod}\nRKT_APP_NAME={app}\n").into_bytes();
        Some(Self { path: path.to_owned(), socket, fields, stuck: false })
    }

    /// Sends an entry; an error tells that it is lost. It is addressed anew each time, for journald may be restarted.
    pub fn send(&mut self, stream: Stream, ends_line: bool, content: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(&self.entry(stream, ends_line, content), &self.path);
        let stuck = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if stuck != self.stuck {
            self.socket.set_nonblocking(stuck)?;
            self.stuck = stuck;
        }
        sent.map(drop)
    }

    /// The message goes with its length, so that nothing in it is taken for a field.
    fn entry(&self, stream: Stream, ends_line: bool, content: &[u8]) -> Vec<u8> {
        let (priority, name) = match stream {
            Stream::Stderr => (3, "stderr"),
            Stream::Stdin | Stream::Stdout => (6, "stdout"),
        };
        let mut entry = self.fields.clone();
        entry.extend_from_slice(format!("PRIORITY={priority}\nRKT_STREAM={name}\n").as_bytes());
        if !ends_line {
            // By the name that docker's driver has for it.
            entry.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
        }
        entry.extend_from_slice(b"MESSAGE\n");
        entry.extend_from_slice(&(content.len() as u64).to_le_bytes());
        entry.extend_from_slice(content);
        entry.push(b'\n');
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn journal(path: &Path) -> Option<Journal> {
        Journal::find(path, Uuid::from_u128(7), &"web".parse().unwrap())
    }

    #[test]
    fn entries() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        assert!(journal(&path).is_none());
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = journal(&path).unwrap();
        journal.send(Stream::Stderr, false, b"a\nPRIORITY=0").unwrap();
        let mut bytes = [0; 1000];
        let count = journald.recv(&mut bytes).unwrap();
        let wanted = b"SYSLOG_IDENTIFIER=web\nRKT_POD_UUID=00000000-0000-0000-0000-000000000007\nRKT_APP_NAME=web\n\
            PRIORITY=3\nRKT_STREAM=stderr\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n";
        assert_eq!(String::from_utf8_lossy(&bytes[..count]), String::from_utf8_lossy(wanted));
        // It is restarted.
        drop(journald);
        assert!(journal.send(Stream::Stdout, true, b"lost").is_err());
        std::fs::remove_file(&path).unwrap();
        let journald = UnixDatagram::bind(&path).unwrap();
        journal.send(Stream::Stdout, true, b"kept").unwrap();
        let count = journald.recv(&mut bytes).unwrap();
        assert!(bytes[..count].ends_with(b"\x04\0\0\0\0\0\0\0kept\n"));
    }

    #[test]
    fn a_stuck_journal_is_waited_for_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut journal = journal(&path).unwrap();
        while journal.send(Stream::Stdout, true, &[b'x'; 10_000]).is_ok() {}
        let begin = Instant::now();
        for _ in 0..100 {
            assert!(journal.send(Stream::Stdout, true, &[b'x'; 10_000]).is_err());
        }
        assert!(begin.elapsed() < 50 * PATIENCE, "{:?}", begin.elapsed());
        journald.recv(&mut [0; 20_000]).unwrap();
        journal.send(Stream::Stdout, true, b"kept").unwrap();
        assert!(!journal.stuck);
    }
}
