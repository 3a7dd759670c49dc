//! A connection to a message bus. It reads and waits, and starts no thread: this process becomes the pod's parent by clone,
//! which takes no threads along.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::message::{self, Call, FIXED_BYTES, Kind, Message};

/// The longest line of the authentication that is read.
const MAX_LINE_BYTES: usize = 1024;

/// A connection that is open for calls.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    /// The number of the last call.
    serial: u32,
}

impl Bus {
    /// Connects by the socket at `path`. No answer is waited for longer than `patience`.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut bus = Self { stream, serial: 0 };
        bus.authenticate()?;
        let hello = bus.call(&Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            arguments: &[],
        })?;
        bus.await_answer(hello)?;
        Ok(bus)
    }

    /// By the user that the socket tells of (D-Bus specification, "Authentication Mechanisms": EXTERNAL).
    fn authenticate(&mut self) -> io::Result<()> {
        let user = nix::unistd::geteuid().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let answer = self.line()?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("the bus does not let this user in: {answer}")));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Byte by byte: what comes behind it is no line.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE_BYTES {
                return Err(nonsense());
            }
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Makes a call; its number, which the answer names.
    pub fn call(&mut self, call: &Call<'_>) -> io::Result<u32> {
        self.serial += 1;
        self.stream.write_all(&call.to_bytes(self.serial))?;
        Ok(self.serial)
    }

    /// Waits for the answer to a call that returns nothing of interest.
    pub fn await_answer(&mut self, call: u32) -> io::Result<()> {
        loop {
            let message = self.next()?;
            match message.kind {
                Kind::Return { to } if to == call => return Ok(()),
                Kind::Error { to, .. } if to == call => return Err(message.into_error()),
                _ => {}
            }
        }
    }

    /// The next message of any kind.
    pub fn next(&mut self) -> io::Result<Message> {
        let mut bytes = vec![0; FIXED_BYTES];
        self.stream.read_exact(&mut bytes)?;
        let length = message::length(&bytes).ok_or_else(nonsense)?;
        bytes.resize(length, 0);
        let rest = bytes.get_mut(FIXED_BYTES..).ok_or_else(nonsense)?;
        self.stream.read_exact(rest)?;
        Message::parse(&bytes).ok_or_else(nonsense)
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the bus says is no message of D-Bus")
}
