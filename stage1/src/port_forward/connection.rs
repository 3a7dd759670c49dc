//! One connection: first a question to the pod's parent, then two directions of bytes.

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ::pod::session::{FromClient, ToClient};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use relay::{Carrier, both_directions};

use crate::Error;
use crate::error::Causes;
use crate::parent::Parent;

/// How long the pod may take to connect; a guest may be hostile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection was not made.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection. It is the pod's session as long as it lives.
#[derive(Debug)]
pub struct Connection {
    from: SocketAddr,
    port: NonZeroU16,
    parent: Parent,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The supervisor has not connected yet.
    Asking {
        outside: OwnedFd,
        /// Once the parent has made it.
        inside: Option<OwnedFd>,
        until: Instant,
    },
    /// Both directions, as long as they go on.
    Carrying(Vec<Carrier>),
    Over,
}

impl Connection {
    /// Asks for a connection to `port` of the pod, for one that has come `from` somewhere.
    pub fn ask(stream: TcpStream, from: SocketAddr, port: NonZeroU16) -> Result<Self, Error> {
        let parent =
            Parent::call().and_then(|parent| parent.say(&FromClient::Connect(port)).map(|()| parent));
        let parent = parent.map_err(|error| failed(from, port, error))?;
        // Whoever writes has decided about the size of the pieces already. An answer that waits for nothing needs no more.
        let _unlikely = stream.set_nodelay(true);
        let stage = Stage::Asking { outside: stream.into(), inside: None, until: Instant::now() + PATIENCE };
        Ok(Self { from, port, parent, stage })
    }

    /// Whose it is.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Whether the pod's side is connected.
    pub fn is_carrying(&self) -> bool {
        matches!(self.stage, Stage::Carrying(_))
    }

    /// Whether nothing more is to be done.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Until when the pod's side is to be connected.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asking { until, .. } => Some(*until),
            Stage::Carrying(_) | Stage::Over => None,
        }
    }

    /// Adds what to wait for.
    pub fn interests<'a>(&'a self, set: &mut Vec<PollFd<'a>>) {
        match &self.stage {
            Stage::Asking { .. } => set.push(PollFd::new(self.parent.as_fd(), PollFlags::POLLIN)),
            Stage::Carrying(carriers) => carriers.iter().for_each(|carrier| carrier.interests(set)),
            Stage::Over => {}
        }
    }

    /// Does what `answers` allow, in the order of [`Self::interests`]; why it is over before it was connected, if so.
    pub fn advance(
        &mut self,
        answers: &mut impl Iterator<Item = PollFlags>,
        now: Instant,
    ) -> Result<(), Error> {
        let result = match &mut self.stage {
            Stage::Asking { until, .. } => {
                let spoke = answers.next().is_some_and(|answer| !answer.is_empty());
                let late = *until <= now;
                if spoke {
                    self.hear()
                } else if late {
                    Err(Error::System { action: "hear from the pod", source: Errno::ETIMEDOUT }.into())
                } else {
                    Ok(())
                }
            }
            Stage::Carrying(carriers) => {
                carriers.iter_mut().for_each(|carrier| carrier.advance(answers));
                carriers.retain(|carrier| !carrier.is_done());
                if carriers.is_empty() {
                    self.stage = Stage::Over;
                }
                Ok(())
            }
            Stage::Over => Ok(()),
        };
        result.map_err(|source| {
            self.stage = Stage::Over;
            Error::NotForwarded { from: self.from, port: self.port, source }
        })
    }

    fn hear(&mut self) -> Result<(), Failure> {
        let Some((message, descriptors)) = self.parent.hear()? else { return Ok(()) };
        let Stage::Asking { inside, .. } = &mut self.stage else { return Ok(()) };
        match message {
            ToClient::Connected => {
                *inside = descriptors.into_iter().next();
                Ok(())
            }
            ToClient::Exited(_) => self.carry(),
            ToClient::Failed(causes) => {
                Err(Causes::new(causes).map_or_else(|| Error::PodGone.into(), Failure::from))
            }
            // Not what was asked for.
            ToClient::Measured(_) => Err(Error::PodGone.into()),
        }
    }

    /// Both sides are there.
    fn carry(&mut self) -> Result<(), Failure> {
        let Stage::Asking { outside, inside: Some(inside), .. } =
            std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return Err(Error::PodGone.into());
        };
        let carriers = both_directions(outside, inside)
            .map_err(|source| Error::System { action: "carry a connection", source })?;
        self.stage = Stage::Carrying(carriers.into());
        Ok(())
    }
}

fn failed(from: SocketAddr, port: NonZeroU16, error: Error) -> Error {
    Error::NotForwarded { from, port, source: error.into() }
}
