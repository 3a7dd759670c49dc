//! One call of one plugin (CNI spec, "Section 2: Execution Protocol").

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Failure;
use super::execute::{Finished, Patience, execute};

/// How much of what a plugin printed an error shows.
const EXCERPT_CHARACTERS: usize = 400;

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Attach a pod.
    Add,
    /// Detach it.
    Del,
    /// Tell whether it is attached as ADD has left it.
    Check,
    /// Forget what is of nobody.
    Gc,
    /// Tell whether ADD can be carried out.
    Status,
    /// Tell the versions that are spoken.
    Version,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// What `CNI_COMMAND` says, if it is any.
    pub fn of_command(command: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == command)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// For errors: "failed to ... eth0", or without an interface.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Del => "remove",
            Self::Check => "check",
            Self::Gc => "collect what is left of",
            Self::Status => "be ready",
            Self::Version => "tell its versions",
        }
    }
}

/// The parameters beside the configuration.
pub struct Parameters<'a> {
    pub verb: Verb,
    pub container_id: &'a str,
    /// Empty if there is none any more.
    pub namespace: &'a Path,
    pub interface: &'a str,
    pub arguments: &'a str,
    pub plugin_directories: &'a [std::path::PathBuf],
}

/// Calls a plugin; its result if it told one, which only ADD must.
pub fn invoke(
    plugin: &Path,
    parameters: &Parameters<'_>,
    request: Map<String, Value>,
    patience: Patience<'_>,
) -> Result<Option<Value>, Failure> {
    let input = Value::Object(request).to_string();
    let finished = execute(plugin, &environment(parameters), input.as_bytes(), patience)?;
    if !finished.status.success() {
        return Err(failure(&finished));
    }
    let blank = finished.stdout.iter().all(u8::is_ascii_whitespace);
    match serde_json::from_slice(&finished.stdout) {
        Ok(result) => Ok(Some(result)),
        Err(_) if parameters.verb != Verb::Add => Ok(None),
        Err(_) if blank => Err(garbage("it printed nothing".into(), &finished)),
        Err(error) => Err(garbage(error.to_string(), &finished)),
    }
}

fn environment(parameters: &Parameters<'_>) -> [(&'static str, String); 6] {
    let directories: Vec<String> =
        parameters.plugin_directories.iter().map(|directory| directory.display().to_string()).collect();
    [
        ("CNI_COMMAND", parameters.verb.as_str().to_owned()),
        ("CNI_CONTAINERID", parameters.container_id.to_owned()),
        ("CNI_NETNS", parameters.namespace.display().to_string()),
        ("CNI_IFNAME", parameters.interface.to_owned()),
        ("CNI_ARGS", parameters.arguments.to_owned()),
        ("CNI_PATH", directories.join(":")),
    ]
}

/// An error result (CNI spec, "Section 5: Result Types", "Error").
#[derive(Deserialize)]
struct RawError {
    code: i64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn failure(finished: &Finished) -> Failure {
    match serde_json::from_slice::<RawError>(&finished.stdout) {
        Ok(error) if !error.msg.is_empty() || !error.details.is_empty() => {
            let parts: Vec<&str> = [error.msg.as_str(), error.details.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            Failure::Reported { code: error.code, message: parts.join("; ") }
        }
        _ => Failure::Silent { status: describe(finished.status), output: excerpt(finished) },
    }
}

/// A result that is none.
pub fn garbage(reason: String, finished: &Finished) -> Failure {
    Failure::Garbage { reason, output: excerpt(finished) }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

/// The beginning of what it printed, made harmless for a terminal.
fn excerpt(finished: &Finished) -> String {
    let text = [&finished.stdout[..], &finished.stderr[..]]
        .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let text = text.join("\n");
    let shown: String = text.trim().chars().take(EXCERPT_CHARACTERS).collect();
    if shown.is_empty() { String::new() } else { format!("; it printed {shown:?}") }
}
