//! The arguments of commands that look at pods or end them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;
use pod::attach::AttachMode;
use pod::forward::Forward;
use pod::types::AcName;

use super::values;

/// Which pod is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodChoice {
    /// A UUID, or the beginning of one.
    Uuid(String),
    /// A file with a UUID, as `run --uuid-file-save` writes it.
    File(PathBuf),
}

// One pod.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OnePod {
    /// A file with the pod's UUID
    #[arg(long, value_name = "FILE")]
    uuid_file: Option<PathBuf>,
    /// A UUID, or a unique beginning of one
    #[arg(value_name = "UUID")]
    uuid: Option<String>,
}

// Some pods.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SomePods {
    /// A file with a pod's UUID
    #[arg(long, value_name = "FILE")]
    uuid_file: Option<PathBuf>,
    /// UUIDs, or unique beginnings of them
    #[arg(value_name = "UUID")]
    uuids: Vec<String>,
}

impl From<OnePod> for PodChoice {
    fn from(pod: OnePod) -> Self {
        match pod.uuid_file {
            Some(file) => Self::File(file),
            None => Self::Uuid(pod.uuid.unwrap_or_default()),
        }
    }
}

impl From<SomePods> for Vec<PodChoice> {
    fn from(pods: SomePods) -> Self {
        let file = pods.uuid_file.into_iter().map(PodChoice::File);
        file.chain(pods.uuids.into_iter().map(PodChoice::Uuid)).collect()
    }
}

// What is to run in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EnterFlags {
    /// The app; needed if the pod has several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    pub app: Option<AcName>,
    /// As root of the pod, with all capabilities and no filter, profile or limit of the app's
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub privileged: bool,
    /// A UUID, or a unique beginning of one
    #[arg(value_name = "UUID")]
    pub uuid: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

// Which ports lead into a pod.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PortForwardFlags {
    /// A UUID, or a unique beginning of one
    #[arg(value_name = "UUID")]
    pub uuid: String,
    /// LOCAL:REMOTE, ADDRESS:LOCAL:REMOTE, or PORT for both; without an address, at 127.0.0.1 and ::1
    #[arg(required = true, value_parser = forward, value_name = "PORT")]
    pub forwards: Vec<Forward>,
}

// What of an ended pod to write where.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ExportFlags {
    /// The app; needed if the pod has several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    pub app: Option<AcName>,
    /// Replace the file if it is there
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub overwrite: bool,
    /// A UUID, or a unique beginning of one
    #[arg(value_name = "UUID")]
    pub uuid: String,
    /// The file, with a name that ends in .aci
    #[arg(value_name = "OUTPUT")]
    pub output: PathBuf,
}

// What to attach to.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AttachFlags {
    /// The app; needed if the pod has several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    pub app: Option<AcName>,
    /// What to attach to: list prints what there is, auto is all of it; tty, tty-in, tty-out, or some of stdin,stdout,stderr
    #[arg(long, value_parser = attach_mode, default_value = "auto")]
    pub mode: AttachMode,
}

// What of a pod's logs is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct LogsFlags {
    /// The app; all that have a log by default, with their names before their lines if there are several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    pub app: Option<AcName>,
    /// Go on with what is written from now on, until the pod ends
    #[arg(long, short)]
    pub follow: bool,
    /// Leave out what is older: a time in UTC (2026-11-25T17:00:00Z), or a duration (30m) before now
    #[arg(long, value_parser = since, value_name = "TIME|DURATION")]
    pub since: Option<SystemTime>,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
}

/// How long to wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until it is so.
    Forever,
    /// At most this long.
    AtMost(Duration),
}

// What of a pod's status is wanted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct StatusFlags {
    /// Wait until the pod has ended, or for a time: 30s, 5m
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL|DURATION", value_parser = wait)]
    #[arg(default_value = "false", default_missing_value = "true", conflicts_with = "wait_ready")]
    pub wait: Wait,
    /// Wait until every app of the pod has started, or for a time
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL|DURATION", value_parser = wait)]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub wait_ready: Wait,
    /// Tell what the pod and its apps use: CPU time, memory, devices, processes
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", conflicts_with = "wait")]
    pub stats: bool,
    /// Have the plugins of its networks check that these are as they were made (CNI's CHECK), and tell the outcome
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", conflicts_with_all = ["wait", "stats", "format"])]
    pub check_networks: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatusFormat,
}

/// The form of what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusFormat {
    /// For people: a table, or a `key=value` a line.
    Text,
    /// JSON in one line.
    Json,
    /// JSON, indented.
    JsonPretty,
}

fn forward(text: &str) -> Result<Forward, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

fn attach_mode(text: &str) -> Result<AttachMode, String> {
    text.parse().map_err(|error: pod::Error| error.to_string())
}

fn since(text: &str) -> Result<SystemTime, String> {
    let time = match values::duration(text) {
        Ok(duration) => SystemTime::now().checked_sub(duration),
        Err(_) => pod::log::parse_time(text),
    };
    time.ok_or_else(|| {
        format!("{text:?} is neither a time such as 2026-11-25T17:00:00Z nor a duration such as 30m")
    })
}

fn wait(text: &str) -> Result<Wait, String> {
    match text {
        "true" => Ok(Wait::Forever),
        "false" => Ok(Wait::No),
        duration => values::duration(duration).map(|limit| match limit {
            Duration::ZERO => Wait::No,
            limit => Wait::AtMost(limit),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        assert_eq!(
            [wait("true"), wait("false"), wait("0s"), wait("2s")],
            [Ok(Wait::Forever), Ok(Wait::No), Ok(Wait::No), Ok(Wait::AtMost(Duration::from_secs(2)))]
        );
        assert!(wait("soon").is_err());
    }

    #[test]
    fn points_in_time() {
        let hour_ago = since("1h").unwrap();
        let hour = SystemTime::now().duration_since(hour_ago).unwrap();
        assert!(hour >= Duration::from_secs(3600) && hour < Duration::from_secs(3700));
        assert_eq!(since("1970-01-01T00:00:07Z"), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert!(since("yesterday").is_err());
    }
}
