//! The standard streams of an app: its own ends, and what is carried between them and the pod's connections.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};
use relay::{Carrier, Sink, SinkEnd, Source};

use crate::AppStreams;
use crate::error::{Error, errno};
use crate::sys;

/// Where the pod's terminals are made, in the pod's root.
const TERMINALS: &str = "/pts/ptmx";

/// The app's ends of its streams.
#[derive(Debug)]
pub enum OwnEnds {
    /// Standard input, output and error; what is missing is /dev/null.
    Three([Option<OwnedFd>; 3]),
    /// The terminal that is all three.
    Terminal(OwnedFd),
}

/// All that belongs to the streams of one app.
#[derive(Debug)]
pub struct Prepared {
    /// For the app.
    pub own: OwnEnds,
    /// What goes to the app.
    pub inputs: Vec<Carrier>,
    /// What comes from the app.
    pub outputs: Vec<Carrier>,
    /// The terminal's other side, which sets its size.
    pub terminal: Option<OwnedFd>,
}

/// Makes the pipes or the terminal that `streams` need; in the pod's root.
pub fn prepare(streams: AppStreams) -> Result<Prepared, Error> {
    match streams {
        AppStreams::Direct { stdin, stdout, stderr } => Ok(Prepared {
            own: OwnEnds::Three([stdin, stdout, stderr]),
            inputs: Vec::new(),
            outputs: Vec::new(),
            terminal: None,
        }),
        AppStreams::Carried { stdin, stdout, stderr } => {
            carried(stdin, [stdout, stderr]).map_err(Error::system("make the app's pipes"))
        }
        AppStreams::Terminal { carrier } => terminal(carrier),
    }
}

fn carried(stdin: Option<OwnedFd>, outputs: [Option<OwnedFd>; 2]) -> nix::Result<Prepared> {
    let (input, inputs) = match stdin {
        Some(socket) => {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            let sink = Sink::new(write, SinkEnd::Close)?;
            (Some(read), vec![Carrier::new(vec![Source::new(socket)], sink)])
        }
        None => (None, Vec::new()),
    };
    let mut carriers = Vec::new();
    let [output, error] = outputs.map(|socket| {
        let Some(socket) = socket else { return Ok(None) };
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let sink = Sink::new(socket, SinkEnd::HalfClose)?;
        carriers.push(Carrier::new(vec![Source::new(read)], sink));
        Ok(Some(write))
    });
    let own = OwnEnds::Three([input, output?, error?]);
    Ok(Prepared { own, inputs, outputs: carriers, terminal: None })
}

fn terminal(socket: OwnedFd) -> Result<Prepared, Error> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(TERMINALS, flags, Mode::empty()).map_err(Error::path("open", TERMINALS))?;
    let own =
        sys::open_terminal_peer(master.as_fd()).map_err(Error::path("make a terminal from", TERMINALS))?;
    let copies = socket.try_clone().and_then(|socket| Ok((socket, master.try_clone()?, master.try_clone()?)));
    let (socket_too, reading, writing) =
        copies.map_err(|error| Error::system("carry the terminal")(errno(&error)))?;
    let carry = |from, to, end| Ok(vec![Carrier::new(vec![Source::new(from)], Sink::new(to, end)?)]);
    let failed = Error::system("carry the terminal");
    let carriers: nix::Result<_> = carry(socket_too, writing, SinkEnd::EndOfFileCharacter)
        .and_then(|inputs| Ok((inputs, carry(reading, socket, SinkEnd::HalfClose)?)));
    let (inputs, outputs) = carriers.map_err(failed)?;
    Ok(Prepared { own: OwnEnds::Terminal(own), inputs, outputs, terminal: Some(master) })
}

impl OwnEnds {
    /// Makes them this process's standard streams, in a session of its own; in the app's root.
    pub fn take(&self) -> Result<(), Error> {
        setsid().map_err(Error::system("lead a session"))?;
        let failed = Error::system("set the standard streams");
        match self {
            Self::Terminal(terminal) => {
                sys::take_terminal(terminal.as_fd()).map_err(Error::system("take the terminal"))?;
                dup2_stdin(terminal)
                    .and_then(|()| dup2_stdout(terminal))
                    .and_then(|()| dup2_stderr(terminal))
                    .map_err(failed)
            }
            Self::Three([stdin, stdout, stderr]) => {
                let null = match (stdin, stdout, stderr) {
                    (Some(_), Some(_), Some(_)) => None,
                    _ => Some(open_null()?),
                };
                let or_null = |end: &Option<OwnedFd>, set: fn(&OwnedFd) -> nix::Result<()>| {
                    end.as_ref().or(null.as_ref()).map_or(Ok(()), set)
                };
                or_null(stdin, |fd| dup2_stdin(fd))
                    .and_then(|()| or_null(stdout, |fd| dup2_stdout(fd)))
                    .and_then(|()| or_null(stderr, |fd| dup2_stderr(fd)))
                    .map_err(failed)
            }
        }
    }
}

/// Opens what an empty stream is.
pub fn open_null() -> Result<OwnedFd, Error> {
    let null = Path::new("/dev/null");
    open(null, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(Error::path("open", null))
}
