//! Filters of system calls as data: what a kind of thread may call, and why.
//!
//! A call that is not in the table ends the process (SIGSYS): a program that makes one is not ours any more.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::error::Error;

/// A line of a table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The call's number (`libc::SYS_*`).
    pub call: libc::c_long,
    /// With which arguments it is allowed.
    pub when: When,
    /// What it is needed for.
    pub why: &'static str,
}

/// What is asked of a call. Only the lower half of an argument is looked at, as the kernel does with numbers of ioctls
/// and with flags.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Nothing.
    Always,
    /// The argument of this number (from 0) is one of these values.
    OneOf(u8, &'static [u32]),
    /// The argument of this number (from 0) has none of these bits.
    Without(u8, u32),
}

/// linux/filter.h and linux/bpf_common.h.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// In no table, so that the handler of SIGSYS can end the process by it.
const NEVER_ALLOWED: libc::c_long = libc::SYS_getppid;

/// Takes every call from the calling thread that `rules` do not have, for good. It needs no_new_privs.
pub fn install(rules: &[Rule]) -> Result<(), Error> {
    let program = compile(rules);
    let failed = Error::step("install a filter of system calls");
    let len = u16::try_from(program.len()).map_err(|_| failed(Errno::EINVAL))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the call reads one sock_fprog and as many instructions as that says; it writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(result).map(drop).map_err(failed)
}

/// The program: one comparison after the other, since tables are short.
fn compile(rules: &[Rule]) -> Vec<libc::sock_filter> {
    let mut program = vec![
        branch(LOAD, ARCHITECTURE, 0, 0),
        branch(JUMP_IF_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        branch(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        branch(LOAD, NUMBER, 0, 0),
    ];
    for rule in rules {
        let verdict = verdict(rule.when);
        // Tables are written by hand and short: no verdict is longer than a jump.
        program.push(branch(JUMP_IF_EQUAL, rule.call as u32, 0, verdict.len() as u8));
        program.extend(verdict);
    }
    program.push(branch(RETURN, libc::SECCOMP_RET_TRAP, 0, 0));
    program
}

fn verdict(when: When) -> Vec<libc::sock_filter> {
    let allow = branch(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let refuse = branch(RETURN, libc::SECCOMP_RET_TRAP, 0, 0);
    let load = |argument: u8| branch(LOAD, ARGUMENTS + 8 * u32::from(argument), 0, 0);
    match when {
        When::Always => vec![allow],
        When::Without(argument, bits) => {
            vec![load(argument), branch(JUMP_IF_ANY_BIT, bits, 1, 0), allow, refuse]
        }
        When::OneOf(argument, values) => {
            let mut program = vec![load(argument)];
            let left = (1..=u8::MAX).take(values.len()).rev();
            program
                .extend(values.iter().zip(left).map(|(value, left)| branch(JUMP_IF_EQUAL, *value, left, 0)));
            program.extend([refuse, allow]);
            program
        }
    }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

static REPORT: AtomicI32 = AtomicI32::new(-1);

/// Has this process write the number of a forbidden call to `report`, four bytes, before it dies of it. A process that is
/// not ours any more can write anything: it is a help for the one who looks for a mistake.
pub fn report_to(report: OwnedFd) -> Result<(), Error> {
    // It stays open until the end.
    REPORT.store(report.as_raw_fd(), Ordering::Relaxed);
    std::mem::forget(report);
    let action = SigAction::new(SigHandler::SigAction(on_forbidden), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler makes only system calls.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop).map_err(Error::step("catch forbidden calls"))
}

extern "C" fn on_forbidden(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo of SIGSYS: after three ints and its padding a pointer, then the call's number
    // (asm-generic/siginfo.h), all within the structure.
    let call = unsafe { info.cast::<i32>().add(6).read() };
    // SAFETY: the call reads four bytes of a local variable.
    unsafe { libc::write(REPORT.load(Ordering::Relaxed), (&raw const call).cast(), size_of::<i32>()) };
    // SAFETY: the call takes nothing. While SIGSYS is handled, and so blocked, a forbidden call kills by it.
    unsafe { libc::syscall(NEVER_ALLOWED) };
}
