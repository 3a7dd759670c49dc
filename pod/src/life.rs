//! The life of apps and pods: how an app is asked to end, when it begins again, and what of that ends the pod. It passes
//! from stage0 to stage1 as annotations of the pod manifest, under names of ours.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::image_manifest::NameValue;
use crate::pod_manifest::{PodManifest, RuntimeApp};

/// The names of the annotations.
pub mod annotations {
    /// Of an app: a [`super::Restart`].
    pub const RESTART: &str = "rkt/app/restart";
    /// Of an app, or as a default of its image: a [`super::KillSignal`].
    pub const KILL_SIGNAL: &str = "rkt/app/kill-signal";
    /// Of an app: milliseconds between that signal and SIGKILL.
    pub const KILL_TIMEOUT_MS: &str = "rkt/app/kill-timeout-ms";
    /// Of a pod: an [`super::ExitPolicy`].
    pub const EXIT_POLICY: &str = "rkt/pod/exit-policy";
}

/// The longest time that an app may have to end: a day.
pub const MAX_KILL_TIMEOUT: Duration = Duration::from_secs(86_400);
/// What it has if nobody says otherwise.
const DEFAULT_KILL_TIMEOUT_MS: u64 = 10_000;

/// Defines an enum of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ } $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Error::syntax(text, $expected)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}

words! {
    /// Whether an app whose process has ended is started again.
    Restart {
        /// Never.
        #[default]
        No = "no",
        /// If it has failed.
        OnFailure = "on-failure",
        /// However it has ended.
        Always = "always",
    }
    "a restart policy: no, on-failure or always"
}

words! {
    /// Which app's end ends the pod. An app that is to be started again has not ended, nor counts one that was told to.
    ExitPolicy {
        /// The last one's.
        UntilAll = "until-all",
        /// The first one's.
        OnAny = "on-any",
        /// That of the first one that fails, else the last one's.
        #[default]
        OnAnyFailure = "on-any-failure",
    }
    "an exit policy: until-all, on-any or on-any-failure"
}

impl Restart {
    /// Whether an app that ended so is started again.
    pub fn wants(self, failed: bool) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure => failed,
            Self::Always => true,
        }
    }
}

impl ExitPolicy {
    /// Of a pod.
    pub fn of(manifest: &PodManifest) -> Result<Self, Error> {
        annotation(&manifest.annotations, annotations::EXIT_POLICY).map_or(Ok(Self::default()), str::parse)
    }

    /// Whether the pod ends with an app that ended so.
    pub fn ends(self, failed: bool) -> bool {
        match self {
            Self::UntilAll => false,
            Self::OnAny => true,
            Self::OnAnyFailure => failed,
        }
    }
}

/// The names of the signals 1 to 31 on this architecture (signal(7)), without SIG.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first and the last real-time signal, as programs know them: the C library keeps two for itself.
const REAL_TIME: (i32, i32) = (34, 64);

/// The signal that asks an app to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KillSignal(i32);

impl KillSignal {
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// As the kernel has it.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for KillSignal {
    type Err = Error;

    /// A number, or a name with or without SIG in any case: `SIGQUIT`, `quit`, `3`, `SIGRTMIN+3`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let position = || (1..).zip(SIGNALS).find(|(_, known)| *known == name).map(|(number, _)| number);
        let (first, last) = REAL_TIME;
        let real_time = || match name {
            "RTMIN" => Some(first),
            "RTMAX" => Some(last),
            _ => {
                let up = name.strip_prefix("RTMIN+").and_then(offset).map(|offset| first + offset);
                up.or_else(|| name.strip_prefix("RTMAX-").and_then(offset).map(|offset| last - offset))
                    .filter(|number| (first..=last).contains(number))
            }
        };
        let number =
            offset(&upper).filter(|number| (1..=last).contains(number) && !(32..first).contains(number));
        number
            .or_else(position)
            .or_else(real_time)
            .map(Self)
            .ok_or_else(|| Error::syntax(text, "a signal's name or number (SIGTERM, QUIT, 15, SIGRTMIN+3)"))
    }
}

/// A small number in digits alone.
fn offset(text: &str) -> Option<i32> {
    let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for KillSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0).ok().and_then(|number| number.checked_sub(1));
        match index.and_then(|index| SIGNALS.get(index)) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME.0),
        }
    }
}

impl TryFrom<String> for KillSignal {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<KillSignal> for String {
    fn from(signal: KillSignal) -> String {
        signal.to_string()
    }
}

/// What an app's manifest says of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Whether it is started again.
    pub restart: Restart,
    /// How it is asked to end.
    pub kill_signal: KillSignal,
    /// How long it then has until it is killed.
    pub kill_timeout_ms: u64,
}

impl Default for Life {
    fn default() -> Self {
        Self { restart: Restart::No, kill_signal: KillSignal::TERM, kill_timeout_ms: DEFAULT_KILL_TIMEOUT_MS }
    }
}

impl Life {
    /// Of an app, by its annotations.
    pub fn of(app: &RuntimeApp) -> Result<Self, Error> {
        let find = |name| annotation(&app.annotations, name);
        let default = Self::default();
        Ok(Self {
            restart: find(annotations::RESTART).map_or(Ok(default.restart), str::parse)?,
            kill_signal: find(annotations::KILL_SIGNAL).map_or(Ok(default.kill_signal), str::parse)?,
            kill_timeout_ms: find(annotations::KILL_TIMEOUT_MS)
                .map_or(Ok(default.kill_timeout_ms), timeout)?,
        })
    }

    /// How long it has between its signal and SIGKILL.
    pub fn kill_timeout(&self) -> Duration {
        Duration::from_millis(self.kill_timeout_ms)
    }
}

fn timeout(text: &str) -> Result<u64, Error> {
    let within = |milliseconds: &u64| Duration::from_millis(*milliseconds) <= MAX_KILL_TIMEOUT;
    let parsed = text.parse().ok().filter(within);
    parsed.ok_or_else(|| Error::syntax(text, "a number of milliseconds, at most those of a day"))
}

fn annotation<'a>(annotations: &'a [NameValue], name: &str) -> Option<&'a str> {
    annotations.iter().find(|found| found.name.as_str() == name).map(|found| found.value.as_str())
}

/// How long an app waits for its next start, so that one that ends at once does not keep the machine busy: 100 ms, then
/// each time twice as long, at most 10 s. Who has run for 10 s begins anew.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    /// How long to wait after an app that has run for this long.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Self::LONGEST {
            self.next = Self::FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let number = |text: &str| text.parse::<KillSignal>().map(KillSignal::number).ok();
        let good = [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("64", 64)];
        for (text, expected) in good {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for bad in
            ["", "0", "SIG", "TERMINATE", "32", "33", "65", "-1", "+9", "SIGRTMIN+31", "RTMAX-31", "SIG9"]
        {
            assert_eq!(number(bad), None, "{bad}");
        }
        for number in (1..=31).chain(34..=64) {
            let signal: KillSignal = number.to_string().parse().unwrap();
            assert_eq!(signal.to_string().parse::<KillSignal>().unwrap(), signal);
        }
    }

    #[test]
    fn annotations_say_how_an_app_lives() {
        let app = |annotations: &str| -> RuntimeApp {
            let json = format!(
                r#"{{"name":"a","image":{{"id":"sha512-{}"}},"annotations":[{annotations}]}}"#,
                "0".repeat(64)
            );
            serde_json::from_str(&json).unwrap()
        };
        assert_eq!(Life::of(&app("")).unwrap(), Life::default());
        let all = app(
            r#"{"name":"rkt/app/restart","value":"always"},{"name":"rkt/app/kill-signal","value":"SIGQUIT"},
            {"name":"rkt/app/kill-timeout-ms","value":"1500"}"#,
        );
        let life = Life::of(&all).unwrap();
        assert_eq!((life.restart, life.kill_signal.number()), (Restart::Always, 3));
        assert_eq!(life.kill_timeout(), Duration::from_millis(1500));
        for (name, value) in [("restart", "maybe"), ("kill-signal", "99"), ("kill-timeout-ms", "86400001")] {
            let bad = app(&format!(r#"{{"name":"rkt/app/{name}","value":"{value}"}}"#));
            assert!(Life::of(&bad).unwrap_err().to_string().contains(value));
        }
    }

    #[test]
    fn policies() {
        assert_eq!(
            [Restart::No, Restart::OnFailure, Restart::Always].map(|r| r.wants(false)),
            [false, false, true]
        );
        assert_eq!(
            [Restart::No, Restart::OnFailure, Restart::Always].map(|r| r.wants(true)),
            [false, true, true]
        );
        let all = [ExitPolicy::UntilAll, ExitPolicy::OnAny, ExitPolicy::OnAnyFailure];
        assert_eq!(all.map(|policy| policy.ends(false)), [false, true, false]);
        assert_eq!(all.map(|policy| policy.ends(true)), [false, true, true]);
        assert_eq!("on-any".parse::<ExitPolicy>().unwrap().to_string(), "on-any");
    }

    #[test]
    fn pauses_double_up_to_their_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(Duration::from_secs(10)), Backoff::FIRST);
        assert_eq!(backoff.after(Duration::from_secs(9)), Backoff::FIRST * 2);
    }
}
