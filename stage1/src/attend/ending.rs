//! How a pod is ended: asked, then ordered, then made to. A pod may be hostile, so nothing depends on its following.

use std::time::{Duration, Instant};

/// What a pod gets on top of its own grace period before it is ordered.
const ASKED_SLACK: Duration = Duration::from_secs(5);
/// What it gets to follow an order, and its output to be delivered.
const ORDER_PERIOD: Duration = Duration::from_secs(2);

/// How far ending a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It runs.
    None,
    /// The supervisor was asked for an orderly end.
    Asked,
    /// The supervisor was ordered to end the pod at once.
    Ordered,
    /// It was ended from outside.
    Forced,
}

/// How far it has come, and when the next step is due.
#[derive(Debug)]
pub struct Ending {
    grace_period: Duration,
    step: Step,
    deadline: Option<Instant>,
    wanted: bool,
}

impl Ending {
    /// A pod whose apps have `grace_period_ms` between SIGTERM and SIGKILL.
    pub fn new(grace_period_ms: u64) -> Self {
        let grace_period = Duration::from_millis(grace_period_ms);
        Self { grace_period, step: Step::None, deadline: None, wanted: false }
    }

    /// An app that came later has so much patience.
    pub fn allow(&mut self, patience: Duration) {
        self.grace_period = self.grace_period.max(patience);
    }

    /// Takes the next step, because somebody wants it; says which it is.
    pub fn want(&mut self, now: Instant) -> Step {
        self.wanted = true;
        self.proceed(now)
    }

    /// Takes the next step, because the time of the last is over; says which it is.
    pub fn proceed(&mut self, now: Instant) -> Step {
        let (step, period) = match self.step {
            Step::None => (Step::Asked, self.grace_period.saturating_add(ASKED_SLACK)),
            Step::Asked => (Step::Ordered, ORDER_PERIOD),
            Step::Ordered | Step::Forced => (Step::Forced, ORDER_PERIOD),
        };
        self.step = step;
        self.deadline = now.checked_add(period);
        step
    }

    /// There is no talking to the pod: whatever comes now comes from outside. `false` if that was so already.
    pub fn force(&mut self, now: Instant) -> bool {
        let first = self.step != Step::Forced;
        self.step = Step::Forced;
        self.deadline = now.checked_add(ORDER_PERIOD);
        first
    }

    /// The pod says nothing any more. If it has crashed, it is about to end by itself, and to be asked how; only if it does not is it
    /// made to.
    pub fn expect_end(&mut self, now: Instant) {
        if matches!(self.step, Step::None | Step::Asked) {
            self.step = Step::Ordered;
            self.deadline = now.checked_add(ORDER_PERIOD);
        }
    }

    /// The apps have ended as they were asked to; their output has all the time that its readers take.
    pub fn was_followed(&mut self) {
        if self.step == Step::Asked {
            self.deadline = None;
        }
    }

    /// Whether somebody wanted the end.
    pub fn was_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the time of the last step is over.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// How long the last step still has.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        // A millisecond more, for poll rounds down and the last one would be spent asking.
        self.deadline.map(|deadline| deadline.saturating_duration_since(now) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_asking_to_force() {
        let now = Instant::now();
        let mut ending = Ending::new(10_000);
        assert_eq!(ending.remaining(now), None);
        assert_eq!(ending.want(now), Step::Asked);
        assert!(!ending.is_overdue(now + Duration::from_secs(14)));
        assert!(ending.is_overdue(now + Duration::from_secs(15)));
        assert_eq!(ending.proceed(now), Step::Ordered);
        assert!(ending.is_overdue(now + ORDER_PERIOD));
        assert_eq!(ending.proceed(now), Step::Forced);
        assert_eq!(ending.proceed(now), Step::Forced);
        assert!(ending.was_wanted());
    }

    #[test]
    fn a_pod_that_crashes_has_a_moment_to_do_so() {
        let now = Instant::now();
        let mut ending = Ending::new(10_000);
        ending.expect_end(now);
        assert!(!ending.is_overdue(now) && ending.is_overdue(now + ORDER_PERIOD));
        // No further one.
        ending.expect_end(now + ORDER_PERIOD);
        assert!(ending.is_overdue(now + ORDER_PERIOD));
        assert_eq!(ending.proceed(now), Step::Forced);
        assert!(!ending.was_wanted());
    }

    #[test]
    fn a_pod_that_follows_is_not_pressed() {
        let now = Instant::now();
        let mut ending = Ending::new(0);
        ending.want(now);
        ending.was_followed();
        assert_eq!(ending.remaining(now), None);
        ending.want(now);
        ending.was_followed();
        assert!(ending.remaining(now).is_some(), "an order is not taken back");
    }
}
