//! When things happened, for `--timeline`.

use std::fmt::Write as _;

use ::pod::abi::ENV_TIMELINE;
use nix::time::{ClockId, clock_gettime};

/// Marks with their times in microseconds of CLOCK_MONOTONIC; empty and free of cost unless somebody asked.
#[derive(Debug, Default)]
pub struct Timeline {
    marks: Option<Vec<(String, u64)>>,
}

impl Timeline {
    /// From the environment: wanted if the variable is set, with the marks that earlier stages made.
    pub fn from_environment() -> Self {
        Self { marks: std::env::var(ENV_TIMELINE).ok().map(|text| parse(&text)) }
    }

    /// Something happens now.
    pub fn mark(&mut self, name: &str) {
        if let Some(marks) = &mut self.marks {
            marks.push((name.to_owned(), now_us()));
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

    /// Prints a line a mark to standard error, in time order: milliseconds since the first, and the name.
    pub fn print(&self) {
        if let Some(marks) = &self.marks {
            eprint!("{}", render(marks));
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

fn render(marks: &[(String, u64)]) -> String {
    let mut marks = marks.to_vec();
    marks.sort_by_key(|(_, us)| *us);
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
        marks.push(("between".into(), 2000));
        let text = render(&marks);
        let names: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(names, ["start", "between", "exec"]);
        assert!(text.contains("1.500 ms  exec"));
    }

    #[test]
    fn nobody_asked() {
        let mut timeline = Timeline::default();
        timeline.mark("x");
        assert!(!timeline.is_wanted());
    }
}
