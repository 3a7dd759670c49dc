//! When things happened, for `--timeline`.

mod chart;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

use ::pod::abi::{ENV_TIMELINE, ENV_TIMELINE_FILE};
use nix::time::{ClockId, clock_gettime};

use crate::error::{Error, report};

/// Marks with their times in microseconds of CLOCK_MONOTONIC; empty and free of cost unless somebody asked.
#[derive(Debug, Default)]
pub struct Timeline {
    marks: Option<Vec<(String, u64)>>,
    /// When the last app has started.
    started_us: Option<u64>,
    /// What it is drawn into.
    file: Option<PathBuf>,
}

impl Timeline {
    /// From the environment: wanted if the variable is set, with the marks that earlier stages made.
    pub fn from_environment() -> Self {
        let marks = env::var(ENV_TIMELINE).ok().map(|text| parse(&text));
        Self { marks, started_us: None, file: env::var_os(ENV_TIMELINE_FILE).map(PathBuf::from) }
    }

    /// Something happens now.
    pub fn mark(&mut self, name: &str) {
        if let Some(marks) = &mut self.marks {
            marks.push((name.to_owned(), now_us()));
        }
    }

    /// An app has started now; until then, at least, the pod's start takes.
    pub fn mark_start(&mut self, name: &str) {
        if let Some(marks) = &mut self.marks {
            let now = now_us();
            marks.push((name.to_owned(), now));
            self.started_us = Some(now);
        }
    }

    /// Something happened at `us` microseconds of CLOCK_MONOTONIC.
    pub fn mark_at(&mut self, name: &str, us: u64) {
        if let Some(marks) = &mut self.marks {
            marks.push((name.to_owned(), us));
        }
    }

    /// Whether anybody wants it.
    pub fn is_wanted(&self) -> bool {
        self.marks.is_some()
    }

    /// Prints a line a mark to standard error, in time order: milliseconds since the first, and the name. If somebody wants
    /// that, draws the start's phases as well; the pod has run by then, so that a failure is told and no more.
    pub fn show(mut self) {
        let Some(marks) = &mut self.marks else { return };
        marks.sort_by_key(|(_, us)| *us);
        eprint!("{}", render(marks));
        if let Some(file) = &self.file {
            let phases = chart::phases(marks, self.started_us.unwrap_or(u64::MAX));
            let written = replace(file, &chart::draw("The start of a pod", &phases));
            let action = "draw the timeline into";
            written.unwrap_or_else(|source| report(&Error::File { action, path: file.clone(), source }));
        }
    }
}

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    now.0.unsigned_abs() * 1_000_000 + now.1.unsigned_abs() / 1000
}

fn parse(text: &str) -> Vec<(String, u64)> {
    let mark = |mark: &str| {
        let (name, us) = mark.split_once('=')?;
        Some((name.to_owned(), us.parse().ok()?))
    };
    text.split(',').filter_map(mark).collect()
}

/// Puts a file in its place as a whole, or not at all.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let unfinished = path.with_added_extension(format!("{}.tmp", process::id()));
    let written = fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
    // The error is what counts.
    written.inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

fn render(marks: &[(String, u64)]) -> String {
    let first = marks.first().map_or(0, |(_, us)| *us);
    marks.iter().fold(String::new(), |mut text, (name, us)| {
        let since = us.saturating_sub(first);
        let _ = writeln!(text, "timeline: {:6}.{:03} ms  {name}", since / 1000, since % 1000);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_several_stages_are_in_order() {
        let mut marks = parse("start=1000,exec=2500");
        marks.insert(1, ("between".into(), 2000));
        let text = render(&marks);
        let names: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(names, ["start", "between", "exec"]);
        assert!(text.contains("1.500 ms  exec"));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("start.svg");
        for content in ["one", "two"] {
            replace(&path, content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::create_dir(folder.path().join("directory.svg")).unwrap();
        assert!(replace(&folder.path().join("directory.svg"), "three").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half-made is left");
    }

    #[test]
    fn nobody_asked() {
        let mut timeline = Timeline::default();
        timeline.mark("x");
        assert!(!timeline.is_wanted());
    }
}
