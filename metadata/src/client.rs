//! rkt's side: pods are registered before they start, and unregistered when they have ended.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use pod::metadata::Token;
use pod::types::AcName;
use uuid::Uuid;

use crate::Places;
use crate::error::Error;
use crate::registration::Service;

/// How often a service is called that may be about to start, as upstream does.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// The most fields of an answer's head.
const MAX_FIELDS: usize = 32;

/// A token that nobody has.
pub fn new_token() -> Result<Token, Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(Error::Random)?;
    Ok(Token::new(bits))
}

/// Registers a pod with its manifest and its apps' image manifests; the port at which it reaches the service.
pub fn register(
    places: &Places,
    pod: Uuid,
    token: &Token,
    manifest: &[u8],
    images: &[(AcName, Vec<u8>)],
) -> Result<u16, Error> {
    let action = "register the pod";
    let answer =
        call(places, ATTEMPTS, "PUT", &format!("/pods/{pod}?token={token}"), manifest)?.accepted(action)?;
    let service: Service =
        serde_json::from_slice(&answer.body).map_err(|_| Error::Nonsense(places.socket()))?;
    for (app, image) in images {
        call(places, 1, "PUT", &format!("/pods/{pod}/{app}"), image)?.accepted(action)?;
    }
    Ok(service.port)
}

/// Unregisters a pod, if it is registered; also while no service runs, so that the next one does not know it any more.
pub fn unregister(places: &Places, pod: Uuid) -> Result<(), Error> {
    match call(places, 1, "DELETE", &format!("/pods/{pod}"), b"") {
        Ok(Answer { status: 404, .. }) => Ok(()),
        Ok(answer) => answer.accepted("unregister the pod").map(drop),
        Err(Error::NotReached(_, error)) if is_absence(&error) => places.forget(pod),
        Err(error) => Err(error),
    }
}

/// Unregisters a pod, and then removes the file that says that it may be registered.
pub fn forget(places: &Places, pod: Uuid, marker: &Path) -> Result<(), Error> {
    unregister(places, pod)?;
    fs::remove_file(marker).map_err(Error::io("remove", marker))
}

/// What the service says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn accepted(self, action: &'static str) -> Result<Self, Error> {
        let Self { status, body } = &self;
        match status {
            200 => Ok(self),
            _ => {
                let text = String::from_utf8_lossy(body).trim().to_owned();
                Err(Error::Refused { action, status: *status, text })
            }
        }
    }
}

fn call(places: &Places, attempts: u32, method: &str, uri: &str, body: &[u8]) -> Result<Answer, Error> {
    let mut stream = connect(places, attempts)?;
    let exchanged = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(stream, "{method} {uri} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchanged().map_err(|error| Error::NotReached(places.socket(), error))?;
    parse(&answer).ok_or_else(|| Error::Nonsense(places.socket()))
}

fn connect(places: &Places, attempts: u32) -> Result<UnixStream, Error> {
    let path = places.socket();
    let mut left = attempts;
    loop {
        left -= 1;
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(stream),
            Err(error) if left > 0 && is_absence(&error) => std::thread::sleep(PAUSE),
            Err(error) => return Err(Error::NotReached(path, error)),
        }
    }
}

/// Whether nobody is there.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// An answer after which the connection ends.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    Some(Answer { status: head.code?, body: bytes.get(length..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let parsed = parse(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n").unwrap();
        assert_eq!(parsed, Answer { status: 403, body: b"no\n".to_vec() });
        let refused = parsed.accepted("x").unwrap_err();
        assert!(refused.to_string().ends_with("x: 403 no"), "{refused}");
        assert_eq!((parse(b""), parse(b"HTTP/1.1 200 OK\r\n"), parse(b"\0\0")), (None, None, None));
    }

    #[test]
    fn nobody_is_there() {
        let home = tempfile::tempdir().unwrap();
        let places = Places::new(home.path());
        let uuid = Uuid::from_u128(7);
        unregister(&places, uuid).unwrap();
        std::fs::create_dir_all(places.pods()).unwrap();
        std::fs::write(places.pods().join(uuid.to_string()), "x").unwrap();
        unregister(&places, uuid).unwrap();
        assert_eq!(std::fs::read_dir(places.pods()).unwrap().count(), 0);
    }
}
