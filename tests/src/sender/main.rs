//! Both ends of what the benchmark measures of networks, and some tests use, in pods and beside them.
//!
//!     sender serve                     on port 8000; prints "ready"
//!     sender stream ADDRESS BYTES      one way; prints the bytes and the nanoseconds until all have been read there
//!     sender ask ADDRESS COUNT         a byte there and back; prints the count and the nanoseconds
//!     sender know COUNT                asks the metadata service who the pod is; prints the count and the nanoseconds
//!     sender echo                      says again what it hears on port 8000 by TCP and by UDP, of both versions of IP; prints "ready"

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PORT: u16 = 8000;
const BUFFER_BYTES: usize = 128 << 10;
/// The first byte of a connection: what it is for.
const STREAM: u8 = b's';
const ASK: u8 = b'a';
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("ready");
    for stream in listener.incoming() {
        // Whoever has had enough goes.
        let _gone = answer(stream?);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    if byte == [STREAM] {
        let mut buffer = vec![0; BUFFER_BYTES];
        while stream.read(&mut buffer)? > 0 {}
        return stream.write_all(&byte);
    }
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

fn connect(address: &str, purpose: u8) -> io::Result<TcpStream> {
    let begin = Instant::now();
    let mut stream = loop {
        match TcpStream::connect((address, PORT)) {
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
            Ok(stream) => break stream,
        }
    };
    stream.set_nodelay(true)?;
    stream.write_all(&[purpose])?;
    Ok(stream)
}

fn stream(address: &str, bytes: u64) -> io::Result<()> {
    let mut stream = connect(address, STREAM)?;
    // As iperf3 does: large writes, which the kernel may join. Each of them by itself would measure how fast small packets go.
    stream.set_nodelay(false)?;
    let buffer = vec![0; BUFFER_BYTES];
    let begin = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        left -= stream.write(buffer.get(..count).unwrap_or_default())? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    println!("{bytes} {}", begin.elapsed().as_nanos());
    Ok(())
}

fn ask(address: &str, count: u64) -> io::Result<()> {
    let mut stream = connect(address, ASK)?;
    let mut byte = [ASK];
    let mut round_trip = || stream.write_all(&byte.clone()).and_then(|()| stream.read_exact(&mut byte));
    // The first one finds the way.
    round_trip()?;
    let begin = Instant::now();
    (0..count).try_for_each(|_| round_trip())?;
    println!("{count} {}", begin.elapsed().as_nanos());
    Ok(())
}

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
        ["serve"] => Ok(serve()?),
        ["stream", address, bytes] => Ok(stream(address, bytes.parse()?)?),
        ["ask", address, count] => Ok(ask(address, count.parse()?)?),
        ["know", count] => know(count.parse()?),
        ["echo"] => Ok(echo()?),
        _ => Err("usage: sender serve, stream ADDRESS BYTES, ask ADDRESS COUNT, know COUNT or echo".into()),
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
