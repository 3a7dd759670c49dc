//! The `stop` entrypoint. Nobody but the app is there to be told: it gets its kill signal itself.

use std::time::Duration;

use nix::errno::Errno;
use pod::abi::StopArguments;
use pod::life::KillSignal;
use stage1::stop::living_parent;
use stage1::sys;
use uuid::Uuid;

use crate::error::Error;
use crate::gc::still_run;
use crate::members::{Member, members};
use crate::record;

/// SIGKILL, by its number as the app's own signal.
const KILL: i32 = 9;
/// How long processes that were killed may take to be gone.
const ATTEMPTS: u32 = 250;
const PAUSE: Duration = Duration::from_millis(20);

/// Stops the pod in the working directory: tells its app to end, or, forced, kills everything that is of the pod. What the
/// app has left behind is told instead, if the app itself has gone.
pub fn stop(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let StopArguments { force, uuid } = StopArguments::parse(arguments).map_err(Error::arguments)?;
    let directory = stage1::pod::here()?;
    let app = living_parent(&directory, uuid, "stopped").map(|(pid, pidfd)| Member { pid, pidfd });
    if force {
        return kill_all(app, uuid);
    }
    let signal = record::read_app(&directory)?.map_or(KillSignal::TERM, |app| app.life.kill_signal).number();
    let to_tell = match app {
        Ok(app) => vec![app],
        Err(no_app) => match members(uuid)? {
            none if none.is_empty() => return Err(no_app.into()),
            left => left,
        },
    };
    to_tell.iter().try_for_each(|member| send(member, signal))
}

/// Kills until nothing is left: a process may be forking.
fn kill_all(app: Result<Member, stage1::Error>, uuid: Uuid) -> Result<(), Error> {
    match &app {
        // One that does not have its root yet is in no list.
        Ok(app) => send(app, KILL)?,
        Err(_) if members(uuid)?.is_empty() => return app.map(drop).map_err(Into::into),
        Err(_) => {}
    }
    for _ in 0..ATTEMPTS {
        let left = members(uuid)?;
        if left.is_empty() {
            return Ok(());
        }
        left.iter().try_for_each(|member| send(member, KILL))?;
        std::thread::sleep(PAUSE);
    }
    still_run(uuid)
}

/// A process that has ended meanwhile has done what it was to do.
fn send(member: &Member, signal: i32) -> Result<(), Error> {
    match sys::pidfd_send_signal(&member.pidfd, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(stage1::Error::System { action: "signal the pod's processes", source }.into()),
    }
}
