//! What the machine's process tells of its end. Whoever reads it does not trust it: the guest may have taken the process over.

use pod::control::GuestMark;
use serde::{Deserialize, Serialize};
use stage1::error::harmless;
use stage1::timeline::Timeline;
use vmm::timeline::Phase;
use vmm::{Exit, Machine};

/// The most that a report is.
pub const MAX_BYTES: usize = 256 << 10;

/// A machine's end.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Why it failed, outermost first; nothing if the guest has reset it, or somebody has ended it.
    pub causes: Vec<String>,
    /// The last lines of its console.
    pub console: String,
    /// When what happened.
    marks: Vec<Mark>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    event: Event,
    us: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    Built,
    KernelEntry,
    Guest(u8),
}

impl Report {
    /// Of what could not become a machine.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |cause| cause.source());
        Self { causes: causes.map(ToString::to_string).collect(), ..Self::default() }
    }

    /// Runs `machine` to its end, and reports it.
    pub fn of(machine: Machine) -> Self {
        let (console, timeline) = (machine.console(), machine.timeline());
        let report = match machine.run() {
            Ok(Exit::Reset | Exit::Stopped) => Self::default(),
            Err(error) => Self::failed(&error),
        };
        let marks = timeline.marks().into_iter().map(|mark| Mark {
            event: match mark.phase {
                Phase::Built => Event::Built,
                Phase::KernelEntry => Event::KernelEntry,
                Phase::Guest(byte) => Event::Guest(byte),
            },
            us: mark.monotonic_ns / 1000,
        });
        Self { console: console.last_lines(), marks: marks.collect(), ..report }
    }

    /// The same without what could do harm on a terminal.
    pub fn harmless(self) -> Self {
        let causes = self.causes.iter().map(|cause| harmless(cause)).collect();
        Self { causes, console: harmless(&self.console), marks: self.marks }
    }

    /// Whether the guest's init has said that it resets the machine.
    pub fn has_left(&self) -> bool {
        self.marks.iter().any(|mark| mark.event == Event::Guest(GuestMark::Leaving as u8))
    }

    /// Adds what happened to `timeline`; `entry` is what the guest began with.
    pub fn tell(&self, timeline: &mut Timeline, entry: &'static str) {
        for mark in &self.marks {
            match mark.event {
                Event::Built => timeline.mark_at("vmm-ready", mark.us),
                Event::KernelEntry => timeline.mark_at(entry, mark.us),
                Event::Guest(byte) if byte == GuestMark::Init as u8 => timeline.mark_at("init", mark.us),
                Event::Guest(byte) if byte == GuestMark::Supervisor as u8 => {
                    timeline.mark_at("supervisor-ready", mark.us);
                }
                // An end is no phase of a start; what else a guest writes there has no name.
                Event::Guest(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_crosses_and_does_no_harm() {
        let mark = Mark { event: Event::Guest(GuestMark::Leaving as u8), us: 7 };
        let sent = Report { causes: vec!["a\x1b[2J".into()], console: "b\nc".into(), marks: vec![mark] };
        let frame = pod::control::encode(&sent).unwrap();
        let got: Report = pod::control::read_message(&mut frame.as_slice(), MAX_BYTES).unwrap();
        assert_eq!(got, sent);
        let got = got.harmless();
        assert!(got.has_left());
        assert_eq!((got.causes, got.console), (vec!["a\u{fffd}[2J".to_owned()], "b\nc".to_owned()));
    }
}
