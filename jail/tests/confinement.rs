//! Processes in a jail, and what becomes of those that try to leave it. It takes root.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;

use jail::filter::{Rule, When};
use jail::{Child, Jail, filter, fork};
use nix::poll::PollTimeout;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

const RULES: &[Rule] = &[
    Rule { call: libc::SYS_write, when: When::Always, why: "to report" },
    Rule { call: libc::SYS_read, when: When::Always, why: "to wait for the test" },
    Rule { call: libc::SYS_exit_group, when: When::Always, why: "to end" },
    Rule { call: libc::SYS_ioctl, when: When::OneOf(1, &[1, 2, 3]), why: "three of them" },
    Rule { call: libc::SYS_mprotect, when: When::Without(2, libc::PROT_EXEC as u32), why: "data only" },
];

/// Tests run side by side, but a child must not inherit the sockets of another's.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs `body` in a jail, with its end of a socket pair.
fn in_jail(body: impl FnOnce(UnixStream)) -> (Child, UnixStream) {
    let _alone = ALONE.lock();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Some(child) = fork().unwrap() else {
        let jail = Jail {
            mount_point: Path::new("/tmp"),
            user: Jail::user_of(1234),
            descriptors: &[theirs.as_raw_fd()],
            limits: &[(Resource::RLIMIT_CORE, 0)],
        };
        jail.enter().unwrap();
        body(theirs);
        // SAFETY: the process ends, with nothing to clean up.
        unsafe { libc::_exit(0) };
    };
    (child, ours)
}

fn end_of(mut child: Child) -> WaitStatus {
    child.wait(PollTimeout::NONE).unwrap().unwrap()
}

#[test]
fn nothing_is_within_reach() {
    let (child, mut ours) = in_jail(|mut theirs| {
        theirs.write_all(&[u8::from(fs::read_dir("/").is_err() && fs::File::create("/x").is_err())]).unwrap();
        let _ = theirs.read(&mut [0]);
    });
    let mut empty = [0];
    ours.read_exact(&mut empty).unwrap();
    assert_eq!(empty, [1]);
    let home = format!("/proc/{}", child.pid());
    let status = fs::read_to_string(format!("{home}/status")).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Groups:"), "");
    let user = Jail::user_of(1234).to_string();
    assert!(field("Uid:").split_whitespace().all(|id| id == user));
    assert!(field("Gid:").split_whitespace().all(|id| id == user));
    for namespace in ["pid", "mnt", "net", "ipc", "uts"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of("self"), of(&child.pid().to_string()), "{namespace}");
    }
    assert_eq!(fs::read_dir(format!("{home}/fd")).unwrap().count(), 1);
    let mounts = fs::read_to_string(format!("{home}/mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    drop(ours);
    assert!(matches!(end_of(child), WaitStatus::Exited(_, 0)));
}

/// What becomes of a process that has the filter and makes `call`; and the number that it has reported.
fn attempt(call: impl FnOnce()) -> (WaitStatus, Vec<u8>) {
    let (child, mut ours) = in_jail(|theirs| {
        filter::report_to(OwnedFd::from(theirs)).unwrap();
        filter::install(RULES).unwrap();
        call();
        // SAFETY: the process ends, with nothing to clean up.
        unsafe { libc::_exit(0) };
    });
    let mut report = Vec::new();
    ours.read_to_end(&mut report).unwrap();
    (end_of(child), report)
}

#[test]
fn a_call_that_is_not_in_the_table_ends_the_process_and_is_told() {
    let calls: [(libc::c_long, [libc::c_long; 3]); 8] = [
        (libc::SYS_openat, [-100, 0, 0]),
        (libc::SYS_socket, [1, 1, 0]),
        (libc::SYS_execve, [0, 0, 0]),
        (libc::SYS_ptrace, [0, 1, 0]),
        (libc::SYS_kill, [-1, 9, 0]),
        (libc::SYS_process_vm_readv, [1, 0, 0]),
        (libc::SYS_ioctl, [0, 4, 0]),
        (libc::SYS_mprotect, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as libc::c_long]),
    ];
    for (call, [first, second, third]) in calls {
        // SAFETY: with these arguments, none of the calls would reach memory, were it made.
        let (end, report) = attempt(|| unsafe {
            libc::syscall(call, first, second, third, 0, 0, 0);
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{call}: {end:?}");
        assert_eq!(report, (call as i32).to_le_bytes(), "{call}");
    }
}

#[test]
fn what_is_in_the_table_goes_on() {
    // SAFETY: an ioctl of no descriptor and a protection of nothing.
    let (end, report) = attempt(|| unsafe {
        libc::ioctl(-1, 3);
        libc::syscall(libc::SYS_mprotect, 0, 0, libc::PROT_READ);
    });
    assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?} {report:?}");
}

#[test]
fn it_is_killed_with_its_handle() {
    let (child, ours) = in_jail(|mut theirs| {
        let _ = theirs.read(&mut [0]);
    });
    let pid = child.pid();
    drop(child);
    assert!(fs::metadata(format!("/proc/{pid}")).is_err());
    drop(ours);
}
