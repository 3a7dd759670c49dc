//! What a process gives up before it executes an app's program.

use std::os::fd::RawFd;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::prctl::{set_keepcaps, set_no_new_privs};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchdir, setgroups, setresgid, setresuid};
use pod::capability::CapabilitySet;
use pod::plan::Process;
use pod::rlimit::Rlimit;

use crate::error::{Error, errno};
use crate::sys;
use crate::users::Identity;
use crate::{apparmor, selinux};

/// Tells the kernel how willingly to kill this process, if the plan says so; where /proc is the app's own.
pub fn adjust_oom_score(process: &Process) -> Result<(), Error> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    std::fs::write(FILE, score.to_string())
        .map_err(|error| Error::path(format!("write {score} to"), FILE)(errno(&error)))
}

/// Becomes what `process` says, run by `identity`; all that is left to do is to install its rules and filter and to execute a program,
/// which inherits no descriptor from `first_closed` on.
pub fn confine(process: &Process, identity: &Identity, first_closed: RawFd) -> Result<(), Error> {
    // Whoever started the pod may have keys in his (session-keyring(7)), which would be inherited.
    sys::join_new_session_keyring().map_err(Error::system("make a session keyring"))?;
    process.rlimits.iter().try_for_each(limit)?;
    limit_bounding_set(process.capabilities.0).map_err(Error::system("drop capabilities"))?;
    set_keepcaps(true).map_err(Error::system("keep capabilities"))?;
    become_user(identity)?;
    sys::limit_capabilities(kept(process, identity).0).map_err(Error::system("limit capabilities"))?;
    if process.no_new_privileges {
        set_no_new_privs().map_err(Error::system("give up new privileges"))?;
    }
    enter_directory(&process.working_directory)?;
    if let Some(profile) = &process.apparmor {
        apparmor::execute_under(profile)?;
    }
    if let Some(context) = &process.selinux {
        selinux::execute_in(context)?;
    }
    sys::close_descriptors_on_exec(first_closed).map_err(Error::system("close descriptors"))?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    sys::reset_signals();
    SigSet::empty().thread_set_mask().map_err(Error::system("unblock signals"))
}

/// What the process has until it executes the program. A filter takes CAP_SYS_ADMIN or no_new_privs (seccomp(2)), as Landlock's
/// rules do, and it has to be the last step, for it may refuse whatever a step before it needs. So the capability is kept, for any user; the
/// execution ends that: nothing is inheritable, and root gets the bounding set, another user nothing (capabilities(7)).
fn kept(process: &Process, identity: &Identity) -> CapabilitySet {
    let own = if identity.uid == 0 { process.capabilities.0 } else { 0 };
    let is_restricted = process.filter.is_some() || process.landlock.is_some();
    let to_restrict = match is_restricted && !process.no_new_privileges {
        true => CapabilitySet::SYS_ADMIN.0,
        false => 0,
    };
    CapabilitySet(own | to_restrict)
}

/// Resources in the order of their numbers.
const RESOURCES: [Resource; 16] = [
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_STACK,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_AS,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
];

/// While this is root yet, who may raise a limit.
fn limit(limit: &Rlimit) -> Result<(), Error> {
    let name = String::from(limit.resource());
    match RESOURCES.get(usize::from(limit.resource().number())) {
        Some(resource) => setrlimit(*resource, limit.soft(), limit.hard()).map_err(Error::system(format!(
            "set the limit of {name} to {}:{}",
            limit.soft(),
            limit.hard()
        ))),
        None => Err(Error::Impossible(format!("there is no limit of {name}"))),
    }
}

fn limit_bounding_set(kept: u64) -> nix::Result<()> {
    for capability in (0..u64::BITS).filter(|number| kept & (1 << number) == 0) {
        if !sys::drop_from_bounding_set(capability)? {
            break;
        }
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), Error> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).map_err(Error::system("set the further groups"))?;
    setresgid(gid, gid, gid).map_err(Error::system(format!("become group {gid}")))?;
    setresuid(uid, uid, uid).map_err(Error::system(format!("become user {uid}")))
}

/// As the app's user, for whom it has to be open. No link of /proc is followed: the supervisor's descriptors are still there,
/// and through one of them `/proc/self/fd/N` would be a directory of the host (CVE-2024-21626).
fn enter_directory(path: &Path) -> Result<(), Error> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how).and_then(fchdir).map_err(Error::path("enter working directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The session keyring of the calling thread: each has its own.
    fn session_keyring() -> libc::c_long {
        // SAFETY: both arguments are numbers.
        unsafe {
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, libc::KEY_SPEC_SESSION_KEYRING, 1)
        }
    }

    #[test]
    fn nothing_of_the_callers_session_keyring_is_left() {
        let callers = session_keyring();
        std::thread::spawn(move || {
            assert_eq!(session_keyring(), callers);
            sys::join_new_session_keyring().unwrap();
            assert!(callers < 0 || session_keyring() != callers);
        })
        .join()
        .unwrap();
    }
}
