//! The user namespace of a pod, and the world that its supervisor begins in (`pod::plan::users`).
//!
//! One process makes the namespace, and a network namespace that belongs to it, and lives only until both are open. Another
//! one, still root of the host, makes the mounts that only that may make, in a mount namespace of its own; then it enters
//! the user namespace and clones the supervisor, as a child of the pod's parent. That is what it ends with.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, getpid, getppid, pause, pipe2, setgroups, setresgid, setresuid};
use pod::plan::Operation;
use pod::users::UserRange;
use stage2::sys;

use crate::error::Error;
use crate::supervisor::NetworkNamespace;

/// How much of an error is read.
const MAX_ERROR_BYTES: u64 = 16 << 10;

/// A user namespace, and the network namespace that its root rules.
#[derive(Debug)]
pub struct Namespaces {
    users: File,
    network: File,
}

impl Namespaces {
    /// Makes both for a range of users.
    pub fn make(range: UserRange) -> Result<Self, Error> {
        let failed = || Error::system("make a user namespace (rkt doctor shows what is missing)");
        let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
        let parent = getpid();
        let Some(holder) = sys::fork(namespaces).map_err(failed())? else {
            // Of a parent that has gone by now it is not told. It has the pod's lock, which would be held for ever.
            let ends_with_parent = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
            while ends_with_parent && getppid() == parent {
                pause();
            }
            // SAFETY: the process ends, and nothing of it is to be put in order: what it shares with its parent is the parent's.
            unsafe { libc::_exit(1) }
        };
        let made = Self::of(holder, range);
        let _ = kill(holder, Signal::SIGKILL);
        let _ = waitpid(holder, None);
        made
    }

    fn of(holder: Pid, range: UserRange) -> Result<Self, Error> {
        let proc = PathBuf::from(format!("/proc/{holder}"));
        for map in ["uid_map", "gid_map"] {
            let path = proc.join(map);
            fs::write(&path, range.to_map()).map_err(Error::path("map the pod's users by", &path))?;
        }
        let open = |name: &str| {
            let path = proc.join("ns").join(name);
            File::open(&path).map_err(Error::path("open", &path))
        };
        Ok(Self { users: open("user")?, network: open("net")? })
    }

    /// A descriptor of the network namespace, where nothing is in operation, not even loopback.
    pub fn new_network(&self) -> Result<File, Error> {
        self.network.try_clone().map_err(Error::path("keep", Path::new("the network namespace")))
    }

    /// The network namespace to join; a new one is this value's, with loopback in operation.
    pub fn network(&self, wanted: NetworkNamespace) -> Result<Option<File>, Error> {
        match wanted {
            NetworkNamespace::Host => Ok(None),
            NetworkNamespace::Made(namespace) => Ok(Some(namespace)),
            NetworkNamespace::New => self.new_network().map(Some),
        }
    }

    /// The user namespace, for what comes later.
    pub fn keep_users(&self) -> Result<File, Error> {
        self.users.try_clone().map_err(Error::path("keep", Path::new("the user namespace")))
    }

    /// A descriptor of the user namespace.
    pub fn users(&self) -> BorrowedFd<'_> {
        self.users.as_fd()
    }

    /// Makes the world that `operations` say, and runs `supervise` in it as root of the pod, in further `namespaces`; its
    /// process's number. `network` is joined before; `outside` is dropped there, as in [`Supervisor::start`].
    ///
    /// [`Supervisor::start`]: crate::supervisor::Supervisor::start
    pub fn clone_into<T>(
        self,
        operations: &[Operation],
        network: Option<File>,
        namespaces: CloneFlags,
        outside: T,
        supervise: impl FnOnce(),
    ) -> Result<(Pid, T), Error> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(Error::system("make a pipe"))?;
        match sys::fork(CloneFlags::CLONE_NEWNS).map_err(Error::system("make a mount namespace"))? {
            Some(between) => {
                drop(write);
                let answer = receive(read);
                let _ = waitpid(between, None);
                Ok((answer?, outside))
            }
            None => {
                drop((read, outside));
                // The supervisor comes back with `true`, without the pipe.
                if self.become_supervisor(operations, network, namespaces, write) {
                    supervise();
                }
                // SAFETY: it takes a number and does not return; nothing of the parent's is run here.
                unsafe { libc::_exit(0) }
            }
        }
    }

    fn become_supervisor(
        self,
        operations: &[Operation],
        network: Option<File>,
        namespaces: CloneFlags,
        answer: OwnedFd,
    ) -> bool {
        let cloned = self
            .prepare(operations, network)
            .and_then(|()| sys::fork_sibling(namespaces).map_err(Error::system("make the pod's namespaces")));
        let text = match cloned {
            Ok(None) => return true,
            Ok(Some(pid)) => pid.to_string(),
            Err(error) => chain(&error),
        };
        // Without an answer the parent knows enough.
        let _ = File::from(answer).write_all(text.as_bytes());
        false
    }

    fn prepare(&self, operations: &[Operation], network: Option<File>) -> Result<(), Error> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .and_then(|()| nix::sys::prctl::set_dumpable(false))
            .and_then(|()| crate::supervisor::let_go_of_standard_streams())
            .map_err(Error::system("prepare the supervisor"))?;
        if let Some(network) = network {
            setns(network, CloneFlags::CLONE_NEWNET)
                .map_err(Error::system("enter the pod's network namespace"))?;
            net::loopback_up().map_err(Error::Loopback)?;
        }
        stage2::carry_out(operations, Some(self.users.as_fd())).map_err(Error::Outside)?;
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        setns(&self.users, CloneFlags::CLONE_NEWUSER)
            .and_then(|()| setgroups(&[]))
            .and_then(|()| setresgid(group, group, group))
            .and_then(|()| setresuid(root, root, root))
            .map_err(Error::system("enter the pod's user namespace"))
    }
}

/// The supervisor's number, or why there is none.
fn receive(answer: OwnedFd) -> Result<Pid, Error> {
    let mut text = String::new();
    let path = Path::new("the pipe from the supervisor");
    File::from(answer).take(MAX_ERROR_BYTES).read_to_string(&mut text).map_err(Error::path("read", path))?;
    match text.parse() {
        Ok(pid) => Ok(Pid::from_raw(pid)),
        Err(_) if text.is_empty() => Err(Error::Users("it ended without a word".into())),
        Err(_) => Err(Error::Users(text)),
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    stage2::causes(error).join(": ")
}
