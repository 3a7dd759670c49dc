//! A VM's time of day follows the host's.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::harness::{Host, Process, is_throw_away_host, stage1};

/// More than any test may take.
const JUMP: Duration = Duration::from_secs(6 * 3600);

/// Sets the clock back when it is dropped.
struct Jump {
    /// What has not jumped with it.
    monotonic: Duration,
    realtime: Duration,
}

fn now(clock: ClockId) -> Duration {
    clock_gettime(clock).unwrap().into()
}

impl Jump {
    fn make() -> Self {
        let (monotonic, realtime) = (now(ClockId::CLOCK_MONOTONIC), now(ClockId::CLOCK_REALTIME));
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(realtime + JUMP)).unwrap();
        Self { monotonic, realtime }
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        let right = self.realtime + (now(ClockId::CLOCK_MONOTONIC) - self.monotonic);
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(right)).unwrap();
    }
}

/// A suspended host has the same done to its timers when it resumes, with a time that it has not seen pass.
#[test]
fn follows_a_jump_of_the_hosts() {
    if !is_throw_away_host() {
        eprintln!("the clock is only set on the throw-away host that tests/kvm-host boots");
        return;
    }
    let host = Host::new();
    let script = "begin=$(date +%s); echo begun; while [ $(($(date +%s) - begin)) -lt 20000 ]; do sleep 0.2; done; \
                  echo jumped; while [ $(($(date +%s) - begin)) -gt 20000 ]; do sleep 0.2; done; exit 7";
    let mut pod = Process::start(&mut host.shell(&[], script));
    pod.wait_for_line("begun");
    let jump = Jump::make();
    pod.wait_for_line("jumped");
    drop(jump);
    pod.finish().exited(7);
    assert_eq!(host.status("busybox"), "7", "{}", stage1());
}
