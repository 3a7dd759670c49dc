//! What there is of a machine beside its memory: its processors, interrupt controllers and clock.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use super::bytes::{put, take, take_all};
use crate::cpu::clock;
use crate::error::Error;
use crate::ioapic::Registers;
use crate::vm::Vm;

const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The most that KVM takes or gives at once.
const MSRS_AT_ONCE: usize = 128;

/// A machine's state.
pub struct MachineState {
    /// Of the interrupt controller.
    ioapic: Box<Registers>,
    /// kvmclock, in nanoseconds.
    clock_ns: u64,
    /// What the processors' time-stamp counters go on from.
    tsc: u64,
    vcpus: Vec<VcpuState>,
}

struct VcpuState {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: Box<kvm_lapic_state>,
    events: kvm_vcpu_events,
    msrs: Vec<kvm_msr_entry>,
}

impl MachineState {
    /// That of a machine none of whose processors runs. `fresh` are their model-specific registers when they were new: those that
    /// still are so need not be kept.
    pub fn save(
        kvm: &Kvm,
        vm: &Vm,
        ioapic: Registers,
        vcpus: &[VcpuFd],
        fresh: &[SpecificRegisters],
    ) -> Result<Self, Error> {
        let failed = Error::kvm("tell a processor's state");
        let states = vcpus.iter().zip(fresh).map(|(vcpu, fresh)| VcpuState::save(kvm, vcpu, fresh));
        let states = states.collect::<Result<Vec<_>, _>>().map_err(&failed)?;
        let counters = vcpus.iter().map(|vcpu| read_msrs(vcpu, &[MSR_TSC]));
        let counters = counters.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        // All have the same, but at the time that they were asked.
        let tsc = counters.iter().flatten().map(|counter| counter.data).max().unwrap_or_default();
        Ok(Self { ioapic: Box::new(ioapic), clock_ns: vm.clock_ns()?, tsc, vcpus: states })
    }

    /// What the interrupt controller of a new machine goes on from.
    pub fn ioapic(&self) -> Registers {
        Registers::clone(&self.ioapic)
    }

    /// Puts the new processors of a new machine into it, and lets its clocks go on from where they were.
    pub fn restore_vcpus(&self, vm: &Vm, vcpus: &[VcpuFd]) -> Result<(), Error> {
        let offset = self.tsc.wrapping_sub(clock::host_tsc());
        for (vcpu, state) in vcpus.iter().zip(&self.vcpus) {
            clock::set_tsc_offset(vcpu, offset)
                .map_err(Error::kvm("set a processor's time-stamp counter"))?;
            state.restore(vcpu).map_err(Error::kvm("set a processor's state"))?;
        }
        vm.set_clock_ns(self.clock_ns)
    }

    /// How many processors it has.
    pub fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    /// As bytes, for [`MachineState::from_bytes`] of the same build on the same host.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.ioapic.to_words().for_each(|word| put(&mut bytes, &word));
        put(&mut bytes, &self.clock_ns);
        put(&mut bytes, &self.tsc);
        put(&mut bytes, &(self.vcpus.len() as u32));
        self.vcpus.iter().for_each(|vcpu| vcpu.put(&mut bytes));
        bytes
    }

    /// From bytes; `None` if they are not a state's.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let ioapic = take_all(bytes, Registers::WORDS as u32)?;
        let ioapic = Box::new(Registers::from_words(ioapic.as_slice().try_into().ok()?));
        let (clock_ns, tsc, count) = (take(bytes)?, take(bytes)?, take::<u32>(bytes)?);
        let vcpus = (0..count).map(|_| VcpuState::take(bytes)).collect::<Option<_>>()?;
        bytes.is_empty().then_some(Self { ioapic, clock_ns, tsc, vcpus })
    }
}

impl VcpuState {
    fn save(kvm: &Kvm, vcpu: &VcpuFd, fresh: &SpecificRegisters) -> Result<Self, kvm_ioctls::Error> {
        Ok(Self {
            // First, for it makes KVM take in what is pending.
            mp_state: vcpu.get_mp_state()?,
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            xsave: Box::new(vcpu.get_xsave()?),
            xcrs: vcpu.get_xcrs()?,
            debug: vcpu.get_debug_regs()?,
            lapic: Box::new(vcpu.get_lapic()?),
            msrs: SpecificRegisters::of(kvm, vcpu)?.changed_since(fresh),
            events: vcpu.get_vcpu_events()?,
        })
    }

    fn restore(&self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        vcpu.set_mp_state(self.mp_state)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_sregs(&self.sregs)?;
        vcpu.set_xcrs(&self.xcrs)?;
        // SAFETY: no state of more than a `kvm_xsave`'s size is ever on: AMX is hidden from guests.
        unsafe { vcpu.set_xsave(&self.xsave) }?;
        vcpu.set_debug_regs(&self.debug)?;
        vcpu.set_lapic(&self.lapic)?;
        write_msrs(vcpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events)
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        put(bytes, &self.mp_state);
        put(bytes, &self.regs);
        put(bytes, &self.sregs);
        put(bytes, &*self.xsave);
        put(bytes, &self.xcrs);
        put(bytes, &self.debug);
        put(bytes, &*self.lapic);
        put(bytes, &self.events);
        put(bytes, &(self.msrs.len() as u32));
        self.msrs.iter().for_each(|msr| put(bytes, msr));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            mp_state: take(bytes)?,
            regs: take(bytes)?,
            sregs: take(bytes)?,
            xsave: Box::new(take(bytes)?),
            xcrs: take(bytes)?,
            debug: take(bytes)?,
            lapic: Box::new(take(bytes)?),
            events: take(bytes)?,
            msrs: {
                let count = take(bytes)?;
                take_all(bytes, count)?
            },
        })
    }
}

/// The model-specific registers of a processor that KVM would have kept, but for its time-stamp counter.
pub struct SpecificRegisters(Vec<kvm_msr_entry>);

impl SpecificRegisters {
    /// Those that `vcpu` has now.
    pub fn of(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        let list = kvm.get_msr_index_list()?;
        let mut list: Vec<u32> = list
            .as_slice()
            .iter()
            .copied()
            .filter(|index| ![MSR_TSC, MSR_TSC_DEADLINE].contains(index))
            .collect();
        // The last, for it is the timer's, which is the local APIC's, and tells a time of the counter.
        list.push(MSR_TSC_DEADLINE);
        Ok(Self(read_msrs(vcpu, &list)?))
    }

    fn changed_since(self, fresh: &Self) -> Vec<kvm_msr_entry> {
        self.0.into_iter().filter(|register| !fresh.0.contains(register)).collect()
    }
}

/// Reads `indices`, without those that this processor has not although KVM knows them.
fn read_msrs(vcpu: &VcpuFd, mut indices: &[u32]) -> Result<Vec<kvm_msr_entry>, kvm_ioctls::Error> {
    let mut all = Vec::with_capacity(indices.len());
    while !indices.is_empty() {
        let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
        let wanted: Vec<_> = indices.iter().take(MSRS_AT_ONCE).map(entry).collect();
        let mut msrs = entries(&wanted)?;
        let read = vcpu.get_msrs(&mut msrs)?;
        all.extend(msrs.as_slice().iter().take(read));
        // KVM stops at the first that is not there.
        let skipped = usize::from(read < wanted.len());
        indices = indices.get(read + skipped..).unwrap_or_default();
    }
    Ok(all)
}

fn write_msrs(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), kvm_ioctls::Error> {
    for some in msrs.chunks(MSRS_AT_ONCE) {
        if vcpu.set_msrs(&entries(some)?)? != some.len() {
            return Err(kvm_ioctls::Error::new(libc::EINVAL));
        }
    }
    Ok(())
}

fn entries(entries: &[kvm_msr_entry]) -> Result<Msrs, kvm_ioctls::Error> {
    Msrs::from_entries(entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A model-specific register.
    pub fn msr(index: u32, data: u64) -> kvm_msr_entry {
        kvm_msr_entry { index, data, ..Default::default() }
    }

    /// That of a machine with two processors.
    pub fn state() -> MachineState {
        let vcpu = |rip| VcpuState {
            mp_state: kvm_mp_state { mp_state: 3 },
            regs: kvm_regs { rip, ..Default::default() },
            sregs: kvm_sregs::default(),
            xsave: Box::default(),
            xcrs: kvm_xcrs::default(),
            debug: kvm_debugregs::default(),
            lapic: Box::default(),
            events: kvm_vcpu_events::default(),
            msrs: vec![msr(MSR_TSC_DEADLINE, rip)],
        };
        MachineState { ioapic: Box::default(), clock_ns: 5, tsc: 6, vcpus: vec![vcpu(1), vcpu(2)] }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{msr, state};
    use super::*;

    #[test]
    fn a_state_survives_as_bytes() {
        let bytes = state().to_bytes();
        let again = MachineState::from_bytes(&bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!((again.vcpus(), again.vcpus[1].regs.rip, again.tsc), (2, 2, 6));
    }

    #[test]
    fn bytes_that_are_no_state_are_refused() {
        let bytes = state().to_bytes();
        assert!(MachineState::from_bytes(&[]).is_none());
        assert!(MachineState::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert!(MachineState::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_none());
        assert!(MachineState::from_bytes(&vec![0xff; bytes.len()]).is_none());
    }

    #[test]
    fn only_registers_that_have_changed_are_kept() {
        let fresh = SpecificRegisters(vec![msr(1, 0), msr(2, 7)]);
        let now = SpecificRegisters(vec![msr(1, 0), msr(2, 8), msr(3, 0)]);
        assert_eq!(now.changed_since(&fresh), [msr(2, 8), msr(3, 0)]);
    }
}
