//! The clients of `rkt enter`, `rkt app` and `rkt port-forward`, and what the supervisor is told for them. Their streams do not pass through here: each
//! client gets its ends, and the supervisor the others.

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ::pod::control::{FromSupervisor, Stream, TerminalSize, ToSupervisor};
use ::pod::forward::MAX_FORWARDED;
use ::pod::session::{
    Action, Attach, CONNECTION, Change, FromClient, MAX_PACKET_BYTES, MAX_SESSIONS, Session, SessionId,
    ToClient, decode, encode,
};
use ::pod::statistics::Subject;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use relay::packets;

use super::apps::Apps;
use crate::entrance::Entrance;

/// Makes the connections for a session's streams, in their order: the other ends are on their way to the supervisor,
/// and these are for the client.
pub type Door<'d> = dyn FnMut(SessionId, &[Stream]) -> nix::Result<Vec<OwnedFd>> + 'd;

/// How long clients have after the pod's end to take the last output.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// The clients.
pub struct Sessions<'d> {
    entrance: Option<Entrance>,
    door: Box<Door<'d>>,
    clients: Vec<Client>,
    /// Clients that want to attach, who are no concern of ours.
    attaching: Vec<(OwnedFd, Attach)>,
    /// Apps that clients want to come into the pod, or to leave it.
    alterations: Vec<(SessionId, Change)>,
    /// Sessions whose clients have gone, until the supervisor says that they are over: their numbers are not free.
    left: HashSet<SessionId>,
    /// Until when clients are waited for, once the pod is over.
    farewell: Option<Instant>,
}

struct Client {
    id: SessionId,
    socket: OwnedFd,
    state: State,
    /// Whether it is a connection that is forwarded, which counts for itself.
    is_forward: bool,
}

enum State {
    /// It has not said what it wants.
    Silent,
    /// Its app has not started yet.
    Waiting(Session),
    /// The supervisor knows of it.
    Running,
    /// The supervisor knows of the change or the connection that it wants.
    Changing,
    /// It has been told how its process ended, and takes the rest of the output; or uses its connection.
    Over,
}

impl<'d> Sessions<'d> {
    pub fn new(entrance: Entrance, door: Box<Door<'d>>) -> Self {
        Self {
            entrance: Some(entrance),
            door,
            clients: Vec::new(),
            attaching: Vec::new(),
            alterations: Vec::new(),
            left: HashSet::new(),
            farewell: None,
        }
    }

    pub fn interests<'s>(&'s self, set: &mut Vec<PollFd<'s>>) {
        let wanted = PollFlags::POLLIN;
        set.extend(self.entrance.iter().map(|entrance| PollFd::new(entrance.0.as_fd(), wanted)));
        set.extend(self.clients.iter().map(|client| PollFd::new(client.socket.as_fd(), wanted)));
    }

    /// Does what `answers` allow; what the supervisor is to be told.
    pub fn advance(
        &mut self,
        apps: &Apps,
        answers: &mut impl Iterator<Item = PollFlags>,
    ) -> Vec<ToSupervisor> {
        let mut happened = || answers.next().is_some_and(|answer| !answer.is_empty());
        let called = self.entrance.is_some() && happened();
        let spoke: Vec<bool> = self.clients.iter().map(|_| happened()).collect();
        let clients = std::mem::take(&mut self.clients);
        let mut messages = Vec::new();
        for (client, spoke) in clients.into_iter().zip(spoke) {
            let kept = if spoke { self.listen(client, apps, &mut messages) } else { Some(client) };
            self.clients.extend(kept);
        }
        if called {
            self.accept();
        }
        messages
    }

    fn accept(&mut self) {
        let Some(Entrance(listener)) = &self.entrance else { return };
        let Ok((connection, _)) = listener.accept() else { return };
        let socket = OwnedFd::from(connection);
        let taken: HashSet<SessionId> =
            self.clients.iter().map(|client| client.id).chain(self.left.iter().copied()).collect();
        let free = (0..=SessionId::MAX).find(|id| !taken.contains(id));
        // One that has said nothing yet may be a session's.
        match free.filter(|_| taken.len() - self.forwarded() < MAX_SESSIONS) {
            Some(id) => {
                self.clients.push(Client { id, socket, state: State::Silent, is_forward: false });
            }
            None => {
                let why = format!("the pod has {MAX_SESSIONS} sessions, which is the most");
                let _ = tell(&socket, &ToClient::Failed(vec![why]), &[]);
            }
        }
    }

    /// How many clients are connections that are forwarded.
    fn forwarded(&self) -> usize {
        self.clients.iter().filter(|client| client.is_forward).count()
    }

    /// Hears a client that spoke; one that has gone or speaks nonsense is not kept.
    fn listen(
        &mut self,
        mut client: Client,
        apps: &Apps,
        messages: &mut Vec<ToSupervisor>,
    ) -> Option<Client> {
        let packet = match packets::receive(&client.socket, MAX_PACKET_BYTES) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Some(client),
            Ok(Some(packet)) => decode(&packet.bytes).ok(),
            Ok(None) | Err(_) => None,
        };
        match (packet, &client.state) {
            (Some(FromClient::Begin(request)), State::Silent) => {
                client.state = State::Waiting(request);
                return self.consider(client, apps, messages);
            }
            (Some(FromClient::Change(change)), State::Silent) => {
                return self.change(client, change, apps, messages);
            }
            (Some(FromClient::Attach(request)), State::Silent) => {
                self.attaching.push((client.socket, request));
                return None;
            }
            (Some(FromClient::Measure(subject)), State::Silent) => {
                if let Subject::App(app) = &subject
                    && !apps.has(app)
                {
                    return client.refuse(format!("the pod has no app \"{app}\""));
                }
                client.state = State::Running;
                messages.push(ToSupervisor::Measure { session: client.id, subject });
                return Some(client);
            }
            (Some(FromClient::Connect(port)), State::Silent) => return self.connect(client, port, messages),
            (Some(FromClient::Resize(size)), State::Running) => {
                messages.push(resize(client.id, size));
                return Some(client);
            }
            // It gets its terminal's size at the beginning, or needs none any more.
            (Some(FromClient::Resize(_)), State::Waiting(_) | State::Over) => return Some(client),
            // The change is made all the same; a connection, too, and closed.
            (_, State::Changing) => {
                self.left.insert(client.id);
            }
            (_, State::Running) => {
                self.left.insert(client.id);
                messages.push(ToSupervisor::Hangup { session: client.id });
            }
            _ => {}
        }
        None
    }

    /// Who wants to attach since this was asked.
    pub fn take_attaching(&mut self) -> Vec<(OwnedFd, Attach)> {
        std::mem::take(&mut self.attaching)
    }

    /// What clients want to change in the pod since this was asked.
    pub fn take_alterations(&mut self) -> Vec<(SessionId, Change)> {
        std::mem::take(&mut self.alterations)
    }

    /// A change was not even begun.
    pub fn fail(&mut self, session: SessionId, error: &dyn std::error::Error) {
        self.finish(session, &ToClient::Failed(stage2::causes(error)));
    }

    /// Takes a change of an app on.
    fn change(
        &mut self,
        mut client: Client,
        change: Change,
        apps: &Apps,
        messages: &mut Vec<ToSupervisor>,
    ) -> Option<Client> {
        let Change { app, action } = &change;
        match (action, apps.has(app)) {
            (Action::Add, true) => return client.refuse(format!("the pod has an app \"{app}\" already")),
            (Action::Start | Action::Stop | Action::Remove, false) => {
                return client.refuse(format!("the pod has no app \"{app}\""));
            }
            (Action::Start | Action::Stop, true) => {
                let (app, run) = (app.clone(), *action == Action::Start);
                messages.push(ToSupervisor::Change { session: client.id, app, run });
            }
            (Action::Add, false) | (Action::Remove, true) => self.alterations.push((client.id, change)),
        }
        client.state = State::Changing;
        Some(client)
    }

    /// Hands a client the end of a connection that the supervisor is to make.
    fn connect(
        &mut self,
        mut client: Client,
        port: NonZeroU16,
        messages: &mut Vec<ToSupervisor>,
    ) -> Option<Client> {
        if self.forwarded() >= MAX_FORWARDED {
            return client
                .refuse(format!("the pod has {MAX_FORWARDED} forwarded connections, which is the most"));
        }
        if let Err(errno) = self.hand_over(&client, &CONNECTION) {
            return client.refuse(format!("cannot connect the streams: {errno}"));
        }
        messages.push(ToSupervisor::Connect { session: client.id, port });
        (client.state, client.is_forward) = (State::Changing, true);
        Some(client)
    }

    /// Makes a client's streams, and hands it its ends.
    fn hand_over(&mut self, client: &Client, streams: &[Stream]) -> nix::Result<()> {
        let ends = (self.door)(client.id, streams)?;
        let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
        tell(&client.socket, &ToClient::Connected, &ends)
    }

    /// Begins the session of a waiting client if its app runs.
    fn consider(
        &mut self,
        mut client: Client,
        apps: &Apps,
        messages: &mut Vec<ToSupervisor>,
    ) -> Option<Client> {
        let State::Waiting(request) = &client.state else { return Some(client) };
        let app = &request.app;
        if !apps.has(app) {
            return client.refuse(format!("the pod has no app \"{app}\""));
        }
        if apps.has_ended(app) {
            return client.refuse(format!("app \"{app}\" has ended"));
        }
        if !apps.is_running(app) {
            return Some(client);
        }
        let streams = request.streams();
        if let Err(errno) = self.hand_over(&client, streams) {
            return client.refuse(format!("cannot connect the streams: {errno}"));
        }
        messages.push(ToSupervisor::Enter { session: client.id, request: Box::new(request.clone()) });
        client.state = State::Running;
        Some(client)
    }

    /// Hears what concerns sessions of what the supervisor says; what it is to be told.
    pub fn hear(&mut self, message: &FromSupervisor, apps: &Apps) -> Vec<ToSupervisor> {
        match message {
            FromSupervisor::Started { .. } | FromSupervisor::Exited { .. } => {}
            FromSupervisor::SessionFailed { session, causes } => {
                self.finish(*session, &ToClient::Failed(causes.clone()));
                return Vec::new();
            }
            FromSupervisor::Measured { session, measurement } => {
                self.finish(*session, &ToClient::Measured(measurement.clone()));
                return Vec::new();
            }
            FromSupervisor::SessionExited { session, status } => {
                self.finish(*session, &ToClient::Exited(*status));
                return Vec::new();
            }
            _ => return Vec::new(),
        }
        let mut messages = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            let kept = self.consider(client, apps, &mut messages);
            self.clients.extend(kept);
        }
        messages
    }

    /// A session is over. The supervisor may be hostile: only one that runs can be.
    fn finish(&mut self, id: SessionId, last: &ToClient) {
        if self.left.remove(&id) {
            return;
        }
        let is_meant =
            |client: &Client| client.id == id && matches!(client.state, State::Running | State::Changing);
        let Some(place) = self.clients.iter().position(is_meant) else { return };
        let mut client = self.clients.swap_remove(place);
        // One that cannot be told finds out by the end of the connection.
        if tell(&client.socket, last, &[]).is_ok() {
            client.state = State::Over;
            self.clients.push(client);
        }
    }

    /// The pod is over: only clients that take their last output are waited for, and not for long.
    pub fn close(&mut self) {
        self.entrance = None;
        self.clients.retain(|client| matches!(client.state, State::Over));
        self.farewell.get_or_insert(Instant::now() + FAREWELL);
    }

    /// Whether nobody is waited for any more.
    pub fn are_over(&self) -> bool {
        self.clients.is_empty() || self.farewell.is_some_and(|farewell| farewell <= Instant::now())
    }

    /// Until when somebody is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        self.farewell.filter(|_| !self.clients.is_empty())
    }
}

impl Client {
    /// Tells it why not; it is not kept.
    fn refuse(&self, why: String) -> Option<Self> {
        let _ = tell(&self.socket, &ToClient::Failed(vec![why]), &[]);
        None
    }
}

fn resize(session: SessionId, size: TerminalSize) -> ToSupervisor {
    ToSupervisor::ResizeSession { session, size }
}

/// Sends a client a message, which it may be too slow to take.
pub fn tell(socket: &OwnedFd, message: &ToClient, descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let packet = encode(message).map_err(|_| Errno::EMSGSIZE)?;
    packets::send(socket, &packet, descriptors)
}
