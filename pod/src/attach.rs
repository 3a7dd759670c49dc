//! What `rkt attach` attaches to: the streams of an app's own process that were made for it (`--stdin=stream`, ...).

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::control::Stream;
use crate::streams::{InputMode, StreamModes};
use crate::types::AcName;

/// What is wanted: `rkt attach --mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// To know what there is.
    List,
    /// All that there is.
    Auto,
    /// These.
    Chosen(Endpoints),
}

/// What can be attached to: a terminal, or streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// To type on the app's terminal.
    pub tty_in: bool,
    /// To see it.
    pub tty_out: bool,
    /// To write to the app's input.
    pub stdin: bool,
    /// To read its output.
    pub stdout: bool,
    /// To read its errors.
    pub stderr: bool,
}

impl Endpoints {
    /// Each with its name.
    pub fn named(self) -> [(&'static str, bool); 5] {
        [
            ("tty-in", self.tty_in),
            ("tty-out", self.tty_out),
            ("stdin", self.stdin),
            ("stdout", self.stdout),
            ("stderr", self.stderr),
        ]
    }

    /// What an app with these modes has.
    pub fn of(modes: &StreamModes) -> Self {
        let terminal = modes.stdin == InputMode::Terminal;
        Self {
            tty_in: terminal,
            tty_out: terminal,
            stdin: modes.stdin == InputMode::Stream,
            stdout: modes.stdout.stream,
            stderr: modes.stderr.stream,
        }
    }

    /// Those of an app that has `self` that `mode` means.
    pub fn choose(self, mode: AttachMode, app: &AcName) -> Result<Self, Error> {
        if self == Self::default() {
            return Err(Error::Invalid(format!(
                "app \"{app}\" has nothing to attach to: that takes --stdin=tty, or --stdin=stream, --stdout=stream, \
                --stderr=stream when it is run (rkt enter runs another process in it)"
            )));
        }
        let AttachMode::Chosen(wanted) = mode else { return Ok(self) };
        let missing =
            wanted.named().iter().zip(self.named()).any(|((_, wanted), (_, there))| *wanted && !there);
        match missing {
            true => Err(Error::Invalid(format!("app \"{app}\" has no {wanted} to attach to, but {self}"))),
            false => Ok(wanted),
        }
    }

    /// The connections that it takes: for a terminal it is one.
    pub fn streams(self) -> Vec<Stream> {
        let streams = [
            (self.tty_in || self.tty_out || self.stdin, Stream::Stdin),
            (self.stdout, Stream::Stdout),
            (self.stderr, Stream::Stderr),
        ];
        streams.into_iter().filter(|(on, _)| *on).map(|(_, stream)| stream).collect()
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.named().into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        f.write_str(&names.join(", "))
    }
}

impl FromStr for AttachMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            || Error::syntax(text, "list, auto, tty, tty-in, tty-out, or some of stdin,stdout,stderr");
        let none = Endpoints::default();
        let mut streams = none;
        match text {
            "list" => return Ok(Self::List),
            "auto" => return Ok(Self::Auto),
            "tty" => return Ok(Self::Chosen(Endpoints { tty_in: true, tty_out: true, ..none })),
            "tty-in" => return Ok(Self::Chosen(Endpoints { tty_in: true, ..none })),
            "tty-out" => return Ok(Self::Chosen(Endpoints { tty_out: true, ..none })),
            _ => {}
        }
        for word in text.split(',') {
            match word {
                "stdin" => streams.stdin = true,
                "stdout" => streams.stdout = true,
                "stderr" => streams.stderr = true,
                _ => return Err(invalid()),
            }
        }
        Ok(Self::Chosen(streams))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::OutputMode;

    fn chosen(text: &str) -> Endpoints {
        match text.parse().unwrap() {
            AttachMode::Chosen(endpoints) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modes() {
        assert_eq!("list".parse::<AttachMode>().unwrap(), AttachMode::List);
        assert_eq!(chosen("tty").to_string(), "tty-in, tty-out");
        assert_eq!(chosen("stderr,stdin").to_string(), "stdin, stderr");
        for bad in ["", "tty,stdin", "stdout,", "all", "stdin,list"] {
            assert!(bad.parse::<AttachMode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_app_has() {
        let app: AcName = "web".parse().unwrap();
        let nothing = Endpoints::of(&StreamModes::default()).choose(AttachMode::Auto, &app).unwrap_err();
        assert!(nothing.to_string().contains("--stdin=stream"), "{nothing}");
        let stdout: OutputMode = "stream,log".parse().unwrap();
        let streams =
            Endpoints::of(&StreamModes { stdin: InputMode::Stream, stdout, ..StreamModes::default() });
        assert_eq!(streams.choose(AttachMode::Auto, &app).unwrap().to_string(), "stdin, stdout");
        let only = streams.choose("stdout".parse().unwrap(), &app).unwrap();
        assert_eq!(only.streams(), [Stream::Stdout]);
        for missing in ["stderr", "tty", "stdout,stderr"] {
            assert!(streams.choose(missing.parse().unwrap(), &app).is_err(), "{missing}");
        }
        let terminal = Endpoints::of(&StreamModes { stdin: InputMode::Terminal, ..StreamModes::default() });
        assert_eq!(terminal.choose(AttachMode::Auto, &app).unwrap().streams(), [Stream::Stdin]);
    }
}
