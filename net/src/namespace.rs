//! Network namespaces with a name: bound to a file, they outlive every process in them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::statfs;

use crate::cni::Error;

/// The magic number of the file system that namespaces are files of (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The namespace of the thread that asks.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes a network namespace with loopback in operation, bound to a new file at `path`; or takes one that was made.
pub fn create(path: &Path, made: Option<File>) -> Result<(), Error> {
    File::create_new(path).map_err(failed("make", path))?;
    let made = in_thread(|| make(path, made)).unwrap_or_else(|error| Err(failed("make", path)(error)));
    made.inspect_err(|_| {
        // What cannot be removed is found by garbage collection.
        let _ = remove(path);
    })
}

fn make(path: &Path, made: Option<File>) -> Result<(), Error> {
    let entered = match made {
        Some(namespace) => setns(namespace, CloneFlags::CLONE_NEWNET),
        None => unshare(CloneFlags::CLONE_NEWNET),
    };
    entered.map_err(|errno| failed("make", path)(errno.into()))?;
    crate::loopback_up().map_err(|error| Error::Netlink(Box::new(error)))?;
    let none = None::<&str>;
    mount(Some(OWN), path, none, MsFlags::MS_BIND, none).map_err(|errno| failed("bind", path)(errno.into()))
}

/// Does something in the network namespace at `path`.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = open(path)?;
    let entered = in_thread(|| setns(namespace, CloneFlags::CLONE_NEWNET).map(|()| work()));
    entered.and_then(|done| Ok(done?)).map_err(failed("enter", path))
}

/// Does something in a thread of its own, which may change its namespace: the caller keeps his.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread panicked"))
    })
}

/// Opens the namespace at `path`.
pub fn open(path: &Path) -> Result<File, Error> {
    match is_namespace(path) {
        true => File::open(path).map_err(failed("open", path)),
        false => Err(failed("open", path)(io::Error::from(io::ErrorKind::NotFound))),
    }
}

/// Whether there is a namespace at `path`, and not only the file that one was bound to before the machine went down.
pub fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == NSFS_MAGIC)
}

/// Takes the name from a namespace, which is gone with its last process then. Nothing there is no error.
pub fn remove(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(failed("unmount", path)(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Namespace { action, path: path.to_owned(), source }
}
