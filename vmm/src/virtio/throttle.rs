//! A rate limit on the queues of devices. What has it stops taking requests while a bucket is empty, and has the loop wake it
//! when the bucket is not.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event_loop::Registry;
use crate::rate_limiter::{RateLimiter, RateLimits};

/// A limit, or by default none, which then costs nothing. Clones are the same limit: several devices may share it, and a guest
/// gains nothing by a reset of its device.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Option<Arc<Mutex<RateLimiter>>>);

impl Throttle {
    /// The throttle that keeps `limits`.
    pub fn new(limits: RateLimits) -> Self {
        let limited = limits != RateLimits::default();
        Self(limited.then(|| Arc::new(Mutex::new(RateLimiter::new(limits)))))
    }

    /// Whether a request may be taken now. If not, the handler is woken when that is to be asked again.
    pub fn admits(&self, registry: &mut dyn Registry) -> bool {
        match self.with(|limiter| limiter.blocked_until(registry.now())).flatten() {
            None => true,
            Some(later) => {
                registry.wake_at(later);
                false
            }
        }
    }

    /// Counts a request that was taken, and moves so many bytes.
    pub fn charge(&self, bytes: usize) {
        self.with(|limiter| limiter.charge(bytes as u64));
    }

    /// Nobody waits here: all workers run on one thread.
    fn with<T>(&self, act: impl FnOnce(&mut RateLimiter) -> T) -> Option<T> {
        let limiter = self.0.as_ref()?;
        Some(act(&mut limiter.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
