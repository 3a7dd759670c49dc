//! The processes of a pod. Nothing of rkt is among them, and the app may have started others and gone, or have closed the
//! descriptor of the lock: what tells them from the host's is their root, which is on the pod's writable layer.
//!
//! Any user of the host can mount an overlay with such a path, but only in a user namespace of his own: whoever is in another
//! one than this process is none of the pod's. Else root could be made to enter a root of that user's making.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pod::abi::PodDirectory;
use stage1::sys;
use uuid::Uuid;

use crate::error::Error;

/// A process of a pod.
#[derive(Debug)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// Itself, whoever gets the number later.
    pub pidfd: OwnedFd,
}

/// The pod whose directory this is.
pub fn uuid_of(directory: &PodDirectory) -> Result<Uuid, Error> {
    let name = directory.path().file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).ok_or_else(|| Error::NoPod(directory.path().to_owned()))
}

/// The processes of a pod that run at this moment.
pub fn members(pod: Uuid) -> Result<Vec<Member>, Error> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(stage1::Error::file("read", proc))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| member(pid, pod)).collect())
}

/// First whether it is one, since most are not; then once more, when it is certain whose the number is.
fn member(pid: i32, pod: Uuid) -> Option<Member> {
    let process = Path::new("/proc").join(pid.to_string());
    let mounts = process.join("mountinfo");
    // Whoever has gone meanwhile has no mounts.
    let is_one = || {
        fs::read_to_string(&mounts).is_ok_and(|mounts| has_layer(&mounts, pod))
            && user_namespace(&process)
                .is_some_and(|users| Some(users) == user_namespace("/proc/self".as_ref()))
    };
    is_one()
        .then(|| sys::pidfd_open(pid).ok())
        .flatten()
        .filter(|_| is_one())
        .map(|pidfd| Member { pid, pidfd })
}

/// What tells a process's user namespace from others.
fn user_namespace(process: &Path) -> Option<(u64, u64)> {
    fs::metadata(process.join("ns/user")).ok().map(|namespace| (namespace.dev(), namespace.ino()))
}

/// Whether one of these mounts (proc_pid_mountinfo(5)) is an overlay that writes to the pod's layer, wherever the pod's
/// directory has been moved since.
fn has_layer(mounts: &str, pod: Uuid) -> bool {
    let layer = format!("/{pod}/overlay/");
    let writes_there =
        |option: &str| option.strip_prefix("upperdir=").is_some_and(|upper| upper.contains(&layer));
    mounts.lines().any(|mount| mount.split([' ', ',']).any(writes_there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_writable_layer() {
        let pod = Uuid::from_u128(7);
        let overlay = |uuid: Uuid| {
            format!(
                "1 2 0:3 / / rw,relatime - overlay overlay rw,lowerdir=/images/{pod}/overlay/x,\
                upperdir=/var/lib/rkt/pods/run/{uuid}/overlay/a/upper,workdir=/w\n"
            )
        };
        assert!(has_layer(&format!("5 1 0:9 / /dev rw - devtmpfs none rw\n{}", overlay(pod)), pod));
        assert!(!has_layer(&overlay(Uuid::from_u128(8)), pod));
        assert!(!has_layer("", pod));
    }

    #[test]
    fn this_process_is_in_no_pod() {
        assert!(members(Uuid::from_u128(7)).unwrap().is_empty());
        assert!(uuid_of(&PodDirectory::new("/")).is_err());
    }
}
