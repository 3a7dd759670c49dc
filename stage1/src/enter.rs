//! The `enter` entrypoint: a client of the pod's parent, which carries the caller's streams to and from a process in an
//! app. If it goes, the process ends.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ::pod::abi::EnterArguments;
use ::pod::control::{ExitStatus, Stream};
use ::pod::session::{FromClient, Session, SessionTerminal, ToClient};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use relay::{Carrier, Sink, SinkEnd, Source};

use crate::Error;
use crate::client::Parent;
use crate::error::Causes;
use crate::signals::{Meaning, Signals};
use crate::terminal::RawTerminal;

/// Runs a command in an app of the pod in the working directory; how the command has ended.
pub fn enter(arguments: impl Iterator<Item = String>) -> Result<ExitStatus, Error> {
    let arguments = EnterArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let parent = Parent::call()?;
    let terminal = CallerTerminal::take()?;
    let session = Session {
        app: arguments.app,
        command: arguments.command,
        terminal: terminal
            .as_ref()
            .map(|terminal| SessionTerminal { size: terminal.raw.size(), term: std::env::var("TERM").ok() }),
    };
    let mut client = Client { parent, terminal, session, inputs: Vec::new(), outputs: Vec::new() };
    client.parent.say(&FromClient::Begin(client.session.clone()))?;
    client.run()
}

/// The caller's terminal, if he sits at one. Output that goes to a file or a pipe is to arrive there byte for byte, which
/// it does not through a terminal.
struct CallerTerminal {
    raw: RawTerminal,
    /// Without a terminal the signals do what they always do; here it has to be restored first.
    signals: Signals,
}

impl CallerTerminal {
    fn take() -> Result<Option<Self>, Error> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(None);
        }
        Ok(Some(Self { signals: Signals::block()?, raw: RawTerminal::take()? }))
    }
}

struct Client {
    parent: Parent,
    terminal: Option<CallerTerminal>,
    session: Session,
    inputs: Vec<Carrier>,
    outputs: Vec<Carrier>,
}

impl Client {
    fn run(&mut self) -> Result<ExitStatus, Error> {
        let mut status = None;
        loop {
            if let Some(status) = status
                && self.outputs.iter().all(Carrier::is_done)
            {
                return Ok(status);
            }
            let mut answers = self.wait(status.is_none())?.into_iter();
            let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
            let signalled = self.terminal.is_some() && happened();
            let told = status.is_none() && happened();
            self.inputs.iter_mut().chain(&mut self.outputs).for_each(|carrier| carrier.advance(&mut answers));
            self.inputs.retain(|carrier| !carrier.is_done());
            self.outputs.retain(|carrier| !carrier.is_done());
            if signalled && self.take_signals()? {
                return Ok(ExitStatus::Signal(libc::SIGTERM as u8));
            }
            if told {
                status = self.listen()?;
            }
        }
    }

    fn wait(&self, listening: bool) -> Result<Vec<PollFlags>, Error> {
        let wanted = PollFlags::POLLIN;
        let mut set = Vec::new();
        set.extend(self.terminal.iter().map(|terminal| PollFd::new(terminal.signals.as_fd(), wanted)));
        set.extend(listening.then(|| PollFd::new(self.parent.as_fd(), wanted)));
        self.inputs.iter().chain(&self.outputs).for_each(|carrier| carrier.interests(&mut set));
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) => Ok(set.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()),
            Err(Errno::EINTR) => Ok(vec![PollFlags::empty(); set.len()]),
            Err(source) => Err(Error::System { action: "wait for the command", source }),
        }
    }

    /// Passes the terminal's size on; whether the caller wants the end.
    fn take_signals(&self) -> Result<bool, Error> {
        let Some(terminal) = &self.terminal else { return Ok(false) };
        while let Some(meaning) = terminal.signals.next() {
            match meaning {
                Meaning::End => return Ok(true),
                Meaning::Resized => self.parent.say(&FromClient::Resize(terminal.raw.size()))?,
            }
        }
        Ok(false)
    }

    /// Hears the parent; how the command has ended, if it has.
    fn listen(&mut self) -> Result<Option<ExitStatus>, Error> {
        let Some((message, descriptors)) = self.parent.hear()? else { return Ok(None) };
        match message {
            ToClient::Connected => {
                self.connect_all(descriptors)
                    .map_err(|source| Error::System { action: "carry the standard streams", source })?;
                Ok(None)
            }
            ToClient::Failed(causes) => match Causes::new(causes) {
                Some(source) => Err(Error::NotEntered { app: self.session.app.clone(), source }),
                None => Err(Error::PodGone),
            },
            ToClient::Exited(status) => {
                self.inputs.clear();
                Ok(Some(status))
            }
            ToClient::Measured(_) => Err(Error::PodGone),
        }
    }

    /// All of them: the kernel keeps back what this process has no room for.
    fn connect_all(&mut self, ends: Vec<OwnedFd>) -> nix::Result<()> {
        let streams = self.session.streams();
        if ends.len() != streams.len() {
            return Err(Errno::EMFILE);
        }
        streams.iter().zip(ends).try_for_each(|(stream, end)| self.connect(*stream, end))
    }

    fn connect(&mut self, stream: Stream, fd: OwnedFd) -> nix::Result<()> {
        match stream {
            Stream::Stdin => {
                if self.terminal.is_some() {
                    self.carry_out(duplicate(fd.as_fd())?, stdout().as_fd())?;
                }
                let source = Source::new(duplicate(stdin().as_fd())?);
                self.inputs.push(Carrier::new(vec![source], Sink::new(fd, SinkEnd::HalfClose)?));
                Ok(())
            }
            Stream::Stdout => self.carry_out(fd, stdout().as_fd()),
            Stream::Stderr => self.carry_out(fd, stderr().as_fd()),
        }
    }

    fn carry_out(&mut self, from: OwnedFd, to: BorrowedFd<'_>) -> nix::Result<()> {
        self.outputs.push(Carrier::new(vec![Source::new(from)], Sink::shared(to)?));
        Ok(())
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
