//! The `stop` entrypoint: tells the pod's parent to end the pod, as its caller could by a signal.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ::pod::abi::{PodDirectory, StopArguments};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use uuid::Uuid;

use crate::{Error, sys};

/// How long a pod that has just begun may take until its parent has told its number.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Stops the pod in the working directory: in an orderly way, or, forced, by killing its parent, with which it dies.
pub fn stop(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let arguments = StopArguments::parse(arguments)
        .map_err(|source| Error::Pod { what: "cannot carry out these arguments".into(), source })?;
    let Some(pidfd) = parent_or_end(&PodDirectory::new("."), arguments.uuid)? else { return Ok(()) };
    let signal = if arguments.force { Signal::SIGKILL } else { Signal::SIGTERM };
    send(&pidfd, signal).map_err(|source| Error::System { action: "signal the pod's parent", source })
}

/// The pod's parent; `None` if the pod has ended meanwhile, which is what was wanted.
fn parent_or_end(directory: &PodDirectory, uuid: Uuid) -> Result<Option<OwnedFd>, Error> {
    let deadline = Instant::now() + ATTEMPTS * PAUSE;
    loop {
        match living_parent(directory, uuid, "stopped") {
            Ok((_, pidfd)) => return Ok(Some(pidfd)),
            Err(Error::NoParent { .. }) if has_ended(directory)? => return Ok(None),
            // A process that ends closes its files one by one.
            Err(Error::NoParent { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether nobody holds the lock that whoever runs the pod has.
fn has_ended(directory: &PodDirectory) -> Result<bool, Error> {
    let path = directory.path();
    let lock = File::open(path).map_err(Error::file("open", path))?;
    match lock.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::file("lock", path)(source)),
    }
}

/// The pod's parent, by its number and as a descriptor; if there is none the pod cannot be `done` so.
pub fn living_parent(
    directory: &PodDirectory,
    uuid: Uuid,
    done: &'static str,
) -> Result<(i32, OwnedFd), Error> {
    let no_parent = |why: String| Error::NoParent { uuid, done, why };
    let pid = parent(directory)?.ok_or_else(|| no_parent("it does not run".into()))?;
    // First the descriptor, then the check: whoever gets the number afterwards is not meant.
    let gone = |_| no_parent(format!("its parent, process {pid}, has gone"));
    let pidfd = sys::pidfd_open(pid).map_err(gone)?;
    if !holds_lock(pid, directory.path()).map_err(Error::file("examine", directory.path()))? {
        return Err(no_parent(format!("process {pid} does not hold its lock")));
    }
    Ok((pid, pidfd))
}

/// A parent that has ended meanwhile has done what it was to do.
fn send(pidfd: &OwnedFd, signal: Signal) -> nix::Result<()> {
    match sys::pidfd_send_signal(pidfd, signal as i32) {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

/// The number of the pod's parent, which it writes as soon as it can take signals; `None` if nobody does, or nobody can any more.
fn parent(directory: &PodDirectory) -> Result<Option<i32>, Error> {
    for _ in 0..ATTEMPTS {
        match fs::read_to_string(directory.ppid()) {
            Ok(text) if text.ends_with('\n') => return Ok(text.trim().parse().ok().filter(|pid| *pid > 1)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", &directory.ppid())(error)),
        }
        if has_ended(directory)? {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Whether a process holds the exclusive lock (flock) on a directory. Whether anybody does is easily tried; who does
/// is told by /proc alone.
fn holds_lock(pid: i32, directory: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(directory)?;
    let process = Path::new("/proc").join(pid.to_string());
    let descriptors = match fs::read_dir(process.join("fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    for descriptor in descriptors.flatten() {
        // Descriptors come and go while they are listed.
        let Ok(found) = fs::metadata(descriptor.path()) else { continue };
        if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) {
            continue;
        }
        let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()));
        if info.is_ok_and(|info| info.lines().any(is_exclusive_lock)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A line of fdinfo (proc_pid_fdinfo(5)): `lock: 1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF`.
fn is_exclusive_lock(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("lock:") && words.any(|word| word == "FLOCK") && words.any(|word| word == "WRITE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_lock() {
        let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = std::process::id().cast_signed();
        let lock = File::open(home.path()).unwrap();
        assert!(!holds_lock(own, home.path()).unwrap(), "open is not locked");
        lock.lock_shared().unwrap();
        assert!(!holds_lock(own, home.path()).unwrap(), "who only looks does not hold it");
        lock.unlock().unwrap();
        lock.lock().unwrap();
        assert!(holds_lock(own, home.path()).unwrap());
        assert!(!holds_lock(own, other.path()).unwrap());
        assert!(!holds_lock(1, home.path()).unwrap());
        assert!(!holds_lock(i32::MAX, home.path()).unwrap(), "no such process");
    }

    #[test]
    fn a_pod_that_ends_meanwhile_is_stopped() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        fs::write(directory.ppid(), format!("{}\n", i32::MAX)).unwrap();
        assert!(parent_or_end(&directory, Uuid::nil()).unwrap().is_none());
        // Its parent is about to close its files.
        let lock = File::open(home.path()).unwrap();
        lock.lock().unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| parent_or_end(&directory, Uuid::nil()).map(|parent| parent.is_none()));
            std::thread::sleep(3 * PAUSE);
            assert!(!found.is_finished());
            lock.unlock().unwrap();
            assert!(found.join().unwrap().unwrap());
        });
        lock.lock().unwrap();
        fs::write(directory.ppid(), format!("{}\n", std::process::id())).unwrap();
        assert!(parent_or_end(&directory, Uuid::nil()).unwrap().is_some());
    }

    #[test]
    fn nobody_waits_for_who_was_killed_before_it_told_its_number() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        let begin = Instant::now();
        assert!(parent_or_end(&directory, Uuid::nil()).unwrap().is_none());
        assert!(begin.elapsed() < ATTEMPTS * PAUSE, "{:?}", begin.elapsed());
    }

    #[test]
    fn the_parent_is_told_of_by_a_whole_line() {
        let home = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(home.path());
        for (text, pid) in [("42\n", Some(42)), ("1\n", None), ("-7\n", None), ("x\n", None)] {
            fs::write(directory.ppid(), text).unwrap();
            assert_eq!(parent(&directory).unwrap(), pid, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_has_ended_is_not_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = sys::pidfd_open(child.id().cast_signed()).unwrap();
        child.wait().unwrap();
        send(&pidfd, Signal::SIGTERM).unwrap();
    }
}
