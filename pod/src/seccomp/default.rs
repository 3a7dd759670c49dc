//! The system calls of an app that says nothing: after docker's default profile, as upstream's list, sorted by what they
//! are for. What it does not have is refused with EPERM; the tests say why, call by call.

use super::calls::{CallSet, resolve};
use super::errno::Errno;
use super::filter::{ArgumentTest, Rule, Rules};
use crate::capability::CapabilitySet;

/// Calls that belong together, and the capability that an app needs to get them.
struct Group(Option<&'static str>, &'static [&'static str]);

#[rustfmt::skip]
const GROUPS: [Group; 27] = [
    // Files: contents and descriptors.
    Group(None, &[
        "read", "write", "open", "close", "lseek", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev",
        "preadv2", "pwritev2", "creat", "openat", "openat2", "close_range", "dup", "dup2", "dup3", "fcntl", "flock",
        "ioctl", "fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "truncate", "ftruncate", "fallocate",
        "fadvise64", "readahead", "sendfile", "copy_file_range", "splice", "tee", "vmsplice", "pipe", "pipe2",
        "memfd_create", "memfd_secret", "cachestat",
    ]),
    // Files: names and attributes. What a mode or an owner may be is the kernel's own matter.
    Group(None, &[
        "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2",
        "getdents", "getdents64", "getcwd", "chdir", "fchdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat",
        "rmdir", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "mknod",
        "mknodat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "umask",
        "utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "getxattr",
        "lgetxattr", "fgetxattr", "getxattrat", "listxattr", "llistxattr", "flistxattr", "listxattrat", "removexattr",
        "lremovexattr", "fremovexattr", "removexattrat", "file_getattr", "file_setattr", "name_to_handle_at",
    ]),
    // Waiting for and being told of events.
    Group(None, &[
        "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
        "epoll_wait", "epoll_wait_old", "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "inotify_init",
        "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "fanotify_mark", "io_setup", "io_destroy",
        "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
    ]),
    // Memory.
    Group(None, &[
        "brk", "mmap", "mremap", "munmap", "mprotect", "msync", "mincore", "madvise", "mlock", "mlock2", "mlockall",
        "munlock", "munlockall", "remap_file_pages", "pkey_alloc", "pkey_free", "pkey_mprotect", "map_shadow_stack",
        "mseal", "membarrier", "shmget", "shmat", "shmdt", "shmctl",
    ]),
    // Processes and threads.
    Group(None, &[
        "clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "getpid",
        "getppid", "gettid", "getpgid", "getpgrp", "getsid", "setpgid", "setsid", "set_tid_address", "arch_prctl",
        "modify_ldt", "get_thread_area", "set_thread_area", "prctl", "rseq", "get_robust_list", "set_robust_list",
        "futex", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue", "personality", "restart_syscall",
        "getcpu", "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getattr", "sched_setattr",
        "sched_getparam", "sched_setparam", "sched_getscheduler", "sched_setscheduler", "sched_get_priority_max",
        "sched_get_priority_min", "sched_rr_get_interval", "getpriority", "setpriority", "ioprio_get", "ioprio_set",
        "getrlimit", "setrlimit", "prlimit64", "getrusage", "times", "sysinfo", "uname", "getrandom",
        "process_mrelease", "uretprobe",
    ]),
    // Signals.
    Group(None, &[
        "kill", "tkill", "tgkill", "pause", "alarm", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
        "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack",
        "signalfd", "signalfd4", "pidfd_open", "pidfd_send_signal",
    ]),
    // Time: reading it, timers, sleep. The kernel asks for CAP_SYS_TIME where adjtimex does more than read.
    Group(None, &[
        "time", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "getitimer",
        "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
        "timerfd_create", "timerfd_gettime", "timerfd_settime", "adjtimex", "clock_adjtime",
    ]),
    // Users, groups and capabilities: giving up what one has is how programs protect themselves.
    Group(None, &[
        "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid", "setgid", "setreuid",
        "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capget", "capset",
    ]),
    // Sockets.
    Group(None, &[
        "socket", "socketpair", "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername",
        "getsockopt", "setsockopt", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "shutdown",
    ]),
    // System V IPC and message queues, which are the pod's own.
    Group(None, &[
        "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink",
        "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    ]),
    // What a program confines itself further with.
    Group(None, &[
        "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "lsm_get_self_attr",
        "lsm_set_self_attr", "lsm_list_modules",
    ]),
    // Debuggers: since Linux 4.8 a traced process is filtered after its tracer has changed the call, not before.
    Group(None, &["ptrace", "process_vm_readv", "process_vm_writev"]),
    Group(Some("SYS_PTRACE"), &["kcmp", "pidfd_getfd", "process_madvise"]),
    // Namespaces, mounts, quotas: with CAP_SYS_ADMIN the kernel would carry them out.
    Group(Some("SYS_ADMIN"), &[
        "mount", "umount2", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig",
        "fsmount", "fspick", "statmount", "listmount", "setns", "unshare", "sethostname", "setdomainname", "quotactl",
        "quotactl_fd", "fanotify_init", "lookup_dcookie",
    ]),
    Group(Some("SYS_ADMIN"), &["bpf", "perf_event_open", "syslog"]),
    Group(Some("BPF"), &["bpf"]),
    Group(Some("PERFMON"), &["perf_event_open"]),
    Group(Some("SYSLOG"), &["syslog"]),
    Group(Some("SYS_CHROOT"), &["chroot"]),
    Group(Some("DAC_READ_SEARCH"), &["open_by_handle_at"]),
    Group(Some("SYS_BOOT"), &["reboot"]),
    Group(Some("SYS_MODULE"), &["init_module", "finit_module", "delete_module"]),
    Group(Some("SYS_PACCT"), &["acct"]),
    Group(Some("SYS_RAWIO"), &["iopl", "ioperm"]),
    Group(Some("SYS_TIME"), &["settimeofday", "clock_settime"]),
    Group(Some("SYS_TTY_CONFIG"), &["vhangup"]),
    Group(Some("SYS_NICE"), &["get_mempolicy", "set_mempolicy", "set_mempolicy_home_node", "mbind"]),
];

/// The groups' calls by their numbers.
const SETS: [CallSet; GROUPS.len()] = sets();

#[expect(clippy::indexing_slicing, reason = "both have the same length")]
const fn sets() -> [CallSet; GROUPS.len()] {
    let mut sets = [CallSet::EMPTY; GROUPS.len()];
    let mut index = 0;
    while index < GROUPS.len() {
        sets[index] = CallSet::named(GROUPS[index].1);
        index += 1;
    }
    sets
}

/// The list for an app that keeps these capabilities.
pub fn rules(capabilities: CapabilitySet) -> Rules {
    let has = |capability: &Option<&str>| capability.is_none_or(|name| capabilities.contains(name));
    let sets = GROUPS.iter().zip(SETS).filter(|(Group(needs, _), _)| has(needs));
    let calls = sets.fold(CallSet::EMPTY, |all, (_, set)| all.union(set));
    let mut rules: Rules = calls.numbers().map(|number| (number, Rule::Allow)).collect();
    let namespaces = capabilities.contains("SYS_ADMIN");
    for (number, rule) in exceptions(namespaces) {
        if let Some(listed) = rules.get_mut(&number) {
            *listed = rule;
        }
    }
    rules
}

/// Calls of the list that are not allowed with every argument.
fn exceptions(namespaces: bool) -> impl Iterator<Item = (u32, Rule)> {
    /// Linux, and as setarch(8) asks for it: UNAME26, 32 bits, both; and asking what it is.
    const PERSONALITIES: [u32; 5] = [0, 0x0002_0000, 0x0008, 0x0002_0008, u32::MAX];
    /// The bits of CLONE_NEW*.
    const NAMESPACES: u32 = 0x7e02_0000;
    /// Sockets to the machine around a VM are no network of the pod's.
    const AF_VSOCK: u32 = 40;
    let test = |mask, values: &[u32], allows| {
        Rule::Test(ArgumentTest { argument: 0, mask, values: values.to_vec(), allows })
    };
    let always = [
        (const { resolve("personality") }, test(u32::MAX, &PERSONALITIES, true)),
        (const { resolve("socket") }, test(u32::MAX, &[AF_VSOCK], false)),
    ];
    // The flags of clone3 are in memory, where no filter sees them. The C library takes clone where there is no clone3.
    let without = [
        (const { resolve("clone") }, test(NAMESPACES, &[0], true)),
        (const { resolve("clone3") }, Rule::Refuse(Errno::ENOSYS)),
    ];
    always.into_iter().chain(without.into_iter().filter(move |_| !namespaces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::calls::{known, number};

    /// What nobody gets by default, and why.
    #[rustfmt::skip]
    const REFUSED: [(&str, &[&str]); 6] = [
        ("keys are not divided by namespaces", &["add_key", "request_key", "keyctl"]),
        ("its work is done by kernel threads, which no filter sees", &[
            "io_uring_setup", "io_uring_enter", "io_uring_register",
        ]),
        ("they are for whoever runs the machine", &[
            "kexec_load", "kexec_file_load", "swapon", "swapoff", "pivot_root", "nfsservctl", "migrate_pages", "move_pages",
        ]),
        ("it holds the kernel up while it reads memory, which makes races easy to win", &["userfaultfd"]),
        ("the kernel has no such call any more", &[
            "_sysctl", "create_module", "get_kernel_syms", "query_module", "getpmsg", "putpmsg", "afs_syscall", "tuxcall",
            "security", "vserver",
        ]),
        ("nobody has used them for decades", &["uselib", "ustat", "sysfs"]),
    ];

    #[test]
    fn every_known_call_has_its_place() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|Group(_, calls)| *calls).copied().collect();
        let refused: Vec<&str> = REFUSED.iter().flat_map(|(_, calls)| *calls).copied().collect();
        for (_, call) in known() {
            assert_eq!(listed.contains(&call), !refused.contains(&call), "{call}");
        }
        for call in listed.iter().chain(&refused) {
            assert!(number(call).is_some(), "{call}");
        }
    }

    #[test]
    fn no_call_stands_twice_for_one_capability() {
        let mut all: Vec<_> = GROUPS
            .iter()
            .flat_map(|Group(needs, calls)| calls.iter().map(move |call| (needs, call)))
            .collect();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), before);
    }

    #[test]
    fn capabilities_open_the_calls_that_they_are_for() {
        for Group(needs, calls) in GROUPS.iter().filter(|Group(needs, _)| needs.is_some()) {
            let only = CapabilitySet::named(needs.iter().copied()).unwrap();
            for call in *calls {
                let number = number(call).unwrap();
                assert!(!rules(CapabilitySet(0)).contains_key(&number), "{call}");
                assert_eq!(rules(only).get(&number), Some(&Rule::Allow), "{call}");
            }
        }
        let clone = number("clone").unwrap();
        assert!(matches!(rules(CapabilitySet(0))[&clone], Rule::Test(_)));
        assert_eq!(rules(CapabilitySet::ALL)[&clone], Rule::Allow);
    }
}
