//! A processor's registers as gdb counts them.

use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

/// Reads them.
pub fn read(vcpu: &VcpuFd) -> Result<X86_64CoreRegs, kvm_ioctls::Error> {
    Ok(to_gdb(&vcpu.get_regs()?, &vcpu.get_sregs()?, &vcpu.get_fpu()?))
}

/// Writes those that are no segments, which a debugger has no business with.
pub fn write(vcpu: &VcpuFd, registers: &X86_64CoreRegs) -> Result<(), kvm_ioctls::Error> {
    if registers.segments != to_gdb(&vcpu.get_regs()?, &vcpu.get_sregs()?, &vcpu.get_fpu()?).segments {
        return Err(kvm_ioctls::Error::new(libc::EINVAL));
    }
    let mut fpu = vcpu.get_fpu()?;
    for (to, from) in fpu.fpr.iter_mut().zip(&registers.st) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    for (to, from) in fpu.xmm.iter_mut().zip(&registers.xmm) {
        *to = from.to_le_bytes();
    }
    fpu.mxcsr = registers.mxcsr;
    vcpu.set_fpu(&fpu)?;
    vcpu.set_regs(&from_gdb(registers))
}

fn to_gdb(regs: &kvm_regs, sregs: &kvm_sregs, fpu: &kvm_fpu) -> X86_64CoreRegs {
    let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *regs;
    let mut registers = X86_64CoreRegs {
        regs: [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15],
        eflags: regs.rflags as u32,
        rip: regs.rip,
        mxcsr: fpu.mxcsr,
        ..Default::default()
    };
    let selector = |segment: &kvm_segment| u32::from(segment.selector);
    let segments = &mut registers.segments;
    (segments.cs, segments.ss) = (selector(&sregs.cs), selector(&sregs.ss));
    (segments.ds, segments.es) = (selector(&sregs.ds), selector(&sregs.es));
    (segments.fs, segments.gs) = (selector(&sregs.fs), selector(&sregs.gs));
    for (to, from) in registers.st.iter_mut().zip(&fpu.fpr) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    for (to, from) in registers.xmm.iter_mut().zip(&fpu.xmm) {
        *to = u128::from_le_bytes(*from);
    }
    registers
}

fn from_gdb(registers: &X86_64CoreRegs) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = registers.regs;
    let (rip, rflags) = (registers.rip, registers.eflags.into());
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place() {
        let mut regs = kvm_regs { rax: 1, rbp: 2, rsp: 3, r15: 4, rip: 5, rflags: 6, ..Default::default() };
        let mut fpu = kvm_fpu { mxcsr: 0x1f80, ..Default::default() };
        fpu.xmm[15] = [9; 16];
        let mut sregs = kvm_sregs::default();
        sregs.gs.selector = 7;
        let registers = to_gdb(&regs, &sregs, &fpu);
        assert_eq!([0, 6, 7, 15].map(|number: usize| registers.regs[number]), [1, 2, 3, 4]);
        assert_eq!((registers.rip, registers.eflags, registers.segments.gs), (5, 6, 7));
        assert_eq!((registers.xmm[15], registers.mxcsr), (u128::from_le_bytes([9; 16]), 0x1f80));
        assert_eq!(from_gdb(&registers), regs);
        regs.rsi = 8;
        assert_ne!(from_gdb(&registers), regs);
    }
}
