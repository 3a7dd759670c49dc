//! The state in which processors start.
//!
//! KVM creates a processor in the state of a reset one, which already has what firmware would leave alone: an FPU with
//! its defaults, and local APIC inputs that the kernel reprograms. The others beside the first wait in it for the first
//! to start them. So only what the PVH protocol asks for is set here.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::layout::PVH_INFO_START;

/// Protected mode; the bit beside it is always set.
const CR0: u64 = 0x11;
/// The flags register has one bit that is always set.
const RFLAGS: u64 = 2;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, and all memory write-back unless the page tables say otherwise.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Sets what firmware would have set on every processor.
pub fn set_msrs(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [entry(MSR_MISC_ENABLE, FAST_STRINGS), entry(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)];
    let einval = || kvm_ioctls::Error::new(libc::EINVAL);
    let msrs = Msrs::from_entries(&entries).map_err(|_| einval())?;
    if vcpu.set_msrs(&msrs)? == entries.len() { Ok(()) } else { Err(einval()) }
}

/// Lets the first processor start at `entry` as the PVH protocol wants it: 32-bit protected mode, flat segments, no
/// paging, and the address of the start info in ebx.
pub fn set_pvh_entry(vcpu: &VcpuFd, entry: u32) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    set_flat_protected_mode(&mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs { rip: entry.into(), rbx: PVH_INFO_START, rflags: RFLAGS, ..Default::default() })
}

/// Flat 32-bit segments at ring 0, without paging.
pub fn set_flat_protected_mode(sregs: &mut kvm_sregs) {
    // Descriptor types (SDM volume 3, section 3.4.5): code and data, accessed; a busy task.
    const CODE: u8 = 0xb;
    const DATA: u8 = 0x3;
    const TASK: u8 = 0xb;
    let flat = |type_, selector| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = flat(CODE, 0x8);
    let data = [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss];
    data.into_iter().for_each(|segment| *segment = flat(DATA, 0x10));
    sregs.tr = kvm_segment { limit: 0x67, type_: TASK, present: 1, ..Default::default() };
    (sregs.cr0, sregs.cr4, sregs.efer) = (CR0, 0, 0);
}
