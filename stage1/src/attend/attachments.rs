//! The clients of `rkt attach`: they read what apps write, and what they write apps read. An app waits for none of them.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use ::pod::control::{ExitStatus, Stream, ToSupervisor};
use ::pod::plan::Stdio;
use ::pod::session::{Attach, FromClient, MAX_PACKET_BYTES, MAX_SESSIONS, ToClient, decode};
use ::pod::types::AcName;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use relay::{Listener, Sink, SinkEnd, Source, Standing, packets};

use super::caller::CallerStreams;
use super::sessions::{FAREWELL, tell};

/// Those who are attached.
#[derive(Debug, Default)]
pub struct Attachments {
    clients: Vec<Client>,
    farewell: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    app: AcName,
    /// Whether it is attached to a terminal.
    terminal: bool,
    listeners: Vec<Rc<Listener>>,
}

/// The ends of a client's connections.
struct Ends {
    inside: Vec<(Stream, OwnedFd)>,
    outside: Vec<OwnedFd>,
}

impl Attachments {
    /// Attaches a client, or tells it why not.
    pub fn begin(&mut self, socket: OwnedFd, request: &Attach, caller: &mut CallerStreams) {
        if let Err(why) = self.try_begin(&socket, request, caller) {
            let _ = tell(&socket, &ToClient::Failed(vec![why]), &[]);
        }
    }

    fn try_begin(
        &mut self,
        socket: &OwnedFd,
        request: &Attach,
        caller: &mut CallerStreams,
    ) -> Result<(), String> {
        let name = &request.app;
        let (number, app) = caller.find(name).ok_or_else(|| format!("the pod has no app \"{name}\""))?;
        let endpoints = app.modes.endpoints();
        let mut wanted = request.streams.clone();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() || !wanted.iter().all(|stream| endpoints.contains(stream)) {
            return Err(format!("app \"{name}\" has no such stream to attach to"));
        }
        if self.clients.len() >= MAX_SESSIONS {
            return Err(format!("{MAX_SESSIONS} clients are attached to the pod, which is the most"));
        }
        let terminal = app.stdio == Stdio::Terminal;
        let failed = |errno: Errno| format!("cannot connect the streams: {errno}");
        let Ends { inside, outside } = connect(&wanted, terminal).map_err(failed)?;
        let mut listeners = Vec::new();
        let mut alive = true;
        for (stream, end) in inside {
            if terminal || stream != Stream::Stdin {
                let sink = end.try_clone().map_err(|error| error.to_string())?;
                let sink = Sink::new(sink, SinkEnd::HalfClose).map_err(failed)?;
                let listener = Rc::new(Listener::new(sink));
                alive &= caller.listen(number, stream, &listener);
                listeners.push(listener);
            }
            if stream == Stream::Stdin {
                alive &= caller.speak(number, Source::new(end));
            }
        }
        if !alive {
            return Err(format!("app \"{name}\" has ended, or has closed the stream"));
        }
        let outside: Vec<_> = outside.iter().map(AsFd::as_fd).collect();
        tell(socket, &ToClient::Connected, &outside).map_err(failed)?;
        let socket = socket.try_clone().map_err(|error| error.to_string())?;
        self.clients.push(Client { socket, app: name.clone(), terminal, listeners });
        Ok(())
    }

    pub fn interests<'s>(&'s self, set: &mut Vec<PollFd<'s>>) {
        for client in &self.clients {
            set.push(PollFd::new(client.socket.as_fd(), PollFlags::POLLIN));
            set.extend(client.listeners.iter().filter_map(|listener| listener.interest()));
        }
    }

    /// Does what `answers` allow; what the supervisor is to be told. Nothing may be shown to listeners between
    /// [`Self::interests`] and this.
    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) -> Vec<ToSupervisor> {
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let mut messages = Vec::new();
        self.clients.retain(|client| {
            let spoke = happened();
            for listener in &client.listeners {
                if listener.interest().is_some() && happened() {
                    listener.advance();
                }
            }
            !spoke || client.listen(&mut messages)
        });
        messages
    }

    /// Lets go of clients that were too slow, after output was shown.
    pub fn settle(&mut self) {
        self.clients.retain(|client| {
            let overrun = client.listeners.iter().any(|listener| listener.standing() == Standing::Overrun);
            if overrun {
                let why = "it did not take the app's output in time, and the app waits for nobody; rkt logs shows what \
                    was missed if the app has a log";
                let _ = tell(&client.socket, &ToClient::Failed(vec![why.into()]), &[]);
            }
            !overrun
        });
    }

    /// An app has ended: its clients take the rest of its output.
    pub fn app_ended(&self, app: &AcName, status: ExitStatus) {
        for client in self.clients.iter().filter(|client| client.app == *app) {
            // One that cannot be told finds out by the end of the connection.
            let _ = tell(&client.socket, &ToClient::Exited(status), &[]);
        }
    }

    /// The pod is over: clients take the rest of its output, and not for long.
    pub fn close(&mut self) {
        self.farewell.get_or_insert(Instant::now() + FAREWELL);
    }

    /// Whether nobody is waited for any more, once the pod is over.
    pub fn are_over(&self) -> bool {
        let has_all = |client: &Client| client.listeners.iter().all(|l| l.standing() == Standing::Gone);
        self.clients.iter().all(has_all) || self.farewell.is_some_and(|farewell| farewell <= Instant::now())
    }

    /// Until when somebody is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        self.farewell.filter(|_| !self.are_over())
    }
}

impl Client {
    /// Hears it; whether it stays.
    fn listen(&self, messages: &mut Vec<ToSupervisor>) -> bool {
        match packets::receive(&self.socket, MAX_PACKET_BYTES) {
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Ok(Some(packet)) => match decode(&packet.bytes) {
                Ok(FromClient::Resize(size)) => {
                    if self.terminal {
                        messages.push(ToSupervisor::ResizeApp { app: self.app.clone(), size });
                    }
                    true
                }
                _ => false,
            },
            Ok(None) | Err(_) => false,
        }
    }
}

impl Drop for Client {
    /// Whoever shows the streams drops a listener at the next opportunity, which may be far away.
    fn drop(&mut self) {
        self.listeners.iter().for_each(|listener| listener.leave());
    }
}

/// Makes a connection for each stream, in their order.
fn connect(streams: &[Stream], terminal: bool) -> nix::Result<Ends> {
    let mut ends = Ends { inside: Vec::new(), outside: Vec::new() };
    for stream in streams {
        let (inside, outside) = match (terminal, stream) {
            (true, _) => socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?,
            (false, Stream::Stdin) => pipe2(OFlag::O_CLOEXEC)?,
            (false, _) => {
                let (outside, inside) = pipe2(OFlag::O_CLOEXEC)?;
                (inside, outside)
            }
        };
        ends.inside.push((*stream, inside));
        ends.outside.push(outside);
    }
    Ok(ends)
}
