//! The `attach` entrypoint: a client of the pod's parent, which carries the caller's streams to and from those of an app's
//! own process. If it goes, the app goes on.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::pod::abi::AttachArguments;
use ::pod::attach::{AttachMode, Endpoints};
use ::pod::control::ExitStatus;
use ::pod::session::{Attach, FromClient};
use ::pod::streams::StreamModes;
use relay::Observer;

use crate::Error;
use crate::client::{CallerTerminal, Client, Task};
use crate::pod;

/// Ctrl-], by which systemd-nspawn is left, too.
const LEAVING_KEY: u8 = 0x1d;
/// How often it is to be pressed, and how quickly.
const LEAVING_TIMES: u32 = 3;
const LEAVING_PERIOD: Duration = Duration::from_secs(1);

/// Attaches to an app of the pod in the working directory, or lists what it can be attached to; how the app has ended, or
/// success if it goes on.
pub fn attach(arguments: impl Iterator<Item = String>) -> Result<ExitStatus, Error> {
    let AttachArguments { mode, app } = AttachArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let there = endpoints(&app)?;
    if mode == AttachMode::List {
        let names = there.named().into_iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}\n"));
        // Nobody may read it.
        let _ = std::io::stdout().write_all(names.collect::<String>().as_bytes());
        return Ok(ExitStatus::SUCCESS);
    }
    let endpoints = there.choose(mode, &app).map_err(unattached)?;
    let terminal = if endpoints.tty_in { CallerTerminal::take()? } else { None };
    let size = terminal.as_ref().map(|terminal| terminal.raw.size());
    let leave = Rc::new(Cell::new(false));
    let keys = LeavingKeys { pressed: 0, since: Instant::now(), leave: Rc::clone(&leave) };
    let watch = size.is_some().then(|| Box::new(keys) as Box<dyn Observer>);
    let task = Task {
        app: app.clone(),
        streams: endpoints.streams(),
        terminal: endpoints.tty_in || endpoints.tty_out,
        input: endpoints.tty_in || endpoints.stdin,
        output: endpoints.tty_out || endpoints.stdout || endpoints.stderr,
        leave,
        refused: |app, source| Error::NotAttached { app, source },
    };
    let request = FromClient::Attach(Attach { app, streams: endpoints.streams() });
    let client = Client::connect(task, terminal, watch, &request)?;
    if let Some(size) = size {
        client.say(&FromClient::Resize(size))?;
    }
    client.run()
}

/// What the app can be attached to.
fn endpoints(app: &::pod::types::AcName) -> Result<Endpoints, Error> {
    let manifest = pod::read_manifest(&pod::here()?)?;
    let missing = || ::pod::Error::Invalid(format!("the pod has no app \"{app}\""));
    let found = manifest.apps.iter().find(|other| other.name == *app).ok_or_else(missing);
    let modes = found.and_then(|app| StreamModes::of(app, manifest.apps.len() == 1, false));
    Ok(Endpoints::of(&modes.map_err(unattached)?))
}

fn unattached(source: ::pod::Error) -> Error {
    Error::Pod { what: "cannot attach".into(), source }
}

/// Sees when the caller wants to leave. The app gets the keys all the same.
#[derive(Debug)]
struct LeavingKeys {
    pressed: u32,
    since: Instant,
    leave: Rc<Cell<bool>>,
}

impl Observer for LeavingKeys {
    fn observe(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != LEAVING_KEY {
                self.pressed = 0;
                continue;
            }
            if self.pressed == 0 || self.since.elapsed() > LEAVING_PERIOD {
                (self.pressed, self.since) = (0, Instant::now());
            }
            self.pressed += 1;
            if self.pressed >= LEAVING_TIMES {
                self.leave.set(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_the_key() {
        let leaves = |inputs: &[&[u8]]| {
            let leave = Rc::default();
            let mut keys = LeavingKeys { pressed: 0, since: Instant::now(), leave: Rc::clone(&leave) };
            inputs.iter().for_each(|input| keys.observe(input));
            leave.get()
        };
        assert!(leaves(&[b"\x1d\x1d\x1d"]) && leaves(&[b"a\x1d", b"\x1d", b"\x1db"]));
        assert!(!leaves(&[b"\x1d\x1d"]) && !leaves(&[b"\x1d\x1da\x1d"]));
    }
}
