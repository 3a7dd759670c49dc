//! Connections to the host, over vsock.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc::VMADDR_CID_HOST;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use pod::control::{CONTROL_PORT, STREAM_PORT, Stream, StreamHello};
use pod::plan::{Plan, Stdio};
use stage2::AppStreams;

use crate::error::Error;

/// Opens the control connection.
pub fn control() -> Result<File, Error> {
    connected(CONTROL_PORT).map(File::from)
}

/// Opens a connection for every stream of the plan; the host waits for exactly these.
pub fn streams(plan: &Plan) -> Result<Vec<AppStreams>, Error> {
    plan.apps
        .iter()
        .enumerate()
        .map(|(index, app)| {
            let app_index = u16::try_from(index).map_err(|_| Error::TooManyApps)?;
            app_streams(&app.stdio, |kind| {
                stream(StreamHello { app: app_index, stream: kind }).map(OwnedFd::from)
            })
        })
        .collect()
}

/// Sorts the connections that `open` makes for an app's streams.
pub fn app_streams<E>(
    stdio: &Stdio,
    mut open: impl FnMut(Stream) -> Result<OwnedFd, E>,
) -> Result<AppStreams, E> {
    if *stdio == Stdio::Terminal {
        return Ok(AppStreams::Terminal { carrier: open(Stream::Stdin)? });
    }
    let (mut stdin, mut stdout, mut stderr) = (None, None, None);
    for stream in stdio.streams() {
        let connection = Some(open(*stream)?);
        match stream {
            Stream::Stdin => stdin = connection,
            Stream::Stdout => stdout = connection,
            Stream::Stderr => stderr = connection,
        }
    }
    Ok(AppStreams::Carried { stdin, stdout, stderr })
}

/// Opens the connection of one stream.
pub fn stream(hello: StreamHello) -> Result<File, Error> {
    let mut connection = File::from(connected(STREAM_PORT)?);
    connection.write_all(&hello.encode()).map_err(|source| Error::Connect { port: STREAM_PORT, source })?;
    Ok(connection)
}

fn connected(port: u32) -> Result<OwnedFd, Error> {
    let failed = |errno: nix::Error| Error::Connect { port, source: errno.into() };
    let socket =
        socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, port)).map_err(failed)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_those_of_the_plan() {
        let opened = |stdio: &Stdio| {
            let mut opened = Vec::new();
            let null = || OwnedFd::from(File::open("/dev/null").unwrap());
            let streams = app_streams(stdio, |stream| -> Result<_, Error> {
                opened.push(stream);
                Ok(null())
            });
            (opened, streams.unwrap())
        };
        let (order, streams) = opened(&Stdio::Streams(vec![Stream::Stdout, Stream::Stderr]));
        assert_eq!(order, [Stream::Stdout, Stream::Stderr]);
        assert!(matches!(streams, AppStreams::Carried { stdin: None, stdout: Some(_), stderr: Some(_) }));
        let (order, streams) = opened(&Stdio::Terminal);
        assert_eq!(order, [Stream::Stdin]);
        assert!(matches!(streams, AppStreams::Terminal { .. }));
    }
}
