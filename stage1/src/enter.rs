//! The `enter` entrypoint: a client of the pod's parent, which carries the caller's streams to and from a process in an
//! app. If it goes, the process ends.

use std::rc::Rc;

use ::pod::abi::EnterArguments;
use ::pod::control::ExitStatus;
use ::pod::session::{FromClient, Session, SessionTerminal};

use crate::Error;
use crate::client::{CallerTerminal, Client, Task};

/// Runs a command in an app of the pod in the working directory; how the command has ended.
pub fn enter(arguments: impl Iterator<Item = String>) -> Result<ExitStatus, Error> {
    let arguments = EnterArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let terminal = CallerTerminal::take()?;
    let session = Session {
        app: arguments.app,
        command: arguments.command,
        privileged: arguments.privileged,
        terminal: terminal
            .as_ref()
            .map(|terminal| SessionTerminal { size: terminal.raw.size(), term: std::env::var("TERM").ok() }),
    };
    let task = Task {
        app: session.app.clone(),
        streams: session.streams().to_vec(),
        terminal: session.terminal.is_some(),
        input: true,
        output: true,
        leave: Rc::default(),
        refused: |app, source| Error::NotEntered { app, source },
    };
    Client::connect(task, terminal, None, &FromClient::Begin(session))?.run()
}
