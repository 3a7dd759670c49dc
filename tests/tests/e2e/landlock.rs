//! Landlock: what an app takes from itself. Its kernel is the host's, or the guest's, which has all of it.

use serde_json::json;

use crate::harness::{Aci, BUSYBOX, Finished, Host, Process, image, stage1};

/// What this kernel has; the guest's is known.
fn version() -> i64 {
    if stage1() == "kvm" {
        return 6;
    }
    const VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag, the call takes no attributes.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) }
}

/// Runs a script under rules; `None`, if the kernel cannot have them, which has to be said before anything is made.
fn under(host: &Host, options: &[&str], needed: i64, script: &str) -> Option<Finished> {
    let finished = Process::start(&mut host.shell(options, script)).finish();
    if version() >= needed {
        return Some(finished);
    }
    let finished = finished.exited(254);
    assert!(finished.stderr.contains("Landlock"), "{}", finished.stderr);
    assert!(host.pods().is_empty());
    None
}

const SHELL: &str = "execute=/bin,write=/dev/null";

#[test]
fn only_the_paths_that_are_listed_can_be_used() {
    let host = Host::new();
    let rules = format!("--landlock={SHELL},read=/etc,write=/tmp");
    let attempts = [
        ("cat /etc/group", "root:x:0:"),
        ("ls /etc", "group"),
        ("echo x >/tmp/x && mkdir /tmp/d && mv /tmp/x /tmp/d/y && cat /tmp/d/y && rm -r /tmp/d", "x"),
        ("cp /bin/busybox /tmp/sh && /tmp/sh true", "Permission denied"),
        ("echo x >>/etc/group", "Permission denied"),
        ("truncate -s 0 /etc/group", "Permission denied"),
        ("rm /etc/group", "Permission denied"),
        ("mkdir /etc/x", "Permission denied"),
        ("cat /srv/kept/file", "Permission denied"),
        ("ls /", "Permission denied"),
        ("cat /proc/self/status", "Permission denied"),
    ];
    let script: String =
        attempts.iter().map(|(attempt, _)| format!("({attempt}) 2>&1 | tr '\\n' ' '; echo\n")).collect();
    for user in ["--user=0", "--user=0 --insecure-options=image,seccomp"] {
        let options: Vec<&str> = user.split(' ').chain([rules.as_str()]).collect();
        let Some(finished) = under(&host, &options, 3, &script) else { return };
        let output = finished.success().text();
        assert_eq!(output.lines().count(), attempts.len(), "{output}");
        for ((attempt, reason), said) in attempts.iter().zip(output.lines()) {
            assert!(said.contains(reason), "{attempt}: {said}");
        }
    }
}

/// A program that may not be executed, or a rule for what is not there, ends the start.
#[test]
fn a_program_under_rules_that_forbid_it_does_not_start() {
    let host = Host::new();
    let cases =
        [("read=/", "Landlock rules, which have to let it"), ("execute=/bin,read=/nowhere", "/nowhere")];
    for (rules, expected) in cases {
        let option = format!("--landlock={rules}");
        let Some(finished) = under(&host, &["--user=1000", &option], 3, "exit 0") else { return };
        let finished = finished.exited(254);
        assert!(finished.stderr.contains(expected), "{rules}: {}", finished.stderr);
    }
}

/// An isolator of the image, and no flag; what enters the app is under the rules as well.
#[test]
fn ports_and_signals_are_kept_and_sessions_too() {
    let host = Host::empty();
    let rules = json!({ "connect": [], "bind": [7000], "scope": ["signal", "abstract-unix-socket"] });
    let isolator = json!({ "name": "os/linux/landlock", "value": rules });
    let wait = "echo ready; sleep 1000";
    let app = json!({ "exec": ["/bin/sh", "-c", wait], "user": "0", "group": "0", "isolators": [isolator] });
    let aci = Aci::new(app, &[]);
    let mut command = host.run(&[&aci.path()]);
    if version() < 6 {
        let finished = Process::start(&mut command).finish().exited(254);
        assert!(finished.stderr.contains("Landlock"), "{}", finished.stderr);
        return;
    }
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("ready");
    let script = "exec 2>&1\n\
        nc -l -p 7001 </dev/null\n\
        nc -l -p 7000 </dev/null >/dev/null & until grep -q :1B58 /proc/net/tcp*; do sleep .1; done; kill $! && echo bound\n\
        nc 127.0.0.1 7000 </dev/null\n\
        kill -0 1\n\
        sleep 1000 & kill $! && echo own";
    let mut enter = host.rkt();
    enter.args(["enter", &host.uuid(), "/bin/sh", "-c", script]);
    let output = Process::start(&mut enter).finish().success().text();
    let lines: Vec<&str> = output.lines().collect();
    let expected = ["bind: Permission denied", "bound", "Permission denied", "not permitted", "own"];
    assert_eq!(lines.len(), expected.len(), "{output}");
    lines.iter().zip(expected).for_each(|(line, part)| assert!(line.contains(part), "{line}: {output}"));
    pod.signal(nix::sys::signal::Signal::SIGKILL);
    pod.finish();
}

#[test]
fn rules_without_sense_are_refused() {
    for (rules, expected) in [
        ("", "restrict nothing"),
        ("reed=/", "reed"),
        ("read=etc", "absolute"),
        ("write=/a/../b", "absolute"),
        ("bind=http", "http"),
        ("scope=network", "network"),
    ] {
        let host = Host::new();
        let option = format!("--landlock={rules}");
        let mut command = host.run(&[&image(BUSYBOX), &option]);
        let finished = Process::start(&mut command).finish().exited(254);
        assert!(finished.stderr.contains(expected), "{rules}: {}", finished.stderr);
        assert!(host.pods().is_empty(), "{rules}");
    }
}
