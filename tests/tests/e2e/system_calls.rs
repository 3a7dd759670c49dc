//! What a pod's filters do, call by call, as a program in the pod sees it: against the list that the user's docs have.

use std::collections::BTreeMap;

use pod::seccomp::calls::{known, number};
use serde_json::{Value, json};

use crate::harness::{Aci, Entry, Host, Process, stage1};

/// `tests/src/calls`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_calls");
const DOCUMENTED: &str = include_str!("../../../docs/system-calls.md");

/// Far beyond the last number, and the same of the x32 ABI.
const NUMBERS: &str = "0-1023";
const X32: &str = "1073741824-1073742847";

const EPERM: &str = "errno 1";
const ENOSYS: &str = "errno 38";
const ALLOWED: &str = "allowed";
/// uretprobe and uprobe, which younger kernels do not ask filters about: they are traps that the kernel itself has placed in a
/// program, and fail anywhere else.
const NEVER_FILTERED: [&str; 2] = ["335", "336"];
/// SIGSYS.
const KILLED: &str = "killed 31";

/// The verdicts on these calls, by the words that ask for them.
fn verdicts(isolators: Value, calls: &[&str]) -> BTreeMap<String, String> {
    let exec: Vec<&str> = [&["/calls"], calls].concat();
    let app = json!({ "exec": exec, "user": "0", "group": "0", "isolators": isolators });
    let aci = Aci::new(app, &[Entry::program("calls", &std::fs::read(PROGRAM).unwrap())]);
    let host = Host::empty();
    let output = Process::start(&mut host.run(&[&aci.path()])).finish().success().text();
    let parted = output.lines().map(|line| line.split_once(' ').unwrap());
    parted
        .filter(|(call, _)| !NEVER_FILTERED.contains(call))
        .map(|(call, verdict)| (call.to_owned(), verdict.to_owned()))
        .collect()
}

/// The rows of the section with this heading: what is in the first column, and the names in the second.
fn section(heading: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let begin = DOCUMENTED.find(&format!("\n## {heading}\n")).unwrap();
    let section = DOCUMENTED[begin + 4..].split("\n## ").next().unwrap();
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.filter(|(_, calls)| calls.starts_with('`'))
        .map(|(first, calls)| {
            (first.trim_matches('`'), calls.split(' ').map(|call| call.trim_matches('`')).collect())
        })
        .collect()
}

/// What the docs say of each number, without an argument, for an app that keeps these capabilities.
fn documented(capabilities: &[&str]) -> BTreeMap<String, String> {
    let mut verdicts: BTreeMap<String, &str> = (0..1024).map(|number| (number.to_string(), ENOSYS)).collect();
    let mut say = |calls: Vec<&str>, verdict| {
        for call in calls {
            let number = number(call).unwrap_or_else(|| panic!("{call} is no call"));
            let before = verdicts.insert(number.to_string(), verdict);
            assert!(verdict == ALLOWED || before == Some(ENOSYS), "{call} stands twice");
        }
    };
    section("No app").into_iter().for_each(|(_, calls)| say(calls, EPERM));
    let by_capability = section("Apps that keep a capability");
    let (kept, others): (Vec<_>, Vec<_>) =
        by_capability.into_iter().partition(|(capability, _)| capabilities.contains(capability));
    // One that several capabilities open stands with each of them.
    let mut refused: Vec<&str> = others.into_iter().flat_map(|(_, calls)| calls).collect();
    refused.sort_unstable();
    refused.dedup();
    say(refused, EPERM);
    kept.into_iter().chain(section("Every app")).for_each(|(_, calls)| say(calls, ALLOWED));
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        verdicts.insert(number("clone3").unwrap().to_string(), ENOSYS);
    }
    verdicts.retain(|call, _| !NEVER_FILTERED.contains(&call.as_str()));
    verdicts.into_iter().map(|(call, verdict)| (call, verdict.to_owned())).collect()
}

fn assert_same(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>, of: &str) {
    let names: BTreeMap<String, &str> = known().map(|(number, name)| (number.to_string(), name)).collect();
    let different: Vec<String> = wanted
        .iter()
        .filter(|(call, wanted)| found.get(*call) != Some(wanted))
        .map(|(call, wanted)| format!("{call} {:?}: {:?}, not {wanted}", names.get(call), found.get(call)))
        .collect();
    assert!(different.is_empty(), "{of}: {different:#?}");
}

#[test]
fn the_documented_calls_are_allowed_and_no_others() {
    const DEFAULT: [&str; 14] = [
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETFCAP",
        "CAP_SYS_CHROOT",
    ];
    let every: Vec<&str> = section("Apps that keep a capability").into_iter().map(|(name, _)| name).collect();
    let one = ["CAP_SYS_TIME"];
    for (retained, capabilities) in
        [(None, &DEFAULT[..]), (Some(&one[..]), &one[..]), (Some(&every[..]), &every[..])]
    {
        let isolators = match retained {
            None => json!([]),
            Some(set) => json!([{ "name": "os/linux/capabilities-retain-set", "value": { "set": set } }]),
        };
        let found = verdicts(isolators, &[NUMBERS, X32]);
        let x32 = (1 << 30..(1 << 30) + 1024).map(|number: u64| (number.to_string(), ENOSYS.to_owned()));
        let mut wanted = documented(capabilities);
        wanted.extend(x32);
        assert_eq!(found.len(), wanted.len());
        assert_same(&found, &wanted, &format!("{capabilities:?}"));
    }
}

/// In the docs in words: calls that depend on their argument, of which the kernel looks at 32 bits.
#[test]
fn arguments_that_are_refused() {
    let namespaces =
        [0x80, 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let high = 1u64 << 32;
    let of = |name: &str, argument: u64| format!("{}={argument}", number(name).unwrap());
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for flag in &namespaces[1..] {
        // As fork does, SIGCHLD beside it.
        wanted.insert(of("clone", flag | 17), EPERM.into());
        wanted.insert(of("clone", flag | high), EPERM.into());
    }
    // Of a thread and a fork; CLONE_NEWTIME's bit is the signal's in this call.
    for flags in [0x003d_0f00, 0x0120_0011, namespaces[0]] {
        wanted.insert(of("clone", flags), ALLOWED.into());
    }
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        wanted.insert(of("personality", persona), ALLOWED.into());
    }
    for persona in [0x4_0000, 0x40_0000, 1, 0x2_0009] {
        wanted.insert(of("personality", persona), EPERM.into());
    }
    for family in [1, 2, 10, 16, 17] {
        wanted.insert(of("socket", family), ALLOWED.into());
    }
    wanted.extend([40, 40 | high].map(|family| (of("socket", family), EPERM.into())));
    let asked: Vec<&str> = wanted.keys().map(String::as_str).collect();
    assert_same(&verdicts(json!([]), &asked), &wanted, "arguments");
}

/// The numbers of 32-bit programs mean other calls: whoever makes one ends, even in a 64-bit program. A kernel without
/// them ends it as well.
#[test]
fn calls_of_32_bit_programs_end_their_process() {
    let found = verdicts(json!([]), &["i386:0-3", "i386:20", "39"]);
    for call in ["0", "1", "2", "3", "i386:20"] {
        let is_killed = found[call] == KILLED || (stage1() == "kvm" && found[call] == "killed 11");
        assert!(is_killed, "{call}: {found:?}");
    }
    assert_eq!(found["39"], ALLOWED, "the next process is made and goes on");
}

/// The sets of an image (appc spec): what is in a remove-set is blocked and nothing else is; of a retain-set the reverse.
#[test]
fn sets_of_an_image_block_what_they_say() {
    let (mkdir, reboot) = (number("mkdir").unwrap().to_string(), number("reboot").unwrap().to_string());
    for (errno, verdict) in [(None, KILLED), (Some("ENOTSUP"), "errno 95")] {
        let isolator = |name: &str, set: &[&str]| {
            let mut value = json!({ "set": set });
            if let Some(errno) = errno {
                value["errno"] = json!(errno);
            }
            json!([{ "name": format!("os/linux/seccomp-{name}-set"), "value": value }])
        };
        let found = verdicts(isolator("remove", &["mkdir", "reboot"]), &["0-460", "1073741824-1073741830"]);
        for (call, said) in &found {
            let wanted = match call.as_str() {
                call if call == mkdir || call == reboot => verdict,
                call if call.len() > 4 => ENOSYS,
                _ => ALLOWED,
            };
            assert_eq!(said, wanted, "{call}");
        }
        // What the program needs itself, and two that it does not.
        let own = [
            "read",
            "write",
            "mmap",
            "munmap",
            "mprotect",
            "brk",
            "rt_sigaction",
            "rt_sigprocmask",
            "sigaltstack",
            "poll",
            "fcntl",
            "ioctl",
            "prctl",
            "arch_prctl",
            "ptrace",
            "wait4",
            "clone",
            "fork",
            "getpid",
            "gettid",
            "tgkill",
            "tkill",
            "kill",
            "set_tid_address",
            "set_robust_list",
            "rseq",
            "prlimit64",
            "getrandom",
            "futex",
            "sched_getaffinity",
            "readlink",
            "newfstatat",
            "fstat",
            "close",
            "openat",
            "seccomp",
            "exit",
            "exit_group",
            "execve",
            "rt_sigreturn",
            "reboot",
            "swapon",
        ];
        let kept: Vec<String> = own.iter().map(|name| number(name).unwrap().to_string()).collect();
        let found = verdicts(isolator("retain", &own), &["0-460"]);
        for (call, said) in &found {
            assert_eq!(said, if kept.contains(call) { ALLOWED } else { verdict }, "{call}");
        }
    }
}
