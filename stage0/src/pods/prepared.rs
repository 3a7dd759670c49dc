//! Runs a pod that has been prepared.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use pod::pod_manifest::PodManifest;
use uuid::Uuid;

use super::startable::Startable;
use super::{Error, PAUSE, Place, Pod, Pods, State};

/// A prepared pod that this process has for itself. Dropped, it is prepared as before: it is only gone if this process
/// becomes its stage1.
#[derive(Debug)]
pub struct PreparedPod<'a> {
    pods: &'a Pods,
    pod: Pod,
    lock: File,
}

impl Pods {
    /// Takes a pod that is prepared, for good or until the result is dropped; of several processes, one.
    pub fn take_prepared(&self, pod: &Pod) -> Result<PreparedPod<'_>, Error> {
        loop {
            let pod = self.look_again(pod)?;
            if pod.state != State::Prepared {
                return Err(Error::NotPrepared { uuid: pod.uuid, state: pod.state });
            }
            let lock = match File::open(&pod.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(Error::io("open", &pod.path))?,
            };
            match lock.try_lock() {
                // Another process may have had it before.
                Ok(()) if self.path(Place::Prepared, pod.uuid).exists() => {
                    return Ok(PreparedPod { pods: self, pod, lock });
                }
                // Somebody looks at it, or takes it, and is not waited for when it runs.
                Ok(()) | Err(fs::TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &pod.path)(error)),
            }
        }
    }
}

impl PreparedPod<'_> {
    /// The pod.
    pub fn uuid(&self) -> Uuid {
        self.pod.uuid
    }

    /// What it was prepared with.
    pub fn manifest(&self) -> Result<PodManifest, Error> {
        self.pod.manifest()
    }
}

impl Startable for PreparedPod<'_> {
    fn path(&self) -> PathBuf {
        self.pod.path.clone()
    }

    fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    fn start(&mut self) -> Result<(), Error> {
        match self.pods.rename(&self.pod, Place::Run)? {
            Some(pod) => self.pod = pod,
            None => {
                let Pod { uuid, state, .. } = self.pods.look_again(&self.pod)?;
                return Err(Error::NotPrepared { uuid, state });
            }
        }
        Ok(())
    }
}

impl Drop for PreparedPod<'_> {
    fn drop(&mut self) {
        if self.pod.place == Place::Run {
            // What cannot be moved back now is a pod that has ended, which gc finds.
            let _ = self.pods.rename(&self.pod, Place::Prepared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> (tempfile::TempDir, Pods, Pod) {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        pods.make_directories().unwrap();
        fs::create_dir(pods.path(Place::Prepared, Uuid::from_u128(1))).unwrap();
        let pod = pods.find("0").unwrap();
        (data, pods, pod)
    }

    #[test]
    fn one_process_has_it() {
        let (_data, pods, pod) = prepared();
        let mut taken = pods.take_prepared(&pod).unwrap();
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| pods.take_prepared(&pod).map(drop).unwrap_err());
            taken.start().unwrap();
            second.join().unwrap()
        });
        assert_eq!(pods.find("0").unwrap().state, State::Running);
        assert!(matches!(second, Error::NotPrepared { state: State::Running, .. }), "{second}");
    }

    #[test]
    fn what_does_not_start_is_prepared_as_before() {
        let (_data, pods, pod) = prepared();
        let mut taken = pods.take_prepared(&pod).unwrap();
        taken.start().unwrap();
        drop(taken);
        assert_eq!(pods.find("0").unwrap().state, State::Prepared);
        pods.take_prepared(&pod).unwrap().start().unwrap();
    }

    #[test]
    fn only_what_is_prepared() {
        let (_data, pods, pod) = prepared();
        let exited = pods.rename(&pod, Place::Run).unwrap().unwrap();
        let exited = pods.look_again(&exited).unwrap();
        for pod in [&pod, &exited] {
            let error = pods.take_prepared(pod).unwrap_err();
            assert!(matches!(error, Error::NotPrepared { state: State::Exited, .. }), "{error}");
        }
    }
}
