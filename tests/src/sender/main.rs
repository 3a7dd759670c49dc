//! Both ends of what the benchmark measures of networks, in pods and beside them.
//!
//!     sender serve                     on port 8000; prints "ready"
//!     sender stream ADDRESS BYTES      one way; prints the bytes and the nanoseconds until all have been read there
//!     sender ask ADDRESS COUNT         a byte there and back; prints the count and the nanoseconds

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
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
    let begin = Instant::now();
    io::copy(&mut io::repeat(0).take(bytes), &mut stream)?;
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

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match arguments {
        ["serve"] => Ok(serve()?),
        ["stream", address, bytes] => Ok(stream(address, bytes.parse()?)?),
        ["ask", address, count] => Ok(ask(address, count.parse()?)?),
        _ => Err("usage: sender serve, sender stream ADDRESS BYTES or sender ask ADDRESS COUNT".into()),
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
