//! A guest of some dozen bytes that finds out whether KVM executes guests as a processor does.
//!
//! Some hosts offer a `/dev/kvm` that interprets guest code in software or runs it without privileges: it opens, has
//! all capabilities, and then no kernel starts on it. The guest here tries what every kernel does in its first moments, and
//! reports before and after each step; the last report tells what failed, for there is nobody in the guest to
//! handle an exception.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_regs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::sys::mman::ProtFlags;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::signal::Killable;

use super::Problem;
use crate::cpu::registers::set_flat_protected_mode;
use crate::cpu::thread::{Enrolled, install_kick_handler, kick_signal};
use crate::memory::{DeviceMemory, Mapping, PAGE_SIZE, Region};

/// Where the guest's one page is.
const CODE_START: u64 = 0x1000;
/// A CPUID leaf in the range that is left to hypervisors, and what it is made to say.
const MADE_UP_LEAF: u32 = 0x4000_0100;
const MADE_UP_VALUE: u32 = 0x0072_6b74;
/// What the guest writes to an MSR and reads back.
const MSR_VALUE: u32 = 0x1234;
/// CR4 with OSFXSR and OSXMMEXCPT, without which there is no SSE.
const CR4_VALUE: u32 = 0x600;
/// How long the guest may take; a processor needs microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
const EXITS_MAX: usize = 32;

const STEP_PORT: u16 = 0x10;
const VALUE_PORT: u16 = 0x11;

/// What about this KVM is not as on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The guest saw other CPUID values than it was given.
    #[error("it ignores the CPUID values that a guest is given (a software KVM)")]
    CpuidIgnored,
    /// An instruction raised an exception that a processor does not raise.
    #[error("the instruction {0} fails in a guest (a software KVM)")]
    Instruction(&'static str),
    /// An instruction had another result than on a processor.
    #[error("the instruction {0} has a wrong result in a guest")]
    WrongResult(&'static str),
    /// The guest did not get to its end in time.
    #[error("a guest of some dozen instructions does not come to its end")]
    Stuck,
}

/// A step of the guest: what it is, the code that leaves a result in eax, and the result that it must have.
struct Step {
    name: &'static str,
    code: &'static [u8],
    expected: u32,
}

const CPUID: &str = "CPUID";
const STEPS: [Step; 4] = [
    // mov eax, MADE_UP_LEAF; cpuid
    Step { name: CPUID, code: &[0xb8, 0x00, 0x01, 0x00, 0x40, 0x0f, 0xa2], expected: MADE_UP_VALUE },
    // mov eax, 0xff; popcnt eax, eax
    Step { name: "POPCNT", code: &[0xb8, 0xff, 0, 0, 0, 0xf3, 0x0f, 0xb8, 0xc0], expected: 8 },
    // mov eax, CR4_VALUE; mov cr4, eax; xor eax, eax; mov eax, cr4
    Step {
        name: "MOV to CR4",
        code: &[0xb8, 0x00, 0x06, 0, 0, 0x0f, 0x22, 0xe0, 0x31, 0xc0, 0x0f, 0x20, 0xe0],
        expected: CR4_VALUE,
    },
    // mov ecx, IA32_SYSENTER_CS; mov eax, MSR_VALUE; xor edx, edx; wrmsr; xor eax, eax; rdmsr
    Step {
        name: "WRMSR",
        code: &[
            0xb9, 0x74, 0x01, 0, 0, 0xb8, 0x34, 0x12, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32,
        ],
        expected: MSR_VALUE,
    },
];

/// The guest: each step between `mov al, number; out STEP_PORT, al` and `out VALUE_PORT, eax`, then `hlt`.
fn payload() -> Vec<u8> {
    let mut code = Vec::new();
    for (number, step) in (0_u8..).zip(&STEPS) {
        code.extend([0xb0, number, 0xe6, STEP_PORT as u8]);
        code.extend(step.code);
        code.extend([0xe7, VALUE_PORT as u8]);
    }
    code.push(0xf4);
    code
}

/// What the guest did, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Step(u8),
    Value(u32),
    Halted,
    /// An exception, or something else that a processor would not have done.
    Died,
}

/// Runs the guest in a machine of its own.
pub fn can_run_guest(kvm: &Kvm) -> Result<(), Problem> {
    let refused = |what| move |error: kvm_ioctls::Error| Problem::Refused { what, source: error.into() };
    let vm = kvm.create_vm().map_err(refused("create a virtual machine"))?;
    // The memory is kept until the machine is gone.
    let _memory = load(&vm)?;
    let vcpu = vm.create_vcpu(0).map_err(refused("create a processor"))?;
    let leaf = kvm_cpuid_entry2 { function: MADE_UP_LEAF, eax: MADE_UP_VALUE, ..Default::default() };
    let leaves = CpuId::from_entries(&[leaf]).map_err(|_| Problem::Defective(Defect::CpuidIgnored))?;
    vcpu.set_cpuid2(&leaves).map_err(refused("set CPUID values"))?;
    let mut sregs = vcpu.get_sregs().map_err(refused("read registers"))?;
    set_flat_protected_mode(&mut sregs);
    vcpu.set_sregs(&sregs).map_err(refused("set registers"))?;
    let regs = kvm_regs { rip: CODE_START, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).map_err(refused("set registers"))?;
    judge(&run(vcpu)?).map_err(Problem::Defective)
}

fn load(vm: &VmFd) -> Result<DeviceMemory, Problem> {
    let refused = |source: io::Error| Problem::Refused { what: "give a guest memory", source };
    let mapping = Mapping::anonymous(PAGE_SIZE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
        .map_err(|error| refused(io::Error::other(error)))?;
    let region = kvm_bindings::kvm_userspace_memory_region {
        guest_phys_addr: CODE_START,
        memory_size: PAGE_SIZE,
        userspace_addr: mapping.host_address(),
        ..Default::default()
    };
    // SAFETY: the mapping has this size; the caller keeps it until the machine is gone.
    unsafe { vm.set_user_memory_region(region) }.map_err(|error| refused(error.into()))?;
    let region = Region { start: GuestAddress(CODE_START), mapping: Arc::new(mapping) };
    let memory =
        DeviceMemory::new(vec![region], Vec::new()).map_err(|error| refused(io::Error::other(error)))?;
    memory
        .write_slice(&payload(), GuestAddress(CODE_START))
        .map_err(|error| refused(io::Error::other(error)))?;
    Ok(memory)
}

/// Runs the guest on a thread of its own, so that it can be stopped.
fn run(vcpu: VcpuFd) -> Result<Vec<Seen>, Problem> {
    let host = |what| move |source| Problem::Refused { what, source };
    install_kick_handler().map_err(host("install a signal handler"))?;
    let (report, reported) = channel();
    let thread = std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let mut vcpu = vcpu;
            let _nobody_waits = report.send(watch(Enrolled::new(&mut vcpu)));
        })
        .map_err(host("start a thread"))?;
    if let Ok(seen) = reported.recv_timeout(PATIENCE) {
        return Ok(seen);
    }
    // One kick is enough: it makes this and every later KVM_RUN of the thread return.
    let _ended_already = thread.kill(kick_signal());
    Err(Problem::Defective(Defect::Stuck))
}

fn watch(mut vcpu: Enrolled<'_>) -> Vec<Seen> {
    let mut seen = Vec::new();
    while seen.len() < EXITS_MAX {
        let event = match vcpu.vcpu().run() {
            Ok(VcpuExit::IoOut(STEP_PORT, &[number])) => Seen::Step(number),
            Ok(VcpuExit::IoOut(VALUE_PORT, &[a, b, c, d])) => Seen::Value(u32::from_le_bytes([a, b, c, d])),
            Ok(VcpuExit::Hlt) => Seen::Halted,
            _ => Seen::Died,
        };
        seen.push(event);
        if matches!(event, Seen::Halted | Seen::Died) {
            break;
        }
    }
    seen
}

/// What the guest's doings say about KVM.
fn judge(seen: &[Seen]) -> Result<(), Defect> {
    let mut seen = seen.iter();
    for (number, step) in (0..).zip(&STEPS) {
        if seen.next() != Some(&Seen::Step(number)) {
            return Err(Defect::Stuck);
        }
        match seen.next() {
            Some(Seen::Value(value)) if *value == step.expected => {}
            Some(Seen::Value(_)) if step.name == CPUID => return Err(Defect::CpuidIgnored),
            Some(Seen::Value(_)) => return Err(Defect::WrongResult(step.name)),
            _ => return Err(Defect::Instruction(step.name)),
        }
    }
    if seen.next() == Some(&Seen::Halted) { Ok(()) } else { Err(Defect::Instruction("HLT")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<Seen> {
        let steps = (0..).zip(&STEPS);
        let mut seen: Vec<Seen> =
            steps.flat_map(|(number, step)| [Seen::Step(number), Seen::Value(step.expected)]).collect();
        seen.push(Seen::Halted);
        seen
    }

    #[test]
    fn a_processor_passes() {
        assert_eq!(judge(&good()), Ok(()));
    }

    #[test]
    fn each_defect_is_named() {
        let mut seen = good();
        seen[1] = Seen::Value(0);
        assert_eq!(judge(&seen), Err(Defect::CpuidIgnored));
        let mut seen = good();
        seen[3] = Seen::Died;
        assert_eq!(judge(&seen[..4]), Err(Defect::Instruction("POPCNT")));
        let mut seen = good();
        seen[7] = Seen::Value(0);
        assert_eq!(judge(&seen), Err(Defect::WrongResult("WRMSR")));
        assert_eq!(judge(&[]), Err(Defect::Stuck));
        let mut seen = good();
        seen[8] = Seen::Died;
        assert_eq!(judge(&seen), Err(Defect::Instruction("HLT")));
    }

    #[test]
    fn the_guest_says_what_the_constants_say() {
        let code = payload();
        let has = |bytes: &[u8]| code.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(&MADE_UP_LEAF.to_le_bytes()));
        assert!(has(&MSR_VALUE.to_le_bytes()));
        assert!(has(&CR4_VALUE.to_le_bytes()));
        assert!(code.len() < 100);
    }
}
