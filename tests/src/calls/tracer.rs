//! The process that traces the one that makes the calls: of each that arrives here it makes none, and says so.

use std::io::{Error, Result};
use std::mem;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::probe::{ALLOWED, Call, Shared, Verdict, run};

/// Has all of them made; each that ends its process takes another one for the rest.
pub fn probe(calls: &[Call], shared: &Shared) -> Result<()> {
    while let Some(rest) = calls.get(shared.made()..).filter(|rest| !rest.is_empty()) {
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => run(rest, shared),
            ForkResult::Parent { child } => trace(child, shared)?,
        }
    }
    Ok(())
}

/// Until it ends.
fn trace(child: Pid, shared: &Shared) -> Result<()> {
    waitpid(child, None)?;
    request(libc::PTRACE_SETOPTIONS, child, libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL)?;
    let mut signal = 0;
    loop {
        request(libc::PTRACE_CONT, child, signal)?;
        signal = 0;
        match waitpid(child, None)? {
            WaitStatus::PtraceEvent(..) => skip_call(child)?,
            WaitStatus::Stopped(_, told) => signal = told as i32,
            WaitStatus::Signaled(_, signal, _) => {
                shared.push(Verdict::killed(signal as i32));
                return Ok(());
            }
            WaitStatus::Exited(_, 1) => return Err(Error::other("the filter cannot be installed")),
            _ => return Ok(()),
        }
    }
}

/// A number below zero is no call: the kernel skips it, and returns what is in the register of results.
fn skip_call(child: Pid) -> Result<()> {
    // SAFETY: a structure of numbers.
    let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
    let address = &raw mut registers;
    // SAFETY: the kernel writes a structure of this type there, then reads it.
    let results = unsafe {
        let read = libc::ptrace(libc::PTRACE_GETREGS, child.as_raw(), 0, address);
        (*address).orig_rax = u64::MAX;
        (*address).rax = ALLOWED as u64;
        [read, libc::ptrace(libc::PTRACE_SETREGS, child.as_raw(), 0, address)]
    };
    if results == [0, 0] { Ok(()) } else { Err(Error::last_os_error()) }
}

/// A request whose argument is a number.
fn request(what: libc::c_uint, child: Pid, argument: i32) -> Result<()> {
    // SAFETY: nothing is at an address.
    let result = unsafe { libc::ptrace(what, child.as_raw(), 0usize, argument as usize) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
