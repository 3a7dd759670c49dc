//! A filter as the kernel takes it: a program of classic BPF that is run on each system call (seccomp(2)).
//!
//! The number's range is found by bisection: the kernel runs a new filter once for every number that there is, to remember
//! which calls it always allows, so that a chain of comparisons would cost each app's start more than all of its set-up.

use super::filter::{Action, ArgumentTest, Filter, Verdict};

/// One instruction (linux/filter.h, struct sock_filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip if a comparison is true.
    pub if_true: u8,
    /// And if it is false.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Loads the 32-bit word at an offset of struct seccomp_data.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// What a program returns (linux/seccomp.h).
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

impl Filter {
    /// The program. A process that makes a call as a 32-bit program does ends: its numbers mean other calls.
    pub fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            plain(LOAD, ARCHITECTURE),
            branch(JUMP_IF_EQUAL, AUDIT_ARCH_X86_64, 1, 0),
            plain(RETURN, KILL_PROCESS),
            plain(LOAD, NUMBER),
        ];
        program.extend(search(self.ranges()));
        program
    }
}

/// Finds the range that the loaded number is in. A jump over an instruction reaches further than a branch.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    match (low, high) {
        ([], []) => vec![plain(RETURN, KILL_PROCESS)],
        ([], [(_, verdict), ..]) => decide(verdict),
        (low, [(start, _), ..]) => {
            let below = search(low);
            let mut found = vec![branch(JUMP_IF_AT_LEAST, *start, 0, 1), plain(JUMP, below.len() as u32)];
            found.extend(below);
            found.extend(search(high));
            found
        }
        (low, []) => search(low),
    }
}

fn decide(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Always(action) => vec![plain(RETURN, result(*action))],
        Verdict::Tested { test, refusal } => examine(test, *refusal),
    }
}

fn examine(test: &ArgumentTest, refusal: Action) -> Vec<Instruction> {
    let ArgumentTest { argument, mask, values, allows } = test;
    let (equal, other) = if *allows { (Action::Allow, refusal) } else { (refusal, Action::Allow) };
    let mut program = vec![plain(LOAD, ARGUMENTS + ARGUMENT_BYTES * u32::from(*argument)), plain(AND, *mask)];
    let left = (1..=u8::MAX).take(values.len()).rev();
    program.extend(values.iter().zip(left).map(|(value, left)| branch(JUMP_IF_EQUAL, *value, left, 0)));
    program.extend([plain(RETURN, result(other)), plain(RETURN, result(equal))]);
    program
}

fn result(action: Action) -> u32 {
    match action {
        Action::Allow => ALLOW,
        Action::Errno(errno) => ERRNO | u32::from(errno.number()),
        Action::Kill => KILL_PROCESS,
    }
}

fn plain(code: u16, operand: u32) -> Instruction {
    branch(code, operand, 0, 0)
}

fn branch(code: u16, operand: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, operand }
}
