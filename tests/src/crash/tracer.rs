//! Traces a process, with its children or without, and kills the one that is about to make a certain system call.

use std::collections::HashSet;
use std::fs;
use std::process::exit;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork};

use crate::calls::Call;
use crate::{Error, Plan};

/// `op` of PTRACE_GET_SYSCALL_INFO on the way into a call (linux/ptrace.h).
const ENTRY: u8 = 1;

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// The changing calls, in the order in which they were about to be made.
    pub calls: Vec<&'static str>,
    /// One of them was not made: its process was killed.
    pub killed: bool,
}

/// Runs the command as `plan` says; returns when all that is traced has ended.
pub fn run(plan: &Plan) -> Result<Seen, Error> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => begin(plan),
        ForkResult::Parent { child } => {
            Tracer { plan, seen: Seen::default(), known: HashSet::new() }.trace(child)
        }
    }
}

fn begin(plan: &Plan) -> ! {
    let begun = ptrace::traceme().and_then(|()| raise(Signal::SIGSTOP));
    let executed = begun.and_then(|()| execvp(&plan.program, &plan.arguments).map(drop));
    eprintln!("crash: cannot run {:?}: {executed:?}", plan.program);
    exit(127)
}

struct Tracer<'a> {
    plan: &'a Plan,
    seen: Seen,
    /// The processes and threads that have stopped for the first time.
    known: HashSet<Pid>,
}

impl Tracer<'_> {
    fn trace(mut self, main: Pid) -> Result<Seen, Error> {
        waitpid(main, None)?;
        let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
        if self.plan.follow {
            options |=
                Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        }
        ptrace::setoptions(main, options | Options::PTRACE_O_TRACEEXEC)?;
        self.known.insert(main);
        self.go_on(main, None)?;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => return Ok(self.seen),
                Err(Errno::EINTR) => continue,
                status => status?,
            };
            self.take(status)?;
        }
    }

    fn take(&mut self, status: WaitStatus) -> Result<(), Error> {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                if self.is_the_one(pid)? {
                    self.seen.killed = true;
                    return ignore_gone(kill(process_of(pid), Signal::SIGKILL));
                }
                self.go_on(pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => self.go_on(pid, None),
            WaitStatus::Stopped(pid, signal) => {
                // A new one begins with a stop that nobody has sent.
                let is_begin = self.known.insert(pid) && signal == Signal::SIGSTOP;
                self.go_on(pid, Some(signal).filter(|_| !is_begin))
            }
            _ => Ok(()),
        }
    }

    /// Whether what this one is about to do is what is not to be done.
    fn is_the_one(&mut self, pid: Pid) -> Result<bool, Error> {
        let Some(call) = entered(pid)? else { return Ok(false) };
        let Some(name) = call.change() else { return Ok(false) };
        self.seen.calls.push(name);
        Ok(self.plan.kill_at == Some(self.seen.calls.len()))
    }

    /// Up to the next call, or, once everything that was to happen has, to the end.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) -> Result<(), Error> {
        ignore_gone(if self.seen.killed { ptrace::cont(pid, signal) } else { ptrace::syscall(pid, signal) })
    }
}

/// The call that a stopped process is about to make; `None` if it comes back from one.
fn entered(pid: Pid) -> Result<Option<Call>, Error> {
    let registers = ptrace::syscall_info(pid).and_then(|info| Ok((info.op, ptrace::getregs(pid)?)));
    match registers {
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok((ENTRY, registers)) => Ok(Some(Call {
            number: registers.orig_rax,
            arguments: [
                registers.rdi,
                registers.rsi,
                registers.rdx,
                registers.r10,
                registers.r8,
                registers.r9,
            ],
        })),
        Ok(_) => Ok(None),
    }
}

/// The process of a thread.
fn process_of(thread: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.map_or(thread, Pid::from_raw)
}

/// What was killed meanwhile needs nothing.
fn ignore_gone(result: nix::Result<()>) -> Result<(), Error> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}
