//! Where an app's standard streams lead: what `--stdin`, `--stdout` and `--stderr` say, by upstream's annotations of the
//! app (`coreos.com/rkt/stage2/stdin`, ...). Upstream has one word a stream; here output may go to several places.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::control::Stream;
use crate::plan::Stdio;
use crate::pod_manifest::RuntimeApp;
use crate::quantity::Quantity;

/// Annotation of an app: an [`InputMode`].
pub const ANNOTATION_STDIN: &str = "coreos.com/rkt/stage2/stdin";
/// Annotation of an app: an [`OutputMode`].
pub const ANNOTATION_STDOUT: &str = "coreos.com/rkt/stage2/stdout";
/// Annotation of an app: an [`OutputMode`].
pub const ANNOTATION_STDERR: &str = "coreos.com/rkt/stage2/stderr";
/// Annotation of an app: the size at which a file of its log is full, a quantity of bytes.
pub const ANNOTATION_LOG_MAX_SIZE: &str = "rkt/log/max-size";
/// Annotation of an app: how many files of its log are kept.
pub const ANNOTATION_LOG_MAX_FILES: &str = "rkt/log/max-files";

/// The least size of a log's file: several of the longest records fit.
pub const MIN_LOG_BYTES: u64 = 64 << 10;

/// Where an app's standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputMode {
    /// It is empty.
    Null,
    /// It is the caller's.
    #[default]
    Inherit,
    /// From whoever attaches.
    Stream,
    /// A terminal of the pod, for whoever attaches.
    #[serde(rename = "tty")]
    Terminal,
}

/// Where an app's output goes: to none of these, or to several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputMode {
    /// To the caller's stream.
    pub inherit: bool,
    /// To the app's log.
    pub log: bool,
    /// To whoever attaches.
    pub stream: bool,
    /// To a terminal of the pod, for whoever attaches.
    pub terminal: bool,
}

impl OutputMode {
    /// Nowhere.
    pub const NULL: Self = Self { inherit: false, log: false, stream: false, terminal: false };
    /// To the caller's stream and nowhere else.
    pub const INHERIT: Self = Self { inherit: true, ..Self::NULL };
    const TERMINAL: Self = Self { terminal: true, ..Self::NULL };
}

impl Default for OutputMode {
    fn default() -> Self {
        Self::INHERIT
    }
}

impl FromStr for InputMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "null" => Ok(Self::Null),
            "inherit" => Ok(Self::Inherit),
            "stream" => Ok(Self::Stream),
            "tty" => Ok(Self::Terminal),
            _ => Err(Error::syntax(text, "one of null, inherit, stream, tty")),
        }
    }
}

impl FromStr for OutputMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const EXPECTED: &str =
            "null, or of inherit, log and stream one or several, comma-separated, or tty or tty,log";
        if text == "null" {
            return Ok(Self::NULL);
        }
        let mut mode = Self::NULL;
        for word in text.split(',') {
            let flag = match word {
                "inherit" => &mut mode.inherit,
                "log" => &mut mode.log,
                "stream" => &mut mode.stream,
                "tty" => &mut mode.terminal,
                _ => return Err(Error::syntax(text, EXPECTED)),
            };
            if std::mem::replace(flag, true) {
                return Err(Error::syntax(text, EXPECTED));
            }
        }
        match mode.terminal && (mode.inherit || mode.stream) {
            true => Err(Error::syntax(text, EXPECTED)),
            false => Ok(mode),
        }
    }
}

impl fmt::Display for InputMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Inherit => "inherit",
            Self::Stream => "stream",
            Self::Terminal => "tty",
        })
    }
}

impl fmt::Display for OutputMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            [(self.inherit, "inherit"), (self.stream, "stream"), (self.terminal, "tty"), (self.log, "log")];
        let words: Vec<&str> = words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
        f.write_str(if words.is_empty() { "null".into() } else { words.join(",") }.as_str())
    }
}

/// How large an app's log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Of one file, in bytes.
    pub max_bytes: u64,
    /// How many files are kept; not 0.
    pub max_files: u64,
}

impl Default for LogLimits {
    /// As the kubelet keeps containers' logs.
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// Where an app's standard streams lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamModes {
    /// Standard input.
    pub stdin: InputMode,
    /// Standard output.
    pub stdout: OutputMode,
    /// Standard error.
    pub stderr: OutputMode,
    /// Of the app's log, if it has one.
    pub log: LogLimits,
}

impl StreamModes {
    /// What the app's annotations say. Without them the streams are the caller's, but the input of an app that is not
    /// `alone` in its pod, which is empty.
    pub fn of(app: &RuntimeApp, alone: bool, interactive: bool) -> Result<Self, Error> {
        let stdin: Option<InputMode> = annotation(app, ANNOTATION_STDIN)?;
        let stdout: Option<OutputMode> = annotation(app, ANNOTATION_STDOUT)?;
        let stderr: Option<OutputMode> = annotation(app, ANNOTATION_STDERR)?;
        let log = log_limits(app)?;
        let modes = Self::choose(app, alone, interactive, [stdout, stderr], stdin, log)?;
        let limited =
            [ANNOTATION_LOG_MAX_SIZE, ANNOTATION_LOG_MAX_FILES].iter().any(|n| text(app, n).is_some());
        if limited && !modes.has_log() {
            return Err(Error::Invalid(format!(
                "app \"{}\" has limits of a log, but no log: leave them out, or log with --stdout=log, --stderr=log",
                app.name
            )));
        }
        Ok(modes)
    }

    fn choose(
        app: &RuntimeApp,
        alone: bool,
        interactive: bool,
        [stdout, stderr]: [Option<OutputMode>; 2],
        stdin: Option<InputMode>,
        log: LogLimits,
    ) -> Result<Self, Error> {
        if interactive && (stdin.is_some() || stdout.is_some() || stderr.is_some()) {
            return Err(Error::Invalid(format!(
                "app \"{}\" has the caller's terminal (--interactive), which goes with no --stdin, --stdout or --stderr",
                app.name
            )));
        }
        let outputs = stdout.into_iter().chain(stderr);
        if stdin == Some(InputMode::Terminal) || outputs.clone().any(|mode| mode.terminal) {
            return Self::on_terminal(app, [stdout, stderr], stdin, log);
        }
        let default_input = if alone { InputMode::Inherit } else { InputMode::Null };
        Ok(Self {
            stdin: stdin.unwrap_or(default_input),
            stdout: stdout.unwrap_or_default(),
            stderr: stderr.unwrap_or_default(),
            log,
        })
    }

    /// A terminal is all three streams at once, and has one output.
    fn on_terminal(
        app: &RuntimeApp,
        [stdout, stderr]: [Option<OutputMode>; 2],
        stdin: Option<InputMode>,
        log: LogLimits,
    ) -> Result<Self, Error> {
        let stdin = stdin.unwrap_or(InputMode::Terminal);
        let (stdout, stderr) =
            (stdout.unwrap_or(OutputMode::TERMINAL), stderr.unwrap_or(OutputMode::TERMINAL));
        if stdin != InputMode::Terminal || !stdout.terminal || stderr != OutputMode::TERMINAL {
            return Err(Error::Invalid(format!(
                "app \"{}\" has --stdin={stdin} --stdout={stdout} --stderr={stderr}, but a terminal is all three at \
                once: say tty for each or leave the others out; it is logged by --stdout=tty,log",
                app.name
            )));
        }
        Ok(Self { stdin, stdout, stderr, log })
    }

    /// What the supervisor is to make of them.
    pub fn stdio(&self, interactive: bool) -> Stdio {
        if interactive || self.stdin == InputMode::Terminal {
            return Stdio::Terminal;
        }
        let streams = [
            (self.stdin != InputMode::Null, Stream::Stdin),
            (self.stdout != OutputMode::NULL, Stream::Stdout),
            (self.stderr != OutputMode::NULL, Stream::Stderr),
        ];
        Stdio::Streams(streams.into_iter().filter(|(on, _)| *on).map(|(_, stream)| stream).collect())
    }

    /// The mode of a stream of output; that of a terminal's, which is carried with its input.
    pub fn output(&self, stream: Stream) -> OutputMode {
        match stream {
            Stream::Stdin | Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Whether the app has a log.
    pub fn has_log(&self) -> bool {
        self.stdout.log || self.stderr.log
    }

    /// What can be attached to; of a terminal, which is both directions, [`Stream::Stdin`].
    pub fn endpoints(&self) -> Vec<Stream> {
        let streams = [
            (matches!(self.stdin, InputMode::Stream | InputMode::Terminal), Stream::Stdin),
            (self.stdout.stream, Stream::Stdout),
            (self.stderr.stream, Stream::Stderr),
        ];
        streams.into_iter().filter(|(on, _)| *on).map(|(_, stream)| stream).collect()
    }
}

fn text<'a>(app: &'a RuntimeApp, name: &str) -> Option<&'a str> {
    let found = app.annotations.iter().find(|annotation| annotation.name.as_str() == name);
    found.map(|annotation| annotation.value.as_str())
}

fn annotation<T: FromStr<Err = Error>>(app: &RuntimeApp, name: &str) -> Result<Option<T>, Error> {
    text(app, name).map(str::parse).transpose()
}

fn log_limits(app: &RuntimeApp) -> Result<LogLimits, Error> {
    let default = LogLimits::default();
    let size: Option<Quantity> = annotation(app, ANNOTATION_LOG_MAX_SIZE)?;
    let max_bytes = match size {
        Some(size) => size.units().ok_or_else(|| Error::Invalid("the log's size is too much".into()))?,
        None => default.max_bytes,
    };
    let max_files = match text(app, ANNOTATION_LOG_MAX_FILES) {
        Some(text) => text.parse().map_err(|_| Error::syntax(text, "a number of files"))?,
        None => default.max_files,
    };
    if max_bytes < MIN_LOG_BYTES || max_files == 0 {
        return Err(Error::Invalid(format!(
            "a log needs files of at least {}Ki bytes, and at least one of them",
            MIN_LOG_BYTES >> 10
        )));
    }
    Ok(LogLimits { max_bytes, max_files })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(annotations: &[(&str, &str)]) -> RuntimeApp {
        let annotations: Vec<_> = annotations
            .iter()
            .map(|(name, value)| serde_json::json!({"name": name, "value": value}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "name": "web", "image": {"id": format!("sha512-{}", "0".repeat(64))}, "annotations": annotations
        }))
        .unwrap()
    }

    fn modes(annotations: &[(&str, &str)]) -> Result<StreamModes, Error> {
        StreamModes::of(&app(annotations), true, false)
    }

    #[test]
    fn words() {
        for text in ["null", "inherit", "log", "inherit,stream,log", "tty", "tty,log"] {
            assert_eq!(text.parse::<OutputMode>().unwrap().to_string(), text);
        }
        for bad in ["", "file", "log,log", "null,log", "tty,stream", "inherit,tty", "log,"] {
            assert!(bad.parse::<OutputMode>().is_err(), "{bad}");
        }
        for text in ["null", "inherit", "stream", "tty"] {
            assert_eq!(text.parse::<InputMode>().unwrap().to_string(), text);
        }
        assert!("log".parse::<InputMode>().is_err());
    }

    #[test]
    fn by_default_the_streams_are_the_callers() {
        assert_eq!(modes(&[]).unwrap(), StreamModes::default());
        let among_others = StreamModes::of(&app(&[]), false, false).unwrap();
        assert_eq!(among_others.stdio(false), Stdio::Streams(vec![Stream::Stdout, Stream::Stderr]));
        assert_eq!(StreamModes::default().stdio(false), Stdio::Streams(Stdio::THREE.to_vec()));
        assert_eq!(StreamModes::default().stdio(true), Stdio::Terminal);
        assert!(StreamModes::default().endpoints().is_empty() && !StreamModes::default().has_log());
    }

    #[test]
    fn a_terminal_is_all_three() {
        for one in [ANNOTATION_STDIN, ANNOTATION_STDOUT, ANNOTATION_STDERR] {
            let modes = modes(&[(one, "tty")]).unwrap();
            assert_eq!((modes.stdio(false), modes.endpoints()), (Stdio::Terminal, vec![Stream::Stdin]));
        }
        assert!(modes(&[(ANNOTATION_STDIN, "tty"), (ANNOTATION_STDOUT, "tty,log")]).unwrap().has_log());
        for (other, mode) in
            [(ANNOTATION_STDOUT, "log"), (ANNOTATION_STDERR, "null"), (ANNOTATION_STDERR, "tty,log")]
        {
            let error = modes(&[(ANNOTATION_STDIN, "tty"), (other, mode)]).unwrap_err().to_string();
            assert!(error.contains("tty"), "{error}");
        }
        let interactive = StreamModes::of(&app(&[(ANNOTATION_STDOUT, "log")]), true, true);
        assert!(interactive.unwrap_err().to_string().contains("--interactive"));
    }

    #[test]
    fn limits() {
        let logged = |limits: &[(&str, &str)]| modes(&[limits, &[(ANNOTATION_STDERR, "log")]].concat());
        let limited = logged(&[(ANNOTATION_LOG_MAX_SIZE, "64Ki"), (ANNOTATION_LOG_MAX_FILES, "2")]).unwrap();
        assert_eq!(limited.log, LogLimits { max_bytes: 65536, max_files: 2 });
        for bad in [
            (ANNOTATION_LOG_MAX_SIZE, "63Ki"),
            (ANNOTATION_LOG_MAX_SIZE, "20E"),
            (ANNOTATION_LOG_MAX_SIZE, "x"),
            (ANNOTATION_LOG_MAX_FILES, "0"),
            (ANNOTATION_LOG_MAX_FILES, "-1"),
        ] {
            assert!(logged(&[bad]).is_err(), "{bad:?}");
        }
        let error = modes(&[(ANNOTATION_LOG_MAX_FILES, "2")]).unwrap_err().to_string();
        assert!(error.contains("no log"), "{error}");
    }
}
