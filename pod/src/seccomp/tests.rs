//! What compiled filters answer, found by carrying them out.

use std::collections::BTreeMap;

use super::program::Instruction;
use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// A system call as a filter sees it.
#[derive(Clone, Copy)]
struct Call {
    number: u32,
    architecture: u32,
    argument: u64,
}

fn call(name: &str, argument: u64) -> Call {
    Call { number: number(name).unwrap(), architecture: X86_64, argument }
}

/// Carries a program out as the kernel does (net/core/filter.c).
fn answer(program: &[Instruction], call: Call) -> Action {
    let (mut accumulator, mut next) = (0, 0);
    loop {
        let Instruction { code, if_true, if_false, operand } = program[next];
        next += 1;
        let branch = |taken: bool| usize::from(if taken { if_true } else { if_false });
        match code {
            0x20 => {
                accumulator = match operand {
                    0 => call.number,
                    4 => call.architecture,
                    16 => call.argument as u32,
                    offset => panic!("loads {offset}"),
                }
            }
            0x54 => accumulator &= operand,
            0x05 => next += operand as usize,
            0x15 => next += branch(accumulator == operand),
            0x35 => next += branch(accumulator >= operand),
            0x06 => return action(operand),
            code => panic!("operation {code:#x}"),
        }
    }
}

fn action(result: u32) -> Action {
    match (result & 0xffff_0000, result & 0xffff) {
        (0x8000_0000, 0) => Action::Kill,
        (0x7fff_0000, 0) => Action::Allow,
        (0x0005_0000, errno) => Action::Errno(serde_json::from_str(&errno.to_string()).unwrap()),
        _ => panic!("returns {result:#x}"),
    }
}

fn filter(isolator: Option<(&str, serde_json::Value)>, capabilities: CapabilitySet) -> Option<Filter> {
    let raw = isolator.map(|(name, value)| crate::isolator::RawIsolator { name: name.into(), value });
    let isolators: Vec<Isolator> = raw.iter().map(|raw| Isolator::try_from(raw).unwrap()).collect();
    of_isolators(&isolators, capabilities).unwrap()
}

fn retain(value: serde_json::Value) -> Vec<Instruction> {
    filter(Some(("os/linux/seccomp-retain-set", value)), CapabilitySet(0)).unwrap().program()
}

fn remove(value: serde_json::Value) -> Vec<Instruction> {
    filter(Some(("os/linux/seccomp-remove-set", value)), CapabilitySet(0)).unwrap().program()
}

fn default(capabilities: CapabilitySet) -> Vec<Instruction> {
    filter(None, capabilities).unwrap().program()
}

const EPERM: Action = Action::Errno(Errno::EPERM);
const ENOSYS: Action = Action::Errno(Errno::ENOSYS);

/// Every call that there is or may come, with its answer.
fn answers(program: &[Instruction]) -> BTreeMap<u32, Action> {
    let answer = |number| answer(program, Call { number, architecture: X86_64, argument: 0 });
    (0..1000).map(|number| (number, answer(number))).collect()
}

#[test]
fn the_default_is_the_list_call_by_call() {
    for capabilities in [CapabilitySet(0), CapabilitySet::of_isolators(&[]).unwrap(), CapabilitySet::ALL] {
        let rules = default::rules(capabilities);
        let numbers: BTreeMap<u32, &str> = known().collect();
        for (number, answer) in answers(&default(capabilities)) {
            let expected = match (numbers.get(&number), rules.get(&number)) {
                (None, _) => ENOSYS,
                (Some(_), None) => EPERM,
                (Some(_), Some(Rule::Refuse(errno))) => Action::Errno(*errno),
                (Some(_), Some(Rule::Allow | Rule::Test(_))) => Action::Allow,
            };
            assert_eq!(answer, expected, "{number}");
        }
    }
}

#[test]
fn arguments_of_the_default() {
    let (little, much) = (default(CapabilitySet(0)), default(CapabilitySet::ALL));
    for (name, argument, without, with) in [
        ("clone", 0x0100_0011, Action::Allow, Action::Allow),
        ("clone", 0x1000_0011, EPERM, Action::Allow),
        ("clone", 0x0002_0000, EPERM, Action::Allow),
        ("clone", 0x0200_0000, EPERM, Action::Allow),
        ("clone3", 0, ENOSYS, Action::Allow),
        ("unshare", 0, EPERM, Action::Allow),
        ("mount", 0, EPERM, Action::Allow),
        ("personality", 0xffff_ffff, Action::Allow, Action::Allow),
        ("personality", 0x0004_0000, EPERM, EPERM),
        ("socket", 2, Action::Allow, Action::Allow),
        ("socket", 40, EPERM, EPERM),
        // The kernel takes an int.
        ("socket", 0xdead_0000_0000_0028, EPERM, EPERM),
        ("keyctl", 0, EPERM, EPERM),
    ] {
        assert_eq!(answer(&little, call(name, argument)), without, "{name} {argument:#x}");
        assert_eq!(answer(&much, call(name, argument)), with, "{name} {argument:#x}");
    }
}

#[test]
fn no_way_around_by_another_abi() {
    let programs = [
        default(CapabilitySet::ALL),
        retain(serde_json::json!({"set": ["read"]})),
        remove(serde_json::json!({"set": ["mkdir"], "errno": "EXDEV"})),
    ];
    for program in programs {
        for number in 0..1000 {
            let x32 = Call { number: number | 0x4000_0000, architecture: X86_64, argument: 0 };
            assert_eq!(answer(&program, x32), ENOSYS, "{number}");
            let i386 = Call { number, architecture: I386, argument: 0 };
            assert_eq!(answer(&program, i386), Action::Kill, "{number}");
        }
        let none = Call { number: u32::MAX, architecture: X86_64, argument: 0 };
        assert_eq!(answer(&program, none), ENOSYS);
    }
}

#[test]
fn a_retain_set_is_all_that_is_left() {
    let errno: Errno = "EXDEV".parse().unwrap();
    for (value, refusal) in [
        (serde_json::json!({"set": ["read", "clone", "mmap2"]}), Action::Kill),
        (serde_json::json!({"set": ["read", "clone"], "errno": "EXDEV"}), Action::Errno(errno)),
    ] {
        let allowed: Vec<u32> = ["read", "clone", "execve", "exit", "exit_group", "rt_sigreturn"]
            .into_iter()
            .filter_map(number)
            .collect();
        let program = retain(value);
        for (number, answer) in answers(&program) {
            let expected = if allowed.contains(&number) { Action::Allow } else { refusal };
            assert_eq!(answer, expected, "{number}");
        }
        assert_eq!(
            answer(&program, call("clone", 0x1000_0011)),
            Action::Allow,
            "named, and so without a test"
        );
    }
}

#[test]
fn a_remove_set_is_all_that_is_refused() {
    let program = remove(serde_json::json!({"set": ["mkdir", "mkdirat", "umount"], "errno": "ENOSPC"}));
    let removed = [number("mkdir").unwrap(), number("mkdirat").unwrap()];
    for (number, answer) in answers(&program) {
        let refused = Action::Errno("ENOSPC".parse().unwrap());
        assert_eq!(answer, if removed.contains(&number) { refused } else { Action::Allow }, "{number}");
    }
    let killing = remove(serde_json::json!({"set": ["mkdir"]}));
    assert_eq!(answer(&killing, call("mkdir", 0)), Action::Kill);
}

#[test]
fn lists() {
    let answer_to = |program: &[Instruction], name| answer(program, call(name, 0));
    for scope in ["rkt", "docker"] {
        let whitelist = format!("@{scope}/default-whitelist");
        let program = retain(serde_json::json!({"set": [whitelist, "mount"]}));
        assert_eq!(answer_to(&program, "mkdir"), Action::Allow);
        assert_eq!(answer_to(&program, "mount"), Action::Allow);
        assert_eq!(answer_to(&program, "umount2"), Action::Kill);
        assert_eq!(answer_to(&program, "clone3"), ENOSYS);
        let program = retain(serde_json::json!({"set": ["clone", whitelist]}));
        assert_eq!(answer(&program, call("clone", 0x1000_0011)), Action::Allow);

        let blacklist = format!("@{scope}/default-blacklist");
        let program = remove(serde_json::json!({"set": [blacklist, "socket"], "errno": "EPERM"}));
        assert_eq!(answer_to(&program, "mkdir"), Action::Allow);
        assert_eq!(answer_to(&program, "mount"), EPERM);
        assert_eq!(answer_to(&program, "socket"), EPERM);
        assert_eq!(answer(&program, call("clone", 0x1000_0011)), EPERM);
        assert_eq!(answer(&program, call("clone", 0x11)), Action::Allow);
        let program = retain(serde_json::json!({"set": [blacklist]}));
        assert_eq!(
            (answer_to(&program, "mount"), answer_to(&program, "mkdir")),
            (Action::Allow, Action::Kill)
        );
    }
    let all = Some(("os/linux/seccomp-retain-set", serde_json::json!({"set": ["@appc.io/all"]})));
    assert_eq!(filter(all, CapabilitySet(0)), None);
    let empty = |value| filter(Some(("os/linux/seccomp-remove-set", value)), CapabilitySet(0));
    assert_eq!(empty(serde_json::json!({"set": ["@appc.io/empty"]})), filter(None, CapabilitySet(0)));
    let program = empty(serde_json::json!({"set": ["@appc.io/empty"], "errno": "ENOSYS"})).unwrap().program();
    assert_eq!((answer_to(&program, "mkdir"), answer_to(&program, "mount")), (Action::Allow, ENOSYS));
}

#[test]
fn sets_that_make_no_sense() {
    let isolator = |value: serde_json::Value| {
        let name = "os/linux/seccomp-remove-set".into();
        let isolator = Isolator::try_from(&crate::isolator::RawIsolator { name, value });
        isolator.and_then(|isolator| of_isolators(&[isolator], CapabilitySet(0)))
    };
    for (value, expected) in [
        (serde_json::json!({"set": ["execve"]}), "cannot be started"),
        (serde_json::json!({"set": ["@appc.io/all"]}), "cannot be started"),
        (serde_json::json!({"set": ["@rkt/default-whitelist"]}), "cannot be started"),
        (serde_json::json!({"set": []}), "is empty"),
        (serde_json::json!({"set": ["mkdri"]}), "\"mkdri\" is not the name of a system call"),
        (serde_json::json!({"set": ["@systemd/clock"]}), "@rkt/default-whitelist"),
        (serde_json::json!({"set": ["read"], "errno": "NO"}), "\"NO\" is not the name of an error"),
    ] {
        let error = isolator(value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The worst set, every other call, is still a program that the kernel takes (BPF_MAXINSNS), and it is small by default.
#[test]
fn programs_are_short() {
    let every_other: Vec<&str> = known().map(|(_, name)| name).step_by(2).collect();
    let program = retain(serde_json::json!({"set": every_other, "errno": "EPERM"}));
    assert!(program.len() <= 4096, "{}", program.len());
    assert!(default(CapabilitySet(0)).len() <= 256, "{}", default(CapabilitySet(0)).len());
}
