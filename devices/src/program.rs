//! The program: one block of instructions a rule, each of which either allows the access or goes on to the next, and a
//! refusal at the end.

use pod::devices::{DeviceAccess, DeviceKind, DevicePolicy, DeviceRule};

/// An instruction as the kernel reads it: `struct bpf_insn` of <linux/bpf.h>, on a little-endian machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    immediate: u32,
}

// Operation codes (the kernel's bpf/standardization/instruction-set.rst); all work on 32 bits.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_CONSTANT: u8 = 0xb4;
const AND_CONSTANT: u8 = 0x54;
const SHIFT_RIGHT_CONSTANT: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x5e;
const JUMP_UNLESS_CONSTANT: u8 = 0x56;
const EXIT: u8 = 0x95;

// What the registers hold. The first is where the kernel leaves the context's address, and free once that is read.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// `struct bpf_cgroup_dev_ctx` of <linux/bpf.h>: access_type, with the kind in its lower half and the access in the
// upper one; major; minor.
const ACCESS_TYPE_OFFSET: i16 = 0;
const MAJOR_OFFSET: i16 = 4;
const MINOR_OFFSET: i16 = 8;
const KIND_MASK: u32 = 0xffff;
const ACCESS_SHIFT: u32 = 16;

const ALLOW: u32 = 1;
const REFUSE: u32 = 0;

/// The program that carries out a policy.
pub fn of(policy: &DevicePolicy) -> Vec<Instruction> {
    let rules = policy.allowed.iter().flat_map(rule);
    load_context().into_iter().chain(rules).chain(answer(REFUSE)).collect()
}

fn load_context() -> [Instruction; 6] {
    let load = |to, offset| Instruction { offset, ..with_register(LOAD_WORD, to, CONTEXT) };
    [
        load(KIND, ACCESS_TYPE_OFFSET),
        load(ACCESS, ACCESS_TYPE_OFFSET),
        load(MAJOR, MAJOR_OFFSET),
        load(MINOR, MINOR_OFFSET),
        with_constant(AND_CONSTANT, KIND, KIND_MASK),
        with_constant(SHIFT_RIGHT_CONSTANT, ACCESS, ACCESS_SHIFT),
    ]
}

/// Allows the access if the rule fits it; the next rule's block follows.
fn rule(rule: &DeviceRule) -> Vec<Instruction> {
    let number = |register, wanted: Option<u32>| {
        wanted.map(|wanted| with_constant(JUMP_UNLESS_CONSTANT, register, wanted))
    };
    let mut block = vec![with_constant(JUMP_UNLESS_CONSTANT, KIND, kind(rule.kind))];
    block.extend(number(MAJOR, rule.major));
    block.extend(number(MINOR, rule.minor));
    // All that is asked for must be allowed: what is left of it after masking is still the same.
    block.extend([
        with_register(MOVE, SCRATCH, ACCESS),
        with_constant(AND_CONSTANT, SCRATCH, access(rule.access)),
        with_register(JUMP_UNLESS_EQUAL, SCRATCH, ACCESS),
    ]);
    block.extend(answer(ALLOW));
    jump_to_the_end(&mut block);
    block
}

/// Jumps are counted from the instruction after them.
fn jump_to_the_end(block: &mut [Instruction]) {
    for (left, instruction) in block.iter_mut().rev().enumerate() {
        if matches!(instruction.code, JUMP_UNLESS_CONSTANT | JUMP_UNLESS_EQUAL) {
            // A block has a dozen instructions at most.
            instruction.offset = left as i16;
        }
    }
}

fn answer(result: u32) -> [Instruction; 2] {
    [with_constant(MOVE_CONSTANT, RESULT, result), with_constant(EXIT, 0, 0)]
}

/// BPF_DEVCG_DEV_*.
fn kind(kind: DeviceKind) -> u32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    }
}

/// BPF_DEVCG_ACC_*.
fn access(access: DeviceAccess) -> u32 {
    let DeviceAccess { read, write, make } = access;
    u32::from(make) | u32::from(read) << 1 | u32::from(write) << 2
}

fn with_constant(code: u8, register: u8, immediate: u32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn with_register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset: 0, immediate: 0 }
}

#[cfg(test)]
mod tests;
