//! Which ports of the host pods have: a file for each pod that has any, `<dir>/ports/<uuid>`, so that a start with ports looks
//! at these pods only, and one without at none.
//!
//! A file is there from before its pod runs, and counts as long as the pod is locked. It goes with the pod's directory; one that is
//! left all the same is removed by the next who looks. A pod that was killed is still attached to its networks, and its ports still lead
//! there: who wants one of them has its stage1 clean up.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use net::pod_network::PodNetwork;
use pod::abi::PodDirectory;
use pod::ports::PortMapping;
use uuid::Uuid;

use super::gc::{self, Told};
use super::{Error, Place, Pod, Pods, is_locked};

const DIRECTORY: &str = "ports";
/// Where a pod is from when it may have a file until it has ended.
const PLACES: [Place; 3] = [Place::Prepare, Place::Prepared, Place::Run];
/// Where it is when it has ended, until its stage1 has cleaned up.
const ENDED: [Place; 2] = [Place::Run, Place::ExitedGarbage];

/// The ports that a pod has for itself. Dropped, they are free again: they only stay if this process becomes the pod's stage1.
#[derive(Debug)]
pub struct Claim(PathBuf);

impl Claim {
    /// Takes ports for a pod that this process has locked, unless another pod has one of them.
    pub fn make(
        pods: &Pods,
        uuid: Uuid,
        wanted: &[PortMapping],
        told: Told<'_>,
    ) -> Result<Option<Self>, Error> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let directory = pods.root.with_file_name(DIRECTORY);
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(&directory);
        // Of two that want the same port, one is first.
        let locked = made.and_then(|()| File::open(&directory)).and_then(|all| all.lock().map(|()| all));
        let _lock = locked.map_err(Error::io("lock", &directory))?;
        for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
            let entry = entry.map_err(Error::io("read", &directory))?;
            let Some(pod) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let taken = read(&entry.path())?;
            let port = wanted.iter().find(|port| taken.iter().any(|one| one.conflicts_with(port)));
            match (pods.holder(pod)?, port) {
                (Holder::Alive, Some(port)) => return Err(Error::PortTaken { port: *port, pod }),
                (Holder::Attached(killed), Some(port)) => {
                    detach(&killed, *port, told)?;
                    remove(&entry.path())?;
                }
                (Holder::Alive | Holder::Attached(_), None) => {}
                (Holder::Gone, _) => remove(&entry.path())?,
            }
        }
        let claim = Self(directory.join(uuid.to_string()));
        let text = serde_json::to_vec(wanted).map_err(io::Error::from);
        text.and_then(|text| fs::write(&claim.0, text)).map_err(Error::io("write", &claim.0))?;
        Ok(Some(claim))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What stays counts no more once the pod is not locked.
        let _ = fs::remove_file(&self.0);
    }
}

/// What has become of a pod whose ports are on record.
enum Holder {
    /// It runs, or is about to.
    Alive,
    /// It was killed.
    Attached(Pod),
    /// It has no port any more.
    Gone,
}

impl Pods {
    fn holder(&self, uuid: Uuid) -> Result<Holder, Error> {
        for place in PLACES {
            let path = self.path(place, uuid);
            let locked = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.and_then(|directory| is_locked(&directory)),
            };
            if locked.map_err(Error::io("probe the lock of", &path))? {
                return Ok(Holder::Alive);
            }
        }
        let ended = self.look_in(&ENDED, uuid)?;
        let is_attached = |pod: &Pod| PodNetwork::is_left(&PodDirectory::new(&pod.path).network());
        Ok(ended.filter(is_attached).map_or(Holder::Gone, Holder::Attached))
    }

    /// Forgets the ports of a pod that is being removed.
    pub(super) fn forget_ports(&self, uuid: Uuid) -> Result<(), Error> {
        remove(&self.root.with_file_name(DIRECTORY).join(uuid.to_string()))
    }
}

/// Has the stage1 of a pod that was killed detach it, as `rkt gc` does, unless somebody does that now: who has locked it, or moved it to
/// another place since it was found.
fn detach(killed: &Pod, port: PortMapping, told: Told<'_>) -> Result<(), Error> {
    let taken = || Err(Error::PortTaken { port, pod: killed.uuid });
    let lock = match File::open(&killed.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return taken(),
        opened => opened.map_err(Error::io("open", &killed.path))?,
    };
    match lock.try_lock() {
        Ok(()) if killed.path.exists() => gc::clean_up(killed, told),
        Ok(()) | Err(TryLockError::WouldBlock) => taken(),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &killed.path)(error)),
    }
}

/// The ports on record; what another version has written has no say.
fn read(record: &Path) -> Result<Vec<PortMapping>, Error> {
    match fs::read(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(serde_json::from_slice(&read.map_err(Error::io("read", record))?).unwrap_or_default()),
    }
}

fn remove(record: &Path) -> Result<(), Error> {
    match fs::remove_file(record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", record)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pod::ports::Protocol;

    use super::*;
    use crate::pods::create::NewPod;
    use crate::pods::startable::Startable;

    fn told() -> Told<'static> {
        Told { debug: false, local_config: Path::new("/nowhere") }
    }

    fn port(host_port: u16) -> [PortMapping; 1] {
        [PortMapping { host_port, container_port: 1, protocol: Protocol::Tcp, host_ip: None }]
    }

    fn records(pods: &Pods) -> usize {
        fs::read_dir(pods.root.with_file_name(DIRECTORY)).map_or(0, Iterator::count)
    }

    #[test]
    fn a_port_is_one_pods_as_long_as_that_runs() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let claim = |uuid, number| Claim::make(&pods, uuid, &port(number), told());
        let mut first = NewPod::create(&pods, one).unwrap();
        let _first = claim(one, 80).unwrap().unwrap();
        let mut second = NewPod::create(&pods, two).unwrap();
        let refused = claim(two, 80).unwrap_err();
        assert!(matches!(refused, Error::PortTaken { pod, .. } if pod == one), "{refused}");
        let other = claim(two, 81).unwrap();
        first.start().unwrap();
        second.start().unwrap();
        assert!(claim(three, 80).is_err() && claim(three, 81).is_err());
        drop(other);
        assert!(claim(three, 81).unwrap().is_some());
        drop(first);
        // The record of a pod that is gone stays until somebody looks.
        let third = claim(three, 80).unwrap();
        assert_eq!((third.is_some(), records(&pods)), (true, 1));
        assert!(Claim::make(&pods, two, &[], told()).unwrap().is_none());
    }

    #[test]
    fn the_record_goes_with_the_pod() {
        let data = tempfile::tempdir().unwrap();
        let pods = Pods::new(data.path());
        let uuid = Uuid::from_u128(1);
        pods.make_directories().unwrap();
        fs::create_dir(pods.path(Place::Run, uuid)).unwrap();
        std::mem::forget(Claim::make(&pods, uuid, &port(80), told()).unwrap());
        assert_eq!(records(&pods), 1);
        pods.remove(pods.find("0").unwrap(), told()).unwrap();
        assert_eq!(records(&pods), 0);
    }

    #[test]
    fn what_was_killed_is_detached_for_who_wants_its_port() {
        for place in ENDED {
            let data = tempfile::tempdir().unwrap();
            let pods = Pods::new(data.path());
            let [killed, other] = [1, 2].map(Uuid::from_u128);
            pods.make_directories().unwrap();
            let path = pods.path(place, killed);
            let network = PodDirectory::new(&path).network();
            fs::create_dir_all(&network).unwrap();
            let rootfs = path.join("stage1/rootfs");
            fs::create_dir_all(&rootfs).unwrap();
            // It gets the pod's ID, in the pod's directory.
            std::os::unix::fs::symlink("/bin/touch", rootfs.join("gc")).unwrap();
            let cleaned = || path.join(killed.to_string()).exists();
            std::mem::forget(Claim::make(&pods, killed, &port(80), told()).unwrap());
            fs::write(network.join("attachments.json"), "").unwrap();
            assert!(PodNetwork::is_left(&network));
            assert!(Claim::make(&pods, other, &port(81), told()).unwrap().is_some());
            assert!(!cleaned());
            assert_eq!(records(&pods), 1, "that of the killed one");
            let found = pods.look_in(&ENDED, killed).unwrap().unwrap();
            let aside = data.path().join("aside");
            fs::rename(&path, &aside).unwrap();
            let refused = detach(&found, port(80)[0], told()).unwrap_err();
            assert!(matches!(refused, Error::PortTaken { pod, .. } if pod == killed), "moved: {refused}");
            fs::rename(&aside, &path).unwrap();
            let claim = Claim::make(&pods, other, &port(80), told()).unwrap();
            assert!(claim.is_some() && cleaned());
            assert_eq!(records(&pods), 1, "the new one");
        }
    }
}
