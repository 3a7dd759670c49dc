//! Threads that do not take the processor from whoever has it.

use std::io;

/// Has `make` make threads of the policy SCHED_BATCH (sched(7)), unless the calling thread's is one that somebody has chosen: they take an
/// idle processor at once, as any thread does, but nobody's slice. Who gives them work goes on, and they find more of it at a time.
///
/// Threads are of the usual policy where this one cannot be had. Fails only if the calling thread does not get its own back.
pub fn in_batches<T>(make: impl FnOnce() -> T) -> io::Result<T> {
    let changed = policy()? == libc::SCHED_OTHER && set_policy(libc::SCHED_BATCH).is_ok();
    let made = make();
    if changed {
        set_policy(libc::SCHED_OTHER)?;
    }
    Ok(made)
}

/// The calling thread's.
fn policy() -> io::Result<libc::c_int> {
    // SAFETY: it takes no address.
    match unsafe { libc::sched_getscheduler(0) } {
        -1 => Err(io::Error::last_os_error()),
        policy => Ok(policy),
    }
}

fn set_policy(policy: libc::c_int) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: `priority` is only read, and lives until the call is over.
    match unsafe { libc::sched_setscheduler(0, policy, &priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread::spawn;

    use super::*;

    fn policy_of_a_new_thread() -> libc::c_int {
        spawn(|| policy().unwrap()).join().unwrap()
    }

    #[test]
    fn new_threads_have_it_and_the_caller_does_not_keep_it() {
        assert_eq!(in_batches(policy_of_a_new_thread).unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy().unwrap(), libc::SCHED_OTHER);
        assert_eq!(policy_of_a_new_thread(), libc::SCHED_OTHER);
    }

    #[test]
    fn a_policy_that_was_chosen_stays() {
        let seen = spawn(|| {
            set_policy(libc::SCHED_IDLE).unwrap();
            (in_batches(policy_of_a_new_thread).unwrap(), policy().unwrap())
        });
        assert_eq!(seen.join().unwrap(), (libc::SCHED_IDLE, libc::SCHED_IDLE));
    }
}
