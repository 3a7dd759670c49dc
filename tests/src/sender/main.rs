//! What the benchmark and some tests have of networks in pods that no other program does.
//!
//!     sender know COUNT                asks the metadata service who the pod is; prints the count and the nanoseconds
//!     sender echo                      says again what it hears on port 8000 by TCP and by UDP, of both versions of IP; prints "ready"

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Instant;

const PORT: u16 = 8000;
const BUFFER_BYTES: usize = 128 << 10;

/// Where the pod's metadata is (appc spec, "App Container Metadata Service").
const METADATA_URL: &str = "AC_METADATA_URL";
/// The length of a UUID.
const UUID_CHARACTERS: usize = 36;

/// A connection for each request, as the service has it.
fn know(count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var(METADATA_URL)?;
    let (address, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("no such URL")?;
    let request = format!(
        "GET /{path}/acMetadata/v1/pod/uuid HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    let ask = || -> Result<(), Box<dyn std::error::Error>> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
        match body {
            Some(body) if body.len() == UUID_CHARACTERS => Ok(()),
            _ => Err(format!("the metadata service answers: {answer}").into()),
        }
    };
    // The first one finds the way.
    ask()?;
    let begin = Instant::now();
    (0..count).try_for_each(|_| ask())?;
    println!("{count} {}", begin.elapsed().as_nanos());
    Ok(())
}

fn echo() -> io::Result<()> {
    let everywhere = (Ipv6Addr::UNSPECIFIED, PORT);
    let (listener, socket) = (TcpListener::bind(everywhere)?, UdpSocket::bind(everywhere)?);
    println!("ready");
    std::thread::spawn(move || {
        let mut packet = [0; BUFFER_BYTES];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let _gone = socket.send_to(packet.get(..length).unwrap_or_default(), from);
        }
    });
    for stream in listener.incoming() {
        let stream = stream?;
        let _gone = io::copy(&mut &stream, &mut &stream);
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match arguments {
        ["know", count] => know(count.parse()?),
        ["echo"] => Ok(echo()?),
        _ => Err("usage: sender know COUNT or sender echo".into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sender: {error}");
            ExitCode::FAILURE
        }
    }
}
