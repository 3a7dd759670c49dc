//! The process that makes the calls. It has a filter of its own beneath the pod's, which hands every call that the pod's lets
//! through to the tracer: of two filters' answers the stricter holds (seccomp(2)), and the tracer's is the mildest but one.

use std::arch::asm;
use std::fmt;
use std::io::{Error, Result};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

/// What a call is answered with that the pod's filter allows; no error of the kernel's.
pub const ALLOWED: i64 = -4000;
/// The status with which the process may really exit.
const DONE: u32 = 0x5ca1_ab1e;

/// A system call with its first argument; the others are 0.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Whether it is made as a 32-bit program does.
    pub is_i386: bool,
    /// As it is in the register.
    pub number: u64,
    /// The first argument.
    pub argument: u64,
}

impl Call {
    fn make(self) -> i64 {
        let Self { number, argument, .. } = self;
        let result: u64;
        if self.is_i386 {
            // SAFETY: the tracer carries out none of these calls, so nothing is read or written by them. RBX, which the
            // compiler keeps for itself, is restored.
            unsafe {
                asm!("xchg rbx, {argument}", "int 0x80", "xchg rbx, {argument}", argument = inout(reg) argument => _,
                    inlateout("rax") number => result, in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            // 32 bits of it are the result.
            return i64::from(result as u32 as i32);
        }
        // SAFETY: likewise.
        unsafe {
            asm!("syscall", inlateout("rax") number => result, in("rdi") argument, in("rsi") 0, in("rdx") 0,
                in("r10") 0, in("r8") 0, in("r9") 0, out("rcx") _, out("r11") _);
        }
        result as i64
    }
}

/// What the pod's filter does with a call.
#[derive(Clone, Copy, Debug)]
pub struct Verdict(i64);

impl Verdict {
    /// By this signal.
    pub fn killed(signal: i32) -> Self {
        Self(i64::from(signal))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ALLOWED => formatter.write_str("allowed"),
            error @ ..0 => write!(formatter, "errno {}", -error),
            0 => formatter.write_str("made"),
            signal => write!(formatter, "killed {signal}"),
        }
    }
}

/// Memory that the processes share: they can make no call to tell anything.
pub struct Shared {
    /// How many calls have been made, and what became of each.
    words: &'static [AtomicI64],
}

impl Shared {
    /// For so many calls.
    pub fn new(calls: usize) -> Result<Self> {
        let length = calls + 1;
        // SAFETY: a new mapping, at no address of ours.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length * size_of::<AtomicI64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // SAFETY: it is that long, zeroed, aligned to a page, and never unmapped.
        Ok(Self { words: unsafe { std::slice::from_raw_parts(memory.cast(), length) } })
    }

    fn split(&self) -> (&AtomicI64, &[AtomicI64]) {
        static NONE: AtomicI64 = AtomicI64::new(0);
        self.words.split_first().unwrap_or((&NONE, &[]))
    }

    /// How many calls have come back.
    pub fn made(&self) -> usize {
        self.split().0.load(SeqCst) as usize
    }

    /// The next call has this verdict.
    pub fn push(&self, verdict: Verdict) {
        let (made, verdicts) = self.split();
        if let Some(next) = verdicts.get(made.load(SeqCst) as usize) {
            next.store(verdict.0, SeqCst);
        }
        made.fetch_add(1, SeqCst);
    }

    /// All of them.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.split().1.iter().map(|verdict| Verdict(verdict.load(SeqCst)))
    }
}

/// Becomes the tracee that makes these calls, one after another.
pub fn run(calls: &[Call], shared: &Shared) -> ! {
    if confine().is_err() {
        // SAFETY: ends this process, and has no other effect.
        unsafe { libc::_exit(1) };
    }
    for call in calls {
        shared.push(Verdict(call.make()));
    }
    Call { is_i386: false, number: libc::SYS_exit_group as u64, argument: u64::from(DONE) }.make();
    std::process::abort()
}

/// Waits for the tracer, then installs the filter.
fn confine() -> Result<()> {
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // Offsets in struct seccomp_data (linux/seccomp.h): the number, and the first argument.
    let mut program = [
        step(LOAD, 0, 0),
        step(IF_EQUAL, 3, libc::SYS_exit_group as u32),
        step(LOAD, 0, 16),
        step(IF_EQUAL, 1, DONE),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_TRACE),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: numbers, and a program that lives until the call is over.
    let results = unsafe {
        [
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) as i32,
            libc::raise(libc::SIGSTOP),
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
        ]
    };
    if results == [0; 4] { Ok(()) } else { Err(Error::last_os_error()) }
}
