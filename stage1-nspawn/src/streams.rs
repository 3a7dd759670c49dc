//! Where the apps' standard streams go. A single app gets the caller's as they are if its output is to go nowhere else,
//! unless one is a terminal: an app that had the caller's terminal could read and type on it after it has left the pod.
//! What is not handed over goes through a pipe, and the parent carries.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{dup2_stdin, dup2_stdout, pipe2};
use pod::control::{Stream, StreamHello};
use pod::plan::{AppPlan, Plan, Stdio};
use pod::streams::{InputMode, OutputMode};
use stage2::AppStreams;

use crate::error::Error;

/// The streams of all apps.
#[derive(Debug, Default)]
pub struct Streams {
    /// For the supervisor, in the plan's order.
    pub inside: Vec<AppStreams>,
    /// For the parent.
    pub outside: Vec<(StreamHello, OwnedFd)>,
    /// Those of the caller's that an app has now.
    pub handed_over: Vec<Stream>,
}

impl Streams {
    /// Makes the streams of a plan's apps.
    pub fn make(plan: &Plan) -> Result<Self, Error> {
        let mut streams = Self::default();
        for (index, app) in plan.apps.iter().enumerate() {
            // More apps than a stream's greeting can number do not fit in any pod.
            let app_streams = streams.make_one(index as u16, app, plan.apps.len() == 1)?;
            streams.inside.push(app_streams);
        }
        Ok(streams)
    }

    fn make_one(&mut self, index: u16, app: &AppPlan, alone: bool) -> Result<AppStreams, Error> {
        let hello = |stream| StreamHello { app: index, stream };
        if app.stdio == Stdio::Terminal {
            let flags = SockFlag::SOCK_CLOEXEC;
            let (inside, outside) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
                .map_err(Error::system("make a connection for the terminal"))?;
            self.outside.push((hello(Stream::Stdin), outside));
            return Ok(AppStreams::Terminal { carrier: inside });
        }
        let modes = app.streams;
        let own_input = modes.stdin == InputMode::Inherit;
        let own_output = |mode| alone && mode == OutputMode::INHERIT;
        let mut end = |stream, own: bool, of_caller: BorrowedFd<'_>| match own {
            _ if !app.stdio.streams().contains(&stream) => Ok(None),
            true => self.hand_over(hello(stream), of_caller).map(Some),
            false => self.pipe(hello(stream)).map(Some),
        };
        Ok(AppStreams::Direct {
            stdin: end(Stream::Stdin, own_input, std::io::stdin().as_fd())?,
            stdout: end(Stream::Stdout, own_output(modes.stdout), std::io::stdout().as_fd())?,
            stderr: end(Stream::Stderr, own_output(modes.stderr), std::io::stderr().as_fd())?,
        })
    }

    fn hand_over(&mut self, hello: StreamHello, of_caller: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
        if of_caller.is_terminal() {
            return self.pipe(hello);
        }
        self.handed_over.push(hello.stream);
        of_caller.try_clone_to_owned().map_err(Error::path("share", Path::new("standard streams")))
    }

    fn pipe(&mut self, hello: StreamHello) -> Result<OwnedFd, Error> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::system("make a pipe"))?;
        let (inside, outside) = if hello.stream == Stream::Stdin { (read, write) } else { (write, read) };
        self.outside.push((hello, outside));
        Ok(inside)
    }

    /// Lets go of the caller's streams that an app has now, so that whoever is at their other ends learns when the app
    /// closes them. Standard error stays, for messages.
    pub fn release(handed_over: &[Stream]) -> Result<(), Error> {
        let null = null()?;
        for stream in handed_over {
            let released = match stream {
                Stream::Stdin => dup2_stdin(&null),
                Stream::Stdout => dup2_stdout(&null),
                Stream::Stderr => Ok(()),
            };
            released.map_err(Error::system("let go of the standard streams"))?;
        }
        Ok(())
    }
}

fn null() -> Result<File, Error> {
    let path = Path::new("/dev/null");
    OpenOptions::new().read(true).write(true).open(path).map_err(Error::path("open", path))
}
