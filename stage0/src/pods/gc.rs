//! Marks and removes pods that have ended.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::{Error, PAUSE, Place, Pod, Pods, State, mounts};
use crate::cli::Globals;
use crate::stage1::Foreign;
use crate::{registration, remove};

/// How long pods stay, and how far gc goes.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// From when an ended pod was marked.
    pub grace: Duration,
    /// From when a pod was prepared.
    pub expire_prepared: Duration,
    /// Nothing is removed.
    pub mark_only: bool,
}

/// What stage1s that are not ours are told of the host.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// More output.
    pub debug: bool,
    /// The administrator's configuration.
    pub local_config: &'a Path,
}

impl<'a> From<&'a Globals> for Told<'a> {
    fn from(globals: &'a Globals) -> Self {
        Self { debug: globals.debug, local_config: &globals.local_config }
    }
}

/// What gc did, or did not do.
#[derive(Debug)]
pub enum Event {
    /// A pod was marked.
    Marked(Pod),
    /// A pod was removed.
    Removed(Pod),
    /// A pod was marked too short a time ago.
    Kept(Pod),
    /// A pod could not be removed.
    Failed(Error),
}

impl Pods {
    /// Marks ended pods; then removes those that were marked long enough ago, those that were prepared too long ago, and those that
    /// never ran.
    pub fn gc(
        &self,
        collection: Collection,
        told: Told<'_>,
        report: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let marks = [
            (Place::Run, State::Exited, Place::ExitedGarbage),
            (Place::Prepare, State::AbortedPrepare, Place::Garbage),
        ];
        for (from, state, to) in marks {
            for pod in self.list(&[from])?.into_iter().filter(|pod| pod.state == state) {
                if let Some(pod) = self.rename(&pod, to)? {
                    report(Event::Marked(pod));
                }
            }
        }
        if collection.mark_only {
            return Ok(());
        }
        self.mark_expired(collection.expire_prepared, report)?;
        let places = [
            (Place::ExitedGarbage, collection.grace),
            (Place::Garbage, Duration::ZERO),
            // Whoever makes one makes it again.
            (Place::Embryo, Duration::ZERO),
        ];
        for (place, grace) in places {
            for pod in self.list(&[place])? {
                match pod.age() {
                    Ok(age) if age < grace => report(Event::Kept(pod)),
                    _ => self.report_removal(pod, told, report),
                }
            }
        }
        Ok(())
    }

    fn mark_expired(&self, after: Duration, report: &mut dyn FnMut(Event)) -> Result<(), Error> {
        for pod in self.list(&[Place::Prepared])? {
            if pod.age().is_ok_and(|age| age >= after)
                && let Some(pod) = self.move_prepared(&pod)?
            {
                report(Event::Marked(pod));
            }
        }
        Ok(())
    }

    /// Removes one pod at once, whatever state it has ended in. It is gone when this returns, whoever else removes it.
    pub fn remove(&self, mut pod: Pod, told: Told<'_>) -> Result<(), Error> {
        loop {
            let marked = match pod.state {
                State::Exited => self.rename(&pod, Place::ExitedGarbage)?,
                State::AbortedPrepare => self.rename(&pod, Place::Garbage)?,
                State::Prepared => self.move_prepared(&pod)?,
                State::ExitedGarbage | State::ExitedDeleting | State::Garbage | State::Deleting => {
                    Some(pod.clone())
                }
                state @ (State::Embryo | State::Preparing | State::Running) => {
                    return Err(Error::InUse { uuid: pod.uuid, state });
                }
            };
            // Whoever has the lock only looks at the pod, or removes it, too.
            if let Some(marked) = marked
                && self.delete(marked, told, File::lock)?
            {
                return Ok(());
            }
            match self.look_in(&Place::ALL, pod.uuid)? {
                // Nobody has the lock of a prepared pod for long: then it runs.
                Some(found) => {
                    std::thread::sleep(PAUSE);
                    pod = found;
                }
                None => return Ok(()),
            }
        }
    }

    /// Moves a prepared pod to the garbage; `None` if it is not there any more, or if somebody has its lock, who runs it or looks at it.
    fn move_prepared(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let lock = match File::open(&pod.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &pod.path))?,
        };
        match lock.try_lock() {
            Ok(()) => self.rename(pod, Place::Garbage),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &pod.path)(error)),
        }
    }

    fn report_removal(&self, pod: Pod, told: Told<'_>, report: &mut dyn FnMut(Event)) {
        match self.delete(pod.clone(), told, |lock| lock.try_lock().map_err(io::Error::from)) {
            Ok(true) => report(Event::Removed(pod)),
            Ok(false) => {}
            Err(error) => report(Event::Failed(error)),
        }
    }

    /// Removes a pod's directory, after its stage1 has cleaned up; whether this process did it.
    fn delete(
        &self,
        mut pod: Pod,
        told: Told<'_>,
        take: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<bool, Error> {
        let lock = match File::open(&pod.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(Error::io("open", &pod.path))?,
        };
        match take(&lock) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Error::io("lock", &pod.path)(error)),
        }
        // While this waited, another process may have removed it.
        if !pod.path.exists() {
            return Ok(false);
        }
        registration::forget(&pod.path, pod.uuid)?;
        self.forget_ports(pod.uuid)?;
        if pod.place == Place::ExitedGarbage {
            clean_up(&pod, told)?;
            // Now it is only files, and nobody is to see half of them.
            match self.rename(&pod, Place::Garbage)? {
                Some(moved) => pod = moved,
                None => return Ok(false),
            }
        }
        remove::tree(&pod.path).map_err(Error::io("remove", &pod.path))?;
        Ok(true)
    }
}

/// Runs the stage1's gc entrypoint (stage1 ABI). A stage1 that has been uninstalled can clean up nothing any more.
pub(super) fn clean_up(pod: &Pod, told: Told<'_>) -> Result<(), Error> {
    let of_stage1 = |source| Error::Stage1 { uuid: pod.uuid, source: Box::new(source) };
    if let Some(foreign) = Foreign::of_pod(&pod.path).map_err(of_stage1)? {
        return clean_up_foreign(pod, &foreign, told);
    }
    let entrypoint = pod.path.join("stage1/rootfs/gc");
    if !entrypoint.exists() {
        return Ok(());
    }
    let status = Command::new(&entrypoint).arg(pod.uuid.to_string()).current_dir(&pod.path).status();
    let status = status.map_err(Error::io("execute", &entrypoint))?;
    if status.success() { Ok(()) } else { Err(Error::Stage1Gc(pod.uuid, describe(status))) }
}

/// The same of a stage1 of somebody's, which may have mounted what it likes in the pod's directory.
fn clean_up_foreign(pod: &Pod, foreign: &Foreign, told: Told<'_>) -> Result<(), Error> {
    let status = foreign.gc(told.debug, told.local_config, pod.uuid);
    let status = status.map_err(|source| Error::Stage1 { uuid: pod.uuid, source: Box::new(source) })?;
    if !status.success() {
        return Err(Error::Stage1Gc(pod.uuid, describe(status)));
    }
    mounts::detach_below(&pod.path).map_err(Error::io("unmount what is left in", &pod.path))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pods::create::NewPod;
    use crate::pods::startable::Startable;
    use uuid::Uuid;

    fn place(pods: &Pods, place: Place, number: u128) -> std::path::PathBuf {
        pods.make_directories().unwrap();
        let path = pods.path(place, Uuid::from_u128(number));
        fs::create_dir_all(path.join("stage1/rootfs")).unwrap();
        path
    }

    fn told() -> Told<'static> {
        Told { debug: false, local_config: Path::new("/nowhere") }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn gc(pods: &Pods, grace: Duration, mark_only: bool) -> Vec<String> {
        collect(pods, Collection { grace, expire_prepared: HOUR, mark_only })
    }

    fn collect(pods: &Pods, collection: Collection) -> Vec<String> {
        let mut events = Vec::new();
        pods.gc(collection, told(), &mut |event| {
            events.push(match event {
                Event::Marked(pod) => format!("marked {}", pod.state),
                Event::Removed(pod) => format!("removed {}", pod.state),
                Event::Kept(pod) => format!("kept {}", pod.state),
                Event::Failed(error) => format!("failed {error}"),
            });
        })
        .unwrap();
        events
    }

    #[test]
    fn marked_first_and_removed_later() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        place(&pods, Place::Run, 1);
        place(&pods, Place::Prepare, 2);
        place(&pods, Place::Embryo, 3);
        let alive = NewPod::create(&pods, Uuid::from_u128(4)).unwrap();
        assert_eq!(gc(&pods, HOUR, true), ["marked exited garbage", "marked garbage"]);
        assert_eq!(gc(&pods, HOUR, false), ["kept exited garbage", "removed garbage", "removed embryo"]);
        assert_eq!(gc(&pods, Duration::ZERO, false), ["removed exited garbage"]);
        assert_eq!(pods.list(&[Place::Prepare]).unwrap().len(), 1);
        drop(alive);
    }

    #[test]
    fn prepared_pods_expire() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        place(&pods, Place::Prepared, 1);
        assert!(gc(&pods, Duration::ZERO, false).is_empty());
        let now = Collection { grace: HOUR, expire_prepared: Duration::ZERO, mark_only: true };
        assert!(collect(&pods, now).is_empty(), "marking is for what has ended");
        let events = collect(&pods, Collection { mark_only: false, ..now });
        assert_eq!(events, ["marked garbage", "removed garbage"]);
    }

    #[test]
    fn a_failing_stage1_keeps_the_pod() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let path = place(&pods, Place::ExitedGarbage, 1);
        std::os::unix::fs::symlink("/bin/false", path.join("stage1/rootfs/gc")).unwrap();
        let events = gc(&pods, Duration::ZERO, false);
        assert!(events[0].contains("exit status 1"), "{events:?}");
        assert!(path.exists());
    }

    #[test]
    fn removal_waits_for_who_looks_at_the_pod() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let looked_at = File::open(place(&pods, Place::Prepared, 1)).unwrap();
        looked_at.lock_shared().unwrap();
        std::thread::scope(|scope| {
            let removal = scope.spawn(|| pods.remove(pods.find("0").unwrap(), told()));
            std::thread::sleep(20 * PAUSE);
            assert!(!removal.is_finished());
            drop(looked_at);
            removal.join().unwrap().unwrap();
        });
        assert!(pods.list(&Place::ALL).unwrap().is_empty());
    }

    #[test]
    fn a_pod_that_others_mark_or_remove_meanwhile_is_removed_all_the_same() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let path = place(&pods, Place::Run, 1);
        let seen = pods.find("0").unwrap();
        let marked = pods.rename(&seen, Place::ExitedGarbage).unwrap().unwrap();
        pods.remove(seen.clone(), told()).unwrap();
        assert!(!marked.path.exists() && !path.exists());
        pods.remove(seen, told()).unwrap();
        let lock = File::open(place(&pods, Place::Garbage, 2)).unwrap();
        lock.lock().unwrap();
        let seen = Pod {
            uuid: Uuid::from_u128(2),
            place: Place::Prepared,
            state: State::Prepared,
            path: pods.path(Place::Prepared, Uuid::from_u128(2)),
        };
        std::thread::scope(|scope| {
            let removal = scope.spawn(|| pods.remove(seen, told()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!removal.is_finished(), "another process is still about it");
            drop(lock);
            removal.join().unwrap().unwrap();
        });
        assert!(pods.list(&Place::ALL).unwrap().is_empty());
    }

    #[test]
    fn what_somebody_runs_is_not_taken_away() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        place(&pods, Place::Prepared, 1);
        let mut taken = pods.take_prepared(&pods.find("0").unwrap()).unwrap();
        let now = Collection { grace: HOUR, expire_prepared: Duration::ZERO, mark_only: false };
        assert!(collect(&pods, now).is_empty());
        let seen = pods.find("0").unwrap();
        let error = std::thread::scope(|scope| {
            let removal = scope.spawn(|| pods.remove(seen, told()));
            std::thread::sleep(Duration::from_millis(20));
            taken.start().unwrap();
            removal.join().unwrap().unwrap_err()
        });
        assert!(matches!(error, Error::InUse { state: State::Running, .. }), "{error}");
    }

    #[test]
    fn a_running_pod_is_not_removed() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let new = NewPod::create(&pods, Uuid::from_u128(4)).unwrap();
        let error = pods.remove(pods.find("0").unwrap(), told()).unwrap_err();
        assert!(error.to_string().contains("preparing"), "{error}");
        drop(new);
        place(&pods, Place::Run, 5);
        pods.remove(pods.find("0").unwrap(), told()).unwrap();
        assert!(pods.list(&Place::ALL).unwrap().is_empty());
    }
}
