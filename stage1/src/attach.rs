//! The `attach` entrypoint: a client of the pod's parent, which carries the caller's streams to and from those of an app's
//! own process. If it goes, the app goes on.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use ::pod::abi::AttachArguments;
use ::pod::attach::{AttachMode, Endpoints};
use ::pod::control::ExitStatus;
use ::pod::session::{Attach, FromClient};
use ::pod::streams::StreamModes;
use relay::Filter;

use crate::Error;
use crate::client::{CallerTerminal, Client, Task};
use crate::pod;

/// Ctrl-], by which systemd-nspawn is left, too.
const LEAVING_KEY: u8 = 0x1d;
/// How often it is to be pressed, with no other key in between.
const LEAVING_TIMES: usize = 3;

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
    let keys = LeavingKeys { pressed: 0, leave: Rc::clone(&leave) };
    let filter = size.is_some().then(|| Box::new(keys) as Box<dyn Filter>);
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
    let client = Client::connect(task, terminal, filter, &request)?;
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

/// Sees when the caller wants to leave; keeps the keys back until it is clear that he does not.
#[derive(Debug)]
struct LeavingKeys {
    pressed: usize,
    leave: Rc<Cell<bool>>,
}

impl Filter for LeavingKeys {
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for byte in input {
            if *byte == LEAVING_KEY {
                self.pressed += 1;
                if self.pressed == LEAVING_TIMES {
                    self.leave.set(true);
                    self.pressed = 0;
                }
            } else {
                self.finish(output);
                output.push(*byte);
            }
        }
    }

    fn finish(&mut self, output: &mut Vec<u8>) {
        output.extend(std::iter::repeat_n(LEAVING_KEY, std::mem::take(&mut self.pressed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_the_key() {
        let run = |inputs: &[&[u8]]| {
            let leave = Rc::default();
            let mut keys = LeavingKeys { pressed: 0, leave: Rc::clone(&leave) };
            let mut output = Vec::new();
            inputs.iter().for_each(|input| keys.push(input, &mut output));
            (leave.get(), output)
        };
        assert_eq!(run(&[b"\x1d\x1d\x1d"]), (true, b"".to_vec()));
        assert_eq!(run(&[b"a\x1d", b"\x1d", b"\x1d"]), (true, b"a".to_vec()));
        assert_eq!(run(&[b"\x1d\x1d"]), (false, b"".to_vec()));
        assert_eq!(run(&[b"\x1d\x1d", b"a\x1d"]), (false, b"\x1d\x1da".to_vec()));
    }
}
