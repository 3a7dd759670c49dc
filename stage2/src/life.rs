//! What becomes of an app whose process has ended.

use std::time::Instant;

use pod::control::ExitStatus;
use pod::life::{Backoff, Life as Plan};

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it has ended.
    End,
    /// Its next start.
    StartAt(Instant),
}

/// An app's life so far.
#[derive(Debug)]
pub struct Life {
    plan: Plan,
    backoff: Backoff,
    /// Since when its program runs.
    started: Option<Instant>,
    /// How it has ended the last time.
    pub last: ExitStatus,
    /// How often it has been started again by itself.
    pub restarts: u32,
    /// Whether somebody wanted its end: then it is not started again, and has not failed.
    pub is_held: bool,
}

impl Life {
    /// Before the first start.
    pub fn new(plan: Plan) -> Self {
        let backoff = Backoff::default();
        Self { plan, backoff, started: None, last: ExitStatus::SUCCESS, restarts: 0, is_held: false }
    }

    /// Its process is on its way.
    pub fn begins(&mut self) {
        self.started = None;
    }

    /// Its program runs.
    pub fn starts(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// Whether its program has been running since its last start.
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// Its process has ended. One that never came to its program will not do better the next time.
    pub fn ends(&mut self, status: ExitStatus, now: Instant) -> Next {
        self.last = status;
        match self.started {
            Some(started) if !self.is_held && self.plan.restart.wants(status != ExitStatus::SUCCESS) => {
                self.restarts = self.restarts.saturating_add(1);
                Next::StartAt(now + self.backoff.after(now.saturating_duration_since(started)))
            }
            _ => Next::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use pod::life::Restart;

    #[test]
    fn what_comes_next() {
        let now = Instant::now();
        let mut life = Life::new(Plan { restart: Restart::OnFailure, ..Plan::default() });
        life.begins();
        assert_eq!(life.ends(ExitStatus::Code(254), now), Next::End, "it was never there");
        life.starts(now);
        assert_eq!(life.ends(ExitStatus::SUCCESS, now), Next::End);
        assert_eq!(life.ends(ExitStatus::Code(1), now), Next::StartAt(now + Duration::from_millis(100)));
        assert_eq!(life.ends(ExitStatus::Signal(9), now), Next::StartAt(now + Duration::from_millis(200)));
        life.is_held = true;
        assert_eq!((life.ends(ExitStatus::Code(3), now), life.last), (Next::End, ExitStatus::Code(3)));
        assert_eq!(life.restarts, 2);
    }
}
