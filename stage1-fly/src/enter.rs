//! The `enter` entrypoint: this process becomes the command, in the app's mount namespace and root, confined as the app is.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use pod::abi::EnterArguments;
use pod::control::TerminalSize;
use pod::session::{Session, SessionTerminal};
use stage2::alone;

use crate::error::Error;
use crate::members::{members, uuid_of};
use crate::record;

/// Becomes a command in the pod in the working directory; returns only if that fails.
pub fn enter(arguments: impl Iterator<Item = String>) -> Result<Infallible, Error> {
    let EnterArguments { pid, app: name, privileged, command } =
        EnterArguments::parse(arguments).map_err(Error::arguments)?;
    let directory = stage1::pod::here()?;
    let app = record::read_app(&directory)?.ok_or(Error::NobodyThere)?;
    if app.name != name {
        return Err(Error::OtherApp(app.name));
    }
    let mut members = members(uuid_of(&directory)?)?;
    // The app itself, unless it has gone and left others behind.
    let of_app = members.iter().position(|member| u32::try_from(member.pid) == Ok(pid)).unwrap_or(0);
    if members.is_empty() {
        return Err(Error::NobodyThere);
    }
    let member = members.swap_remove(of_app);
    // The terminal is the caller's, and has its size; its type is all there is to tell.
    let terminal = std::io::stdin().is_terminal().then(|| SessionTerminal {
        size: TerminalSize { rows: 0, columns: 0 },
        term: std::env::var("TERM").ok(),
    });
    let process = Session { app: name.clone(), command, privileged, terminal }.process(&app.process);
    alone::join(member.pidfd.as_fd(), &process).map_err(|source| Error::NotEntered { app: name, source })
}
