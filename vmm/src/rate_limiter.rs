//! Rate limits by token buckets: a bucket fills at a steady rate up to its burst, and what is done takes tokens out of it.
//!
//! Something may be done while its buckets are not empty, whatever it costs; a bucket then owes what it did not hold, and the
//! next thing waits until that is paid off. So a request larger than the burst is neither refused nor cut up, and over any
//! time at most `burst + rate × time` tokens and one request are used.
//!
//! There is no clock in here: times are given, as durations since any one moment, and are nanoseconds throughout. A bucket's
//! level is in thousand millionths of a token, of which a nanosecond brings a whole number: no remainder is ever lost.

use std::num::NonZeroU64;
use std::time::Duration;

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: NonZeroU64,
    /// Tokens that a full bucket holds, which is what it is at first.
    pub burst: NonZeroU64,
}

impl Rate {
    /// What a bucket holds of its rate if nothing else is said: a tenth of a second.
    const BURSTS_PER_SECOND: u64 = 10;

    /// A rate with the usual burst.
    pub fn steady(per_second: NonZeroU64) -> Self {
        let burst = per_second.get() / Self::BURSTS_PER_SECOND;
        Self { per_second, burst: NonZeroU64::new(burst).unwrap_or(NonZeroU64::MIN) }
    }
}

/// What may be done; by default everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Bytes moved.
    pub bytes: Option<Rate>,
    /// Requests or frames, whatever their size.
    pub operations: Option<Rate>,
}

/// The buckets of some limits.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    bytes: Option<TokenBucket>,
    operations: Option<TokenBucket>,
}

impl RateLimiter {
    /// Full buckets.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            bytes: limits.bytes.map(TokenBucket::new),
            operations: limits.operations.map(TokenBucket::new),
        }
    }

    /// The time, later than `now`, before which nothing may be done; `None` if it may be now.
    pub fn blocked_until(&mut self, now: Duration) -> Option<Duration> {
        let buckets = [&mut self.bytes, &mut self.operations];
        buckets.into_iter().flatten().filter_map(|bucket| bucket.empty_until(now)).max()
    }

    /// Takes the tokens of one operation that moves `bytes`.
    pub fn charge(&mut self, bytes: u64) {
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.take(tokens);
            }
        }
    }
}

/// Parts of a token: at one token a second, a nanosecond brings one.
const PARTS_PER_TOKEN: i128 = 1_000_000_000;

#[derive(Clone, Debug)]
struct TokenBucket {
    rate: Rate,
    /// What it holds or, below zero, owes, in parts of a token.
    parts: i128,
    filled_at: Duration,
}

impl TokenBucket {
    fn new(rate: Rate) -> Self {
        Self { rate, parts: Self::capacity(rate), filled_at: Duration::ZERO }
    }

    fn capacity(rate: Rate) -> i128 {
        i128::from(rate.burst.get()) * PARTS_PER_TOKEN
    }

    /// A time before the last one brings nothing.
    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at).as_nanos();
        self.filled_at = self.filled_at.max(now);
        let brought = elapsed.saturating_mul(u128::from(self.rate.per_second.get()));
        let brought = i128::try_from(brought).unwrap_or(i128::MAX);
        self.parts = self.parts.saturating_add(brought).min(Self::capacity(self.rate));
    }

    /// When the bucket will hold something, if it does not now.
    fn empty_until(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        if self.parts > 0 {
            return None;
        }
        let missing = 1_i128.saturating_sub(self.parts).unsigned_abs();
        let nanoseconds = missing.div_ceil(u128::from(self.rate.per_second.get()));
        let wait = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        Some(self.filled_at.saturating_add(wait))
    }

    fn take(&mut self, tokens: u64) {
        self.parts = self.parts.saturating_sub(i128::from(tokens) * PARTS_PER_TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate { per_second: NonZeroU64::new(per_second).unwrap(), burst: NonZeroU64::new(burst).unwrap() }
    }

    fn of_bytes(rate: Rate) -> RateLimiter {
        RateLimiter::new(RateLimits { bytes: Some(rate), operations: None })
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limiter = of_bytes(rate(1000, 500));
        for _ in 0..5 {
            assert_eq!(limiter.blocked_until(Duration::ZERO), None);
            limiter.charge(100);
        }
        // A part of a token, which is a millionth of a millisecond here.
        assert_eq!(limiter.blocked_until(Duration::ZERO), Some(Duration::from_nanos(1)));
        assert_eq!(limiter.blocked_until(Duration::from_nanos(1)), None);
        limiter.charge(100);
        assert_eq!(limiter.blocked_until(Duration::from_nanos(1)), Some(Duration::from_nanos(100_000_001)));
    }

    #[test]
    fn a_request_larger_than_the_bucket_passes_and_is_paid_off() {
        let mut limiter = of_bytes(rate(10, 10));
        assert_eq!(limiter.blocked_until(Duration::ZERO), None);
        limiter.charge(1010);
        let paid = limiter.blocked_until(Duration::from_secs(40)).unwrap();
        assert_eq!(paid, Duration::from_secs(100) + Duration::from_nanos(1));
        assert!(limiter.blocked_until(Duration::from_secs(100)).is_some());
        assert_eq!(limiter.blocked_until(paid), None);
    }

    #[test]
    fn the_scarcer_bucket_counts() {
        let limits = RateLimits { bytes: Some(rate(1000, 1000)), operations: Some(rate(1, 2)) };
        let mut limiter = RateLimiter::new(limits);
        limiter.charge(1);
        assert_eq!(limiter.blocked_until(Duration::ZERO), None);
        limiter.charge(0);
        assert_eq!(limiter.blocked_until(Duration::ZERO), Some(Duration::from_nanos(1)));
        limiter.charge(5000);
        assert_eq!(limiter.blocked_until(Duration::ZERO).unwrap().as_secs(), 4);
        assert_eq!(RateLimiter::new(RateLimits::default()).blocked_until(Duration::ZERO), None);
    }

    #[test]
    fn no_number_is_too_large() {
        let mut limiter = of_bytes(rate(1, u64::MAX));
        for _ in 0..2 {
            limiter.charge(u64::MAX);
        }
        assert!(limiter.blocked_until(Duration::ZERO).is_some());
        assert!(limiter.blocked_until(Duration::MAX).is_none());
        let mut fast = of_bytes(rate(u64::MAX, 1));
        fast.charge(u64::MAX);
        assert_eq!(fast.blocked_until(Duration::from_millis(999)), Some(Duration::from_nanos(1_000_000_000)));
        assert_eq!(fast.blocked_until(Duration::MAX), None);
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let mut limiter = of_bytes(rate(1, 1));
        limiter.charge(1);
        assert!(limiter.blocked_until(Duration::from_secs(0)).is_some());
        assert_eq!(limiter.blocked_until(Duration::from_secs(5)), None);
        limiter.charge(3);
        let until = limiter.blocked_until(Duration::from_secs(1));
        assert_eq!(until, limiter.blocked_until(Duration::from_secs(5)));
    }

    #[test]
    fn the_usual_burst_is_a_tenth_of_a_second() {
        assert_eq!(Rate::steady(NonZeroU64::new(1000).unwrap()), rate(1000, 100));
        assert_eq!(Rate::steady(NonZeroU64::new(3).unwrap()), rate(3, 1));
    }

    proptest! {
        /// Whoever always wants more gets the rate exactly, in however many steps the time passes.
        #[test]
        fn the_rate_is_kept_without_drift(
            per_second in 1..10_000_000_000_u64,
            burst in 1..1_000_000_u64,
            steps in proptest::collection::vec((0..10_000_000_000_u64, 1..2_000_000_u64), 1..200),
        ) {
            let mut limiter = of_bytes(rate(per_second, burst));
            let (mut now, mut used, mut largest) = (0_u64, 0_u128, 0_u64);
            for (step, cost) in steps {
                now += step;
                let until = limiter.blocked_until(Duration::from_nanos(now));
                if until.is_some() {
                    prop_assert!(until > Some(Duration::from_nanos(now)));
                    continue;
                }
                limiter.charge(cost);
                (used, largest) = (used + u128::from(cost), largest.max(cost));
            }
            let brought = u128::from(now) * u128::from(per_second) / 1_000_000_000;
            prop_assert!(used <= brought + u128::from(burst) + u128::from(largest));
        }

        /// The time that is told is the first at which something may be done, and waiting for it wastes nothing.
        #[test]
        fn who_waits_as_told_gets_all_there_is(
            per_second in 1..10_000_000_000_u64,
            burst in 1..1_000_000_u64,
            costs in proptest::collection::vec(1..2_000_000_u64, 1..200),
        ) {
            let mut limiter = of_bytes(rate(per_second, burst));
            let (mut now, mut used) = (Duration::ZERO, 0_u128);
            for cost in costs {
                if let Some(until) = limiter.blocked_until(now) {
                    prop_assert!(limiter.blocked_until(until - Duration::from_nanos(1)).is_some());
                    prop_assert_eq!(limiter.blocked_until(until), None);
                    now = until;
                }
                // Never full again: the exact number of tokens that have come, rounded up, pays for all so far.
                let brought = (now.as_nanos() * u128::from(per_second)).div_ceil(1_000_000_000);
                prop_assert!(used < brought + u128::from(burst) + u128::from(now.is_zero()));
                limiter.charge(cost);
                used += u128::from(cost);
            }
            let brought = now.as_nanos() * u128::from(per_second) / 1_000_000_000;
            // The wait that is over was for what had been used before the last.
            prop_assert!(now.is_zero() || brought + u128::from(burst) <= used + u128::from(per_second / 1_000_000_000) + 1);
        }

        /// Looking often changes nothing.
        #[test]
        fn small_steps_bring_what_a_large_one_does(
            per_second in any::<u64>(),
            steps in proptest::collection::vec(0..1_000_000_000_u64, 1..100),
        ) {
            let per_second = per_second.max(1);
            let mut often = of_bytes(rate(per_second, 1));
            often.charge(u64::MAX);
            let mut once = often.clone();
            let mut now = Duration::ZERO;
            for step in steps {
                now += Duration::from_nanos(step);
                often.blocked_until(now);
            }
            prop_assert_eq!(often.blocked_until(now), once.blocked_until(now));
        }
    }
}
