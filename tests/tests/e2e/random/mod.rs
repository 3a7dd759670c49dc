//! Many processes on one data directory, each of which does one thing after the other at random. Nothing fails but for the reasons that
//! `docs/troubleshooting.md` has, nothing is lost, and nothing stays.
//!
//! `RKT_TEST_SECONDS` says how long; the seed is printed, and `RKT_TEST_SEED` repeats what is done, though not in which order.

mod action;
mod dice;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use action::{Action, World};
use dice::Dice;

use crate::harness::{Finished, Process, is_throw_away_host, stage1};

const SECONDS: u64 = 20;

/// VMs are larger, and one emulated processor has enough to do with a few.
fn processes() -> u64 {
    if stage1() == "kvm" || is_throw_away_host() { 4 } else { 32 }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn many_processes_at_once() {
    let seed = variable("RKT_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let duration = Duration::from_secs(variable("RKT_TEST_SECONDS").unwrap_or(SECONDS));
    println!("RKT_TEST_SEED={seed}");
    let world = World::new();
    let failures = Mutex::new(Vec::new());
    let deadline = Instant::now() + duration;
    let work = |number: u64| {
        let mut dice = Dice::new(seed ^ number << 32);
        let mut done = Vec::new();
        while Instant::now() < deadline {
            let action = Action::choose(&mut dice);
            let mut command = action.command(&world, &mut dice);
            let finished = Process::start(&mut command).finish();
            if let Err(why) = action.judge(&finished) {
                let Finished { code, stderr, .. } = finished;
                failures.lock().unwrap().push(format!("{command:?}: {why}\n{code}: {stderr}"));
            }
            done.push(action);
        }
        done
    };
    let done: Vec<Action> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..processes()).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for action in Action::ALL {
        println!("{action:?}: {}", done.iter().filter(|other| **other == action).count());
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    world.verify();
}
