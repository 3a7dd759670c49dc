//! System calls by name, with their numbers on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl up to Linux 6.17).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::Error;

/// The first numbers, without a gap.
#[rustfmt::skip]
const FIRST: [&str; 336] = [
    "read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap", "mprotect", "munmap",
    "brk", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "ioctl", "pread64", "pwrite64", "readv", "writev",
    "access", "pipe", "select", "sched_yield", "mremap", "msync", "mincore", "madvise", "shmget", "shmat",
    "shmctl", "dup", "dup2", "pause", "nanosleep", "getitimer", "alarm", "setitimer", "getpid", "sendfile",
    "socket", "connect", "accept", "sendto", "recvfrom", "sendmsg", "recvmsg", "shutdown", "bind", "listen",
    "getsockname", "getpeername", "socketpair", "setsockopt", "getsockopt", "clone", "fork", "vfork", "execve",
    "exit", "wait4", "kill", "uname", "semget", "semop", "semctl", "shmdt", "msgget", "msgsnd", "msgrcv",
    "msgctl", "fcntl", "flock", "fsync", "fdatasync", "truncate", "ftruncate", "getdents", "getcwd", "chdir",
    "fchdir", "rename", "mkdir", "rmdir", "creat", "link", "unlink", "symlink", "readlink", "chmod", "fchmod",
    "chown", "fchown", "lchown", "umask", "gettimeofday", "getrlimit", "getrusage", "sysinfo", "times", "ptrace",
    "getuid", "syslog", "getgid", "setuid", "setgid", "geteuid", "getegid", "setpgid", "getppid", "getpgrp",
    "setsid", "setreuid", "setregid", "getgroups", "setgroups", "setresuid", "getresuid", "setresgid",
    "getresgid", "getpgid", "setfsuid", "setfsgid", "getsid", "capget", "capset", "rt_sigpending",
    "rt_sigtimedwait", "rt_sigqueueinfo", "rt_sigsuspend", "sigaltstack", "utime", "mknod", "uselib",
    "personality", "ustat", "statfs", "fstatfs", "sysfs", "getpriority", "setpriority", "sched_setparam",
    "sched_getparam", "sched_setscheduler", "sched_getscheduler", "sched_get_priority_max",
    "sched_get_priority_min", "sched_rr_get_interval", "mlock", "munlock", "mlockall", "munlockall", "vhangup",
    "modify_ldt", "pivot_root", "_sysctl", "prctl", "arch_prctl", "adjtimex", "setrlimit", "chroot", "sync",
    "acct", "settimeofday", "mount", "umount2", "swapon", "swapoff", "reboot", "sethostname", "setdomainname",
    "iopl", "ioperm", "create_module", "init_module", "delete_module", "get_kernel_syms", "query_module",
    "quotactl", "nfsservctl", "getpmsg", "putpmsg", "afs_syscall", "tuxcall", "security", "gettid", "readahead",
    "setxattr", "lsetxattr", "fsetxattr", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr",
    "flistxattr", "removexattr", "lremovexattr", "fremovexattr", "tkill", "time", "futex", "sched_setaffinity",
    "sched_getaffinity", "set_thread_area", "io_setup", "io_destroy", "io_getevents", "io_submit", "io_cancel",
    "get_thread_area", "lookup_dcookie", "epoll_create", "epoll_ctl_old", "epoll_wait_old", "remap_file_pages",
    "getdents64", "set_tid_address", "restart_syscall", "semtimedop", "fadvise64", "timer_create",
    "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete", "clock_settime", "clock_gettime",
    "clock_getres", "clock_nanosleep", "exit_group", "epoll_wait", "epoll_ctl", "tgkill", "utimes", "vserver",
    "mbind", "set_mempolicy", "get_mempolicy", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive",
    "mq_notify", "mq_getsetattr", "kexec_load", "waitid", "add_key", "request_key", "keyctl", "ioprio_set",
    "ioprio_get", "inotify_init", "inotify_add_watch", "inotify_rm_watch", "migrate_pages", "openat", "mkdirat",
    "mknodat", "fchownat", "futimesat", "newfstatat", "unlinkat", "renameat", "linkat", "symlinkat", "readlinkat",
    "fchmodat", "faccessat", "pselect6", "ppoll", "unshare", "set_robust_list", "get_robust_list", "splice",
    "tee", "sync_file_range", "vmsplice", "move_pages", "utimensat", "epoll_pwait", "signalfd", "timerfd_create",
    "eventfd", "fallocate", "timerfd_settime", "timerfd_gettime", "accept4", "signalfd4", "eventfd2",
    "epoll_create1", "dup3", "pipe2", "inotify_init1", "preadv", "pwritev", "rt_tgsigqueueinfo",
    "perf_event_open", "recvmmsg", "fanotify_init", "fanotify_mark", "prlimit64", "name_to_handle_at",
    "open_by_handle_at", "clock_adjtime", "syncfs", "sendmmsg", "setns", "getcpu", "process_vm_readv",
    "process_vm_writev", "kcmp", "finit_module", "sched_setattr", "sched_getattr", "renameat2", "seccomp",
    "getrandom", "memfd_create", "kexec_file_load", "bpf", "execveat", "userfaultfd", "membarrier", "mlock2",
    "copy_file_range", "preadv2", "pwritev2", "pkey_mprotect", "pkey_alloc", "pkey_free", "statx",
    "io_pgetevents", "rseq", "uretprobe",
];

/// From this number on, the same as on other architectures.
const SECOND_START: u32 = 424;

/// Without a gap from there.
#[rustfmt::skip]
const SECOND: [&str; 46] = [
    "pidfd_send_signal", "io_uring_setup", "io_uring_enter", "io_uring_register", "open_tree", "move_mount",
    "fsopen", "fsconfig", "fsmount", "fspick", "pidfd_open", "clone3", "close_range", "openat2", "pidfd_getfd",
    "faccessat2", "process_madvise", "epoll_pwait2", "mount_setattr", "quotactl_fd", "landlock_create_ruleset",
    "landlock_add_rule", "landlock_restrict_self", "memfd_secret", "process_mrelease", "futex_waitv",
    "set_mempolicy_home_node", "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait",
    "futex_requeue", "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules",
    "mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr", "file_getattr",
    "file_setattr",
];

/// Calls of other architectures, i386 among them: lists that are made for several have them.
#[rustfmt::skip]
const ELSEWHERE: [&str; 112] = [
    "_llseek", "_newselect", "arm_fadvise64_64", "arm_sync_file_range", "bdflush", "break", "breakpoint",
    "cacheflush", "chown32", "clock_adjtime64", "clock_getres_time64", "clock_gettime64",
    "clock_nanosleep_time64", "clock_settime64", "fadvise64_64", "fchown32", "fcntl64", "fstat64", "fstatat64",
    "fstatfs64", "ftime", "ftruncate64", "futex_time64", "getegid32", "geteuid32", "getgid32", "getgroups32",
    "getresgid32", "getresuid32", "getuid32", "gtty", "idle", "io_pgetevents_time64", "ipc", "lchown32",
    "lock", "lstat64", "mmap2", "mpx", "mq_timedreceive_time64", "mq_timedsend_time64", "nice", "oldfstat",
    "oldlstat", "oldolduname", "oldstat", "olduname", "pciconfig_iobase", "pciconfig_read", "pciconfig_write",
    "ppoll_time64", "prof", "profil", "pselect6_time64", "readdir", "recv", "recvmmsg_time64",
    "riscv_flush_icache", "riscv_hwprobe", "rt_sigtimedwait_time64", "rtas", "s390_guarded_storage",
    "s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr", "s390_sthyi",
    "sched_rr_get_interval_time64", "semtimedop_time64", "send", "sendfile64", "set_tls", "setfsgid32",
    "setfsuid32", "setgid32", "setgroups32", "setregid32", "setresgid32", "setresuid32", "setreuid32", "setuid32",
    "sgetmask", "sigaction", "signal", "sigpending", "sigprocmask", "sigreturn", "sigsuspend", "socketcall",
    "spu_create", "spu_run", "ssetmask", "stat64", "statfs64", "stime", "stty", "subpage_prot", "swapcontext",
    "switch_endian", "sync_file_range2", "sys_debug_setcontext", "timer_gettime64", "timer_settime64",
    "timerfd_gettime64", "timerfd_settime64", "truncate64", "ugetrlimit", "ulimit", "umount", "utimensat_time64",
    "vm86", "vm86old", "waitpid",
];

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The call with this number.
    Call(u32),
    /// A call of another architecture, which no program can make here.
    Elsewhere,
}

impl Name {
    /// Looks a name up. One that nobody knows is an error: ignored in a set of calls to be refused, a slip of the pen
    /// would leave the call open.
    pub fn parse(name: &str) -> Result<Self, Error> {
        if let Some(number) = number(name) {
            Ok(Self::Call(number))
        } else if ELSEWHERE.contains(&name) {
            Ok(Self::Elsewhere)
        } else {
            Err(Error::syntax(name, "the name of a system call, or of a list such as @rkt/default-whitelist"))
        }
    }
}

/// The number of a call of x86-64.
pub fn number(name: &str) -> Option<u32> {
    static NUMBERS: LazyLock<BTreeMap<&str, u32>> =
        LazyLock::new(|| known().map(|(number, name)| (name, number)).collect());
    NUMBERS.get(name).copied()
}

/// Every call of x86-64, by its number.
pub fn known() -> impl Iterator<Item = (u32, &'static str)> {
    (0..).zip(FIRST).chain((SECOND_START..).zip(SECOND))
}

/// The number of a call that is known when this is compiled; a name of none fails that.
#[expect(clippy::panic, reason = "it ends the compilation")]
pub const fn resolve(name: &str) -> u32 {
    match (position(&FIRST, name), position(&SECOND, name)) {
        (Some(index), _) => index,
        (None, Some(index)) => SECOND_START + index,
        (None, None) => panic!("no system call of x86-64 has this name"),
    }
}

const fn position(mut names: &[&str], wanted: &str) -> Option<u32> {
    let mut index = 0;
    while let [name, rest @ ..] = names {
        if is_same(name.as_bytes(), wanted.as_bytes()) {
            return Some(index);
        }
        (names, index) = (rest, index + 1);
    }
    None
}

const fn is_same(mut one: &[u8], mut other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    while let ([a, one_rest @ ..], [b, other_rest @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    true
}

/// Calls by their numbers, a bit each. Names are resolved when this is compiled: every start of an app needs some hundreds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSet([u64; 8]);

impl CallSet {
    /// None.
    pub const EMPTY: Self = Self([0; 8]);

    /// The calls with these names.
    #[expect(clippy::indexing_slicing, reason = "numbers are below 512, or the compilation ends")]
    pub const fn named(mut names: &[&str]) -> Self {
        let mut set = Self::EMPTY;
        while let [name, rest @ ..] = names {
            let number = resolve(name);
            set.0[(number / 64) as usize] |= 1 << (number % 64);
            names = rest;
        }
        set
    }

    /// The calls of both.
    pub fn union(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    /// Their numbers, in ascending order.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        let words = (0..).step_by(64).zip(self.0);
        words.flat_map(|(first, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_the_numbers_of_their_names() {
        const SOME: [&str; 4] = ["io_pgetevents", "mseal", "read", "preadv2"];
        let mut numbers = SOME.map(|name| number(name).unwrap());
        numbers.sort_unstable();
        let set = CallSet::named(&SOME);
        assert!(set.numbers().eq(numbers));
        assert_eq!(CallSet::named(&SOME[1..]).union(CallSet::named(&SOME[..2])), set);
        assert!(known().all(|(number, name)| resolve(name) == number));
    }

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        macro_rules! check {
            ($($name:literal $constant:ident),*) => {
                $(assert_eq!(number($name), u32::try_from(libc::$constant).ok(), $name);)*
            };
        }
        check!(
            "read" SYS_read, "execve" SYS_execve, "mkdir" SYS_mkdir, "_sysctl" SYS__sysctl, "tkill" SYS_tkill,
            "vserver" SYS_vserver, "openat" SYS_openat, "prlimit64" SYS_prlimit64, "seccomp" SYS_seccomp,
            "statx" SYS_statx, "rseq" SYS_rseq, "pidfd_send_signal" SYS_pidfd_send_signal, "clone3" SYS_clone3,
            "openat2" SYS_openat2, "futex_waitv" SYS_futex_waitv, "fchmodat2" SYS_fchmodat2, "mseal" SYS_mseal
        );
    }

    #[test]
    fn a_name_is_of_one_kind() {
        let mut names: Vec<&str> = known().map(|(_, name)| name).chain(ELSEWHERE).collect();
        let before = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), before);
        assert_eq!(Name::parse("mmap2").unwrap(), Name::Elsewhere);
        for bad in ["mkdri", "", "READ", "SYS_read"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
