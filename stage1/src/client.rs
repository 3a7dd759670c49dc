//! A client of the pod's parent, which carries the caller's streams to and from the connections that the parent hands it.

use std::cell::Cell;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use ::pod::control::{ExitStatus, Stream};
use ::pod::session::{FromClient, ToClient};
use ::pod::types::AcName;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use relay::{Carrier, Filter, Sink, SinkEnd, Source};

use crate::Error;
use crate::error::Causes;
use crate::parent::Parent;
use crate::signals::{Meaning, Signals};
use crate::terminal::RawTerminal;

/// The caller's terminal, if he sits at one. Output that goes to a file or a pipe is to arrive there byte for byte, which
/// it does not through a terminal.
pub struct CallerTerminal {
    pub raw: RawTerminal,
    /// Without a terminal the signals do what they always do; here it has to be restored first.
    signals: Signals,
}

impl CallerTerminal {
    pub fn take() -> Result<Option<Self>, Error> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(None);
        }
        Ok(Some(Self { signals: Signals::block()?, raw: RawTerminal::take()? }))
    }
}

/// What a client has to do with an app.
pub struct Task {
    /// The app.
    pub app: AcName,
    /// The connections, in the order in which the parent hands them over.
    pub streams: Vec<Stream>,
    /// Whether the first one, [`Stream::Stdin`], is a terminal's, for both directions.
    pub terminal: bool,
    /// Whether the caller's input is carried.
    pub input: bool,
    /// Whether there is output to carry. Without, there is nothing to do once the input has ended.
    pub output: bool,
    /// Set by whoever watches the input when the client is to leave.
    pub leave: Rc<Cell<bool>>,
    /// The error of a parent that refuses.
    pub refused: fn(AcName, Causes) -> Error,
}

/// A client.
pub struct Client {
    parent: Parent,
    terminal: Option<CallerTerminal>,
    task: Task,
    /// What the caller's input goes through.
    filter: Option<Box<dyn Filter>>,
    connected: bool,
    inputs: Vec<Carrier>,
    outputs: Vec<Carrier>,
}

impl Client {
    /// Connects to the parent of the pod in the working directory, and says what it is there for.
    pub fn connect(
        task: Task,
        terminal: Option<CallerTerminal>,
        filter: Option<Box<dyn Filter>>,
        first: &FromClient,
    ) -> Result<Self, Error> {
        let parent = Parent::call()?;
        let client = Self {
            parent,
            terminal,
            task,
            filter,
            connected: false,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        client.say(first)?;
        Ok(client)
    }

    /// Carries until the process has ended, and all its output is here; how it has ended. A client that leaves before
    /// that has succeeded.
    pub fn run(mut self) -> Result<ExitStatus, Error> {
        let mut status = None;
        loop {
            if let Some(status) = status
                && self.outputs.iter().all(Carrier::is_done)
            {
                return Ok(status);
            }
            let all_said = self.connected && !self.task.output && self.inputs.is_empty();
            if all_said || self.task.leave.get() {
                return Ok(ExitStatus::SUCCESS);
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
                Meaning::Resized => self.say(&FromClient::Resize(terminal.raw.size()))?,
            }
        }
        Ok(false)
    }

    /// Tells the parent something.
    pub fn say(&self, message: &FromClient) -> Result<(), Error> {
        self.parent.say(message)
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
                Some(source) => Err((self.task.refused)(self.task.app.clone(), source)),
                None => Err(Error::PodGone),
            },
            ToClient::Exited(status) => {
                self.inputs.clear();
                Ok(Some(status))
            }
            // Not what was asked for.
            ToClient::Measured(_) => Err(Error::PodGone),
        }
    }

    /// All of them: the kernel keeps back what this process has no room for.
    fn connect_all(&mut self, ends: Vec<OwnedFd>) -> nix::Result<()> {
        let streams = self.task.streams.clone();
        if ends.len() != streams.len() {
            return Err(Errno::EMFILE);
        }
        self.connected = true;
        streams.iter().zip(ends).try_for_each(|(stream, end)| self.carry(*stream, end))
    }

    fn carry(&mut self, stream: Stream, fd: OwnedFd) -> nix::Result<()> {
        match stream {
            Stream::Stdin => {
                if self.task.terminal && self.task.output {
                    self.carry_out(duplicate(fd.as_fd())?, stdout().as_fd())?;
                }
                if self.task.input {
                    let source = Source::new(duplicate(stdin().as_fd())?);
                    let source = match self.filter.take() {
                        Some(filter) => source.filtered(filter),
                        None => source,
                    };
                    self.inputs.push(Carrier::new(vec![source], Sink::new(fd, SinkEnd::HalfClose)?));
                }
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
