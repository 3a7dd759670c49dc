//! The service as pods and rkt find it. Each test has one of its own, on loopback.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use metadata::{Error, Places, client, service};
use pod::metadata::Token;
use uuid::Uuid;

const IMAGE: &str = r#"{"acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/web"}"#;

fn pod() -> String {
    let json = r#"{"acKind": "PodManifest", "acVersion": "0.8.11",
        "apps": [{"name": "web", "image": {"id": "sha512-ID"}}]}"#;
    json.replace("ID", &"0".repeat(64))
}

struct World {
    _home: tempfile::TempDir,
    places: Places,
    port: u16,
}

/// A service that runs until the test's process ends: it takes the signals of the whole process.
fn start() -> World {
    let home = tempfile::tempdir().unwrap();
    let places = Places::new(home.path());
    let port = serve(&places);
    World { _home: home, places, port }
}

fn serve(places: &Places) -> u16 {
    let (sender, receiver) = mpsc::channel();
    let places = places.clone();
    std::thread::spawn(move || service::run(&places, 0, |port, _| sender.send(port).unwrap()));
    receiver.recv_timeout(Duration::from_secs(30)).unwrap()
}

impl World {
    fn register(&self, uuid: u128) -> Token {
        let token = client::new_token().unwrap();
        let images = [("web".parse().unwrap(), IMAGE.as_bytes().to_vec())];
        let uuid = Uuid::from_u128(uuid);
        let port = client::register(&self.places, uuid, &token, pod().as_bytes(), &images).unwrap();
        assert_eq!(port, self.port);
        token
    }

    /// What is answered to these bytes, until the connection ends.
    fn say(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may have been cut off already.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    fn get(&self, path: &str) -> String {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }
}

#[test]
fn a_pod_is_known_while_it_is_registered() {
    let world = start();
    let token = world.register(7);
    let path = format!("/{token}/acMetadata/v1/pod/uuid");
    let answer = world.get(&path);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: text/plain; charset=us-ascii\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n00000000-0000-0000-0000-000000000007"), "{answer}");
    assert!(world.get(&format!("/{token}/acMetadata/v1/apps/web/image/manifest")).ends_with(IMAGE));
    let other = client::new_token().unwrap();
    assert!(world.get(&format!("/{other}/acMetadata/v1/pod/uuid")).starts_with("HTTP/1.1 401 "));
    client::unregister(&world.places, Uuid::from_u128(7)).unwrap();
    client::unregister(&world.places, Uuid::from_u128(7)).unwrap();
    assert!(world.get(&path).starts_with("HTTP/1.1 401 "));
}

#[test]
fn who_has_said_all_is_answered_all_the_same() {
    let world = start();
    let token = world.register(7);
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    write!(stream, "GET /{token}/acMetadata/v1/pod/uuid HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("00000000-0000-0000-0000-000000000007"), "{answer}");
}

#[test]
fn one_service_at_a_time_and_only_root_registers() {
    let world = start();
    assert!(matches!(service::run(&world.places, 0, |_, _| {}), Err(Error::Running(_))));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&world.places.socket()), mode(&world.places.state())), (0o600, 0o700));
    let bad = client::register(&world.places, Uuid::nil(), &client::new_token().unwrap(), b"{}", &[]);
    assert!(matches!(bad, Err(Error::Refused { status: 400, .. })), "{bad:?}");
}

#[test]
fn what_is_too_much_is_refused() {
    let world = start();
    let token = world.register(7);
    let sign = format!("/{token}/acMetadata/v1/pod/hmac/sign");
    let post = |length: usize| {
        let body = format!("content={}", "x".repeat(length - 8));
        world.say(
            format!("POST {sign} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    };
    assert!(post(64 << 10).starts_with("HTTP/1.1 200 "));
    let much = post((64 << 10) + 1);
    assert!(much.is_empty() || much.starts_with("HTTP/1.1 413 "), "{much}");
    let long = world.get(&format!("/{}", "x".repeat(100_000)));
    assert!(!long.starts_with("HTTP/1.1 200 ") && !long.starts_with("HTTP/1.1 404 "), "{long}");
    assert!(!world.say(b"\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    assert!(world.get(&format!("/{token}/acMetadata/v1/pod/uuid")).starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_says_nothing_is_let_go_and_keeps_nobody_else_from_it() {
    let world = start();
    let token = world.register(7);
    // As many as one address may have.
    let mut silent: Vec<TcpStream> =
        (0..16).map(|_| TcpStream::connect(("127.0.0.1", world.port)).unwrap()).collect();
    silent[0].write_all(b"GET /").unwrap();
    let path = format!("/{token}/acMetadata/v1/pod/uuid");
    let begun = Instant::now();
    // Another address has its own.
    let mut other = TcpStream::connect(("::1", world.port)).unwrap();
    write!(other, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(4), "it did not wait for them");
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(world.get(&path).starts_with("HTTP/1.1 200 "));
}
