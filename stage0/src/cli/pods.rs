//! The arguments of commands that look at pods or end them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
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

/// One pod.
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

/// Some pods.
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

/// What is to run in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EnterFlags {
    /// The app; needed if the pod has several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    pub app: Option<AcName>,
    /// A UUID, or a unique beginning of one
    #[arg(value_name = "UUID")]
    pub uuid: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
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

/// What of a pod's status is wanted, and when.
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
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(default_value = "false", default_missing_value = "true", conflicts_with = "wait")]
    pub stats: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatusFormat,
}

/// The form of a pod's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusFormat {
    /// A `key=value` a line.
    Text,
    /// JSON in one line.
    Json,
    /// JSON, indented.
    JsonPretty,
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
}
