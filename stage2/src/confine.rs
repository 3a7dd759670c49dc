//! What a process gives up before it executes an app's program.

use std::path::Path;

use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use pod::plan::Process;

use crate::error::{Error, errno};
use crate::sys;
use crate::users::Identity;

/// Tells the kernel how willingly to kill this process, if the plan says so; where /proc is the app's own.
pub fn adjust_oom_score(process: &Process) -> Result<(), Error> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    std::fs::write(FILE, score.to_string())
        .map_err(|error| Error::path(format!("write {score} to"), FILE)(errno(&error)))
}

/// Becomes what `process` says, run by `identity`; all that is left to do is to execute a program.
pub fn confine(process: &Process, identity: &Identity) -> Result<(), Error> {
    limit_bounding_set(process.capabilities.0).map_err(Error::system("drop capabilities"))?;
    become_user(identity)?;
    sys::limit_capabilities(process.capabilities.0).map_err(Error::system("limit capabilities"))?;
    if process.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(Error::system("give up new privileges"))?;
    }
    enter_directory(&process.working_directory)?;
    sys::close_descriptors_on_exec().map_err(Error::system("close descriptors"))?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    sys::reset_signals();
    SigSet::empty().thread_set_mask().map_err(Error::system("unblock signals"))
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

/// As the app's user, for whom it has to be open.
fn enter_directory(path: &Path) -> Result<(), Error> {
    chdir(path).map_err(Error::path("enter working directory", path))
}
