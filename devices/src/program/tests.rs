//! Programs are run by an interpreter of the instructions' bytes, written from the instruction set's description.

use super::*;

const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

fn bytes(instruction: &Instruction) -> [u8; 8] {
    let mut bytes = [instruction.code, instruction.registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&instruction.offset.to_le_bytes());
    bytes[4..8].copy_from_slice(&instruction.immediate.to_le_bytes());
    bytes
}

/// What the program answers; also checks what the kernel's verifier does: everything read has been written, and
/// no jump leads backwards or out.
fn answer_of(program: &[Instruction], access: u32, kind: u32, major: u32, minor: u32) -> u32 {
    let context = [access << 16 | kind, major, minor];
    let mut registers: [Option<u32>; 11] = [None; 11];
    let mut next = 0;
    loop {
        let [code, both, o0, o1, i0, i1, i2, i3] = bytes(&program[next]);
        let (to, from) = (usize::from(both & 0xf), usize::from(both >> 4));
        let offset = usize::try_from(i16::from_le_bytes([o0, o1])).expect("forwards");
        let constant = u32::from_le_bytes([i0, i1, i2, i3]);
        // BPF_X: the operand is a register.
        let operand = || if code & 8 == 8 { registers[from].expect("written") } else { constant };
        next += 1;
        match (code & 7, code & 0xf0) {
            // BPF_LDX | BPF_MEM | BPF_W of the context, whose address is in register 1 until that is written.
            (1, 0x60) => {
                assert_eq!((from, registers[1]), (1, None));
                registers[to] = Some(context[offset / 4]);
            }
            (4, 0xb0) => registers[to] = Some(operand()),
            (4, 0x50) => registers[to] = Some(registers[to].expect("written") & operand()),
            (4, 0x70) => registers[to] = Some(registers[to].expect("written") >> operand()),
            (6, 0x50) if registers[to].expect("written") != operand() => next += offset,
            (6, 0x50) => {}
            (5, 0x90) => return registers[0].expect("written"),
            other => panic!("instruction {other:?}"),
        }
    }
}

fn closed(access: u32, kind: u32, major: u32, minor: u32) -> bool {
    answer_of(&of(&DevicePolicy::closed()), access, kind, major, minor) == 1
}

#[test]
fn the_closed_policy() {
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 70_000)] {
        for access in [READ, WRITE, READ | WRITE] {
            assert!(closed(access, CHARACTER, major, minor), "{major}:{minor} {access}");
            assert!(!closed(access, BLOCK, major, minor), "block {major}:{minor} {access}");
        }
        assert!(!closed(READ | MAKE, CHARACTER, major, minor), "no rule allows both");
    }
    // Memory, kmsg, a console, fuse, KVM, a raw disk; disks of all kinds.
    for (major, minor) in [(1, 1), (1, 11), (5, 1), (10, 229), (10, 232), (21, 0), (137, 0), (0x1_0001, 3)] {
        for access in [READ, WRITE] {
            assert!(!closed(access, CHARACTER, major, minor), "{major}:{minor} {access}");
        }
    }
    for (major, minor) in [(7, 0), (8, 0), (254, 0), (259, 1)] {
        for access in [READ, WRITE] {
            assert!(!closed(access, BLOCK, major, minor), "{major}:{minor} {access}");
        }
        assert!(closed(MAKE, BLOCK, major, minor) && closed(MAKE, CHARACTER, major, minor));
    }
}

#[test]
fn an_empty_policy_refuses() {
    let program = of(&DevicePolicy { allowed: Vec::new() });
    assert_eq!(answer_of(&program, READ, CHARACTER, 1, 3), 0);
}

#[test]
fn one_rule_allows_what_it_says() {
    let access = DeviceAccess { read: true, write: false, make: true };
    let rule = DeviceRule { kind: DeviceKind::Block, major: None, minor: Some(u32::MAX), access };
    let program = of(&DevicePolicy { allowed: vec![rule] });
    let answer = |access, kind, minor| answer_of(&program, access, kind, 8, minor);
    assert_eq!(answer(READ | MAKE, BLOCK, u32::MAX), 1);
    assert_eq!(answer(WRITE, BLOCK, u32::MAX), 0);
    assert_eq!(answer(READ | WRITE, BLOCK, u32::MAX), 0);
    assert_eq!(answer(READ, CHARACTER, u32::MAX), 0);
    assert_eq!(answer(READ, BLOCK, 1), 0);
}

/// By hand, from the instruction set's tables.
#[test]
fn the_bytes() {
    let access = DeviceAccess::MAKE;
    let rule = DeviceRule { kind: DeviceKind::Character, major: Some(10), minor: None, access };
    let program: Vec<[u8; 8]> = of(&DevicePolicy { allowed: vec![rule] }).iter().map(bytes).collect();
    let expected = [
        [0x61, 0x12, 0, 0, 0, 0, 0, 0],       // r2 = *(u32 *)(r1 + 0)
        [0x61, 0x13, 0, 0, 0, 0, 0, 0],       // r3 = *(u32 *)(r1 + 0)
        [0x61, 0x14, 4, 0, 0, 0, 0, 0],       // r4 = *(u32 *)(r1 + 4)
        [0x61, 0x15, 8, 0, 0, 0, 0, 0],       // r5 = *(u32 *)(r1 + 8)
        [0x54, 0x02, 0, 0, 0xff, 0xff, 0, 0], // w2 &= 0xffff
        [0x74, 0x03, 0, 0, 16, 0, 0, 0],      // w3 >>= 16
        [0x56, 0x02, 6, 0, 2, 0, 0, 0],       // if w2 != 2 goto +6
        [0x56, 0x04, 5, 0, 10, 0, 0, 0],      // if w4 != 10 goto +5
        [0xbc, 0x31, 0, 0, 0, 0, 0, 0],       // w1 = w3
        [0x54, 0x01, 0, 0, 1, 0, 0, 0],       // w1 &= 1
        [0x5e, 0x31, 2, 0, 0, 0, 0, 0],       // if w1 != w3 goto +2
        [0xb4, 0x00, 0, 0, 1, 0, 0, 0],       // w0 = 1
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],       // exit
        [0xb4, 0x00, 0, 0, 0, 0, 0, 0],       // w0 = 0
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],       // exit
    ];
    assert_eq!(program, expected);
}
