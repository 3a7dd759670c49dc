//! Ways out that runtimes have had, tried from inside. In a VM the supervisor and the devices are the guest's, and as much
//! out of reach.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::json;
use tar::EntryType;

use crate::harness::{Aci, BUSYBOX, DEBIAN, Entry, Finished, Host, Process, effort, image, rkt, stage1};

fn with(options: &[&str], script: &str) -> Finished {
    Process::start(&mut Host::new().shell(options, script)).finish()
}

/// CVE-2019-5736: a program of the host that runs in the pod, be it for a moment, is written to.
#[test]
fn our_own_program_cannot_be_overwritten() {
    let host = Host::empty();
    let attack = "while [ ! -e /run/stop ]; do for p in /proc/[0-9]*; do \
        case $p in /proc/$$) continue;; esac; (: >>$p/exe) 2>>/run/log && [ \"$(readlink $p/exe)\" != /bin/busybox ] && \
        echo $p written >>/run/written; done; done; cat /run/written 2>/dev/null; echo over";
    let app =
        json!({ "exec": ["/bin/sh", "-c", format!("echo ready; {attack}")], "user": "0", "group": "0" });
    let aci = Aci::new(app, &[Entry::program("entry", b"#!/proc/self/exe\n")]);
    let binary = rkt().with_file_name(format!("stage1-{}", stage1()));
    let before = fs::read(&binary).unwrap();
    let mut pod = Process::start(&mut host.run(&[&aci.path()]));
    pod.wait_for_line("ready");
    if stage1() == "nspawn" {
        let flags = statvfs(format!("/proc/{}/exe", pod.pid()).as_str()).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_RDONLY), "{flags:?}");
    }
    let uuid = host.uuid();
    for _ in 0..5 {
        // In the pod the script's interpreter is the program that executes it.
        Process::start(host.rkt().args(["enter", &uuid, "/entry"])).finish();
    }
    Process::start(host.rkt().args(["enter", &uuid, "/bin/touch", "/run/stop"])).finish().success();
    assert_eq!(pod.finish().success().text(), "over\n");
    assert!(fs::read(&binary).unwrap() == before);
}

#[test]
fn an_image_whose_program_is_whoever_executes_it() {
    let host = Host::empty();
    for exec in ["/proc/self/exe", "/entry"] {
        let app = json!({ "exec": [exec], "user": "0", "group": "0" });
        let aci = Aci::new(app, &[Entry::program("entry", b"#!/proc/self/exe\n")]);
        let finished = Process::start(&mut host.run(&[&aci.path()])).finish();
        // A guest's init, on its read-only root, has nothing to do in an app, and says so.
        let is_harmless = finished.code != 0 || finished.stderr.contains("Operation not permitted");
        assert!(is_harmless, "{exec}: {}", finished.stderr);
    }
}

/// CVE-2024-21626: a directory of the host that is left open, and a working directory that is it.
#[test]
fn no_descriptor_of_the_host() {
    let directory = fs::File::open("/").unwrap();
    let inherited = 9;
    let host = Host::new();
    let rkt = |options: &[&str], script: &str| {
        let mut shell = host.shell(options, script);
        let words: Vec<_> = std::iter::once(shell.get_program())
            .chain(shell.get_args())
            .map(|word| word.to_owned())
            .collect();
        let mut command = Command::new("sh");
        let open = format!(
            "exec {inherited}</proc/{}/fd/{}; exec \"$@\"",
            std::process::id(),
            directory.as_raw_fd()
        );
        command.args(["-c", &open, "sh"]).args(words);
        shell = command;
        Process::start(&mut shell).finish()
    };
    let listed = rkt(&[], "ls /proc/$$/fd; :").success().text();
    assert_eq!(listed, "0\n1\n2\n");
    for number in 3..20 {
        let option = format!("--working-dir=/proc/self/fd/{number}");
        let finished = rkt(&[&option], "pwd; ls").exited(254);
        assert!(finished.stderr.contains(&format!("/proc/self/fd/{number}")), "{}", finished.stderr);
        if stage1() == "kvm" {
            // Nothing of the host's is in a guest; one will do.
            break;
        }
    }
}

#[test]
fn an_entered_command_has_no_descriptor_either() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], "echo ready; read line; sleep 1000"));
    pod.wait_for_line("ready");
    let script = "ls /proc/$$/fd; ls -l /proc/1/fd /proc/1/root/ 2>&1";
    let finished = Process::start(host.rkt().args(["enter", &host.uuid(), "sh", "-c", script])).finish();
    let output = finished.text();
    assert!(output.starts_with("0\n1\n2\n"), "{output}");
    assert!(output.contains("/proc/1/root/: Permission denied") && !output.contains(" -> "), "{output}");
    pod.signal(Signal::SIGTERM);
    pod.finish();
}

/// CVE-2021-30465: who has a volume swaps a directory on it for a link, while another volume is mounted below that.
#[test]
fn a_race_for_a_mount_target() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["shared/up", "outside", "mounted"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("mounted/mark"), "").unwrap();
    // Through the host's root, by whatever way it could be reached; and to itself, for a walk that begins at the volume.
    symlink(at("outside"), at("shared/link")).unwrap();
    let over = AtomicBool::new(false);
    let runs = effort(40, 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = RenameFlags::RENAME_EXCHANGE;
            while !over.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &at("shared/up"), AT_FDCWD, &at("shared/link"), exchange).unwrap();
            }
        });
        let host = Host::new();
        let volume =
            |name: &str, source| format!("--volume={name},kind=host,source={}", at(source).display());
        let (shared, mounted) = (volume("shared", "shared"), volume("mounted", "mounted"));
        for _ in 0..runs {
            let mut command =
                host.run(&[&shared, &mounted, &image(BUSYBOX), "--mount=volume=shared,target=/s"]);
            command.args([
                "--mount=volume=mounted,target=/s/up/made",
                "--exec=/bin/sh",
                "--",
                "-c",
                "exit 0",
            ]);
            let finished = Process::start(&mut command).finish();
            assert!(matches!(finished.code, 0 | 254), "{}: {}", finished.code, finished.stderr);
            assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 0, "made on the host");
            host.collect_garbage().success();
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Nodes that come with an image are as much use as those that are made.
#[test]
fn devices_of_the_image() {
    let node = |path, kind, content| Entry { path, kind, mode: 0o666, owner: (0, 0), content };
    let entries = [
        node("kmsg", EntryType::Char, b"1:11"),
        node("kvm", EntryType::Char, b"10:232"),
        node("disk", EntryType::Block, b"254:0"),
        node("loop", EntryType::Block, b"7:0"),
    ];
    let script = "for d in kmsg kvm disk loop; do (: </$d) 2>&1 && echo opened $d; (: >>/$d) 2>&1 && echo opened $d; done; \
        mknod /tmp/kmsg c 1 11 && (: </tmp/kmsg) 2>&1; echo over";
    let aci = Aci::new(json!({ "exec": ["/bin/sh", "-c", script], "user": "0", "group": "0" }), &entries);
    let host = Host::empty();
    let output = Process::start(&mut host.run(&[&aci.path()])).finish().success().text();
    assert!(!output.contains("opened") && output.ends_with("over\n"), "{output}");
    assert!(output.matches("ermi").count() >= 9, "{output}");
}

/// ptrace(2), and its like, of the supervisor.
#[test]
fn the_supervisor_is_not_traced() {
    let host = Host::with_images(&[DEBIAN]);
    let program = "import ctypes,os\n\
        c=ctypes.CDLL(None,use_errno=True)\n\
        for r in (16,0x4206): print(c.ptrace(r,1,0,0),ctypes.get_errno())\n\
        for f in ('mem','environ','maps'):\n\
        \x20try: print(f,open('/proc/1/'+f,'rb').read(1))\n\
        \x20except OSError as e: print(f,e.errno)\n";
    let mut command = host.run(&[&image(DEBIAN), "--exec=/usr/bin/python3", "--", "-c", program]);
    let output = Process::start(&mut command).finish().success().text();
    assert_eq!(output, "-1 1\n-1 1\nmem 13\nenviron 13\nmaps 13\n");
}

/// Keys are not divided by namespaces: an app that may make every call still has none of whoever started the pod.
#[test]
fn no_key_of_the_callers() {
    const NAME: &CStr = c"rkt-test";
    let host = Host::with_images(&[DEBIAN]);
    let program = "import ctypes\n\
        c=ctypes.CDLL(None,use_errno=True)\n\
        for ring in (-3,-4,-5): print(c.syscall(250,10,ring,b'user',b'rkt-test',0)<0)\n\
        print(c.syscall(249,b'user',b'rkt-test',None,-3)<0)\n";
    let seccomp = "--seccomp=mode=retain,@appc.io/all";
    let mut command = host.run(&[&image(DEBIAN), seccomp, "--exec=/usr/bin/python3", "--", "-c", program]);
    let keys = || {
        let (kind, payload) = (c"user", "secret");
        // SAFETY: numbers, and strings that outlive the calls. All three act on this process, which is about to execute.
        let found = unsafe {
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0);
            let session = libc::KEY_SPEC_SESSION_KEYRING;
            let (kind, name) = (kind.as_ptr(), NAME.as_ptr());
            libc::syscall(libc::SYS_add_key, kind, name, payload.as_ptr(), payload.len(), session);
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SEARCH, session, kind, name, 0)
        };
        if found > 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it makes system calls and nothing else.
    unsafe { command.pre_exec(keys) };
    assert_eq!(Process::start(&mut command).finish().success().text(), "True\n".repeat(4));
}

#[test]
fn nobody_in_the_pod_ends_its_supervisor() {
    let script = "for s in KILL TERM INT SEGV STOP; do kill -$s 1; done; sleep 0.2; echo here; exit 7";
    let finished = with(&[], script).exited(7);
    assert!(finished.text().ends_with("here\n"), "{}", finished.text());
}

/// It gets as many processes as it may have, the neighbour lives on, and the pod can be ended.
#[test]
fn a_fork_bomb() {
    let host = Host::new();
    let bomb = "f() { f | f & }; f 2>/dev/null; sleep 1000";
    let busybox = image(BUSYBOX);
    let mut command =
        host.run(&[&busybox, "--name=bomb", "--pids=64", "--exec=/bin/sh", "--", "-c", bomb, "---"]);
    // As many processes as the other may not have any more.
    let other = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i + 1)); done; echo ready; sleep 1000";
    command.args([&busybox, "--name=other", "--exec=/bin/sh", "--", "-c", other]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("other: ready");
    pod.signal(Signal::SIGTERM);
    pod.signal(Signal::SIGTERM);
    pod.finish();

    let count = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i + 1)); done; echo all";
    let finished = with(&["--pids=20"], count);
    assert!(finished.code != 0 && finished.stderr.contains("can't fork"), "{}", finished.stderr);
    for (limit, word) in [("0", "from 1"), ("-1", "invalid"), ("5000000", "from 1")] {
        let finished = with(&[&format!("--pids={limit}")], "exit 0").exited(254);
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
}

/// What is not on a disk is memory, and limited as such.
#[test]
fn file_systems_in_memory_end() {
    let finished = with(
        &["--memory=64Mi"],
        "head -c 1M /dev/zero >/dev/fill; echo $?; exec dd if=/dev/zero of=/dev/shm/fill bs=1M",
    );
    assert_eq!(finished.text(), "1\n");
    assert!(
        finished.code == 137 || finished.stderr.contains("No space left"),
        "{}: {}",
        finished.code,
        finished.stderr
    );
}
