//! CPUID as the guest sees it: what KVM supports on this host, as one socket of cores ([`super::topology`]), without what this
//! machine has not, and at most of the [`Level`] that is wanted.
//!
//! Leaves and bits are those of Intel's SDM volume 2 (CPUID) and AMD's APM volume 3, appendix E.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::feature::{
    EXT1_ECX, F1_ECX, F6_EAX, F6_EBX, F6_ECX, F6_EDX, F7_1_EAX, F7_1_EDX, F7_EBX, F7_ECX, F7_EDX, Place, bits,
};
use super::level::Level;
use super::{VcpuCount, state, topology};
use crate::error::Error;

const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const ARCH_CAPABILITIES: u32 = 1 << 29;
/// The timer goes on in every idle state, which KVM vouches for.
const ARAT: u32 = 1 << 2;

/// Leaves of what is not in this machine, or is told anew for each processor: MONITOR, performance counters, topology, monitoring and
/// allocation of resources, SGX, processor trace, PCONFIG, last branches, AMX's tiles, SVM, IBS, LWP, memory encryption.
const ABSENT_LEAVES: [u32; 23] = [
    0x5,
    0xa,
    0xb,
    0xf,
    0x10,
    0x12,
    0x14,
    0x1b,
    0x1c,
    0x1d,
    0x1e,
    0x1f,
    0x23,
    0x8000_000a,
    0x8000_001b,
    0x8000_001c,
    0x8000_001f,
    0x8000_0020,
    0x8000_0022,
    0x8000_0023,
    0x8000_0025,
    0x8000_0026,
    0x8000_0027,
];

/// Bits that KVM may set, of what this machine has not.
const ABSENT_FEATURES: &[(Place, u32)] = &[
    // MONITOR, VMX, capabilities of the performance counters.
    (F1_ECX, bits(&[3, 5, 15])),
    // Power and temperature are the host's.
    (F6_EAX, !ARAT),
    (F6_EBX, !0),
    (F6_ECX, !0),
    (F6_EDX, !0),
    // SGX; monitoring and allocation of resources; processor trace.
    (F7_EBX, bits(&[2, 12, 15, 25])),
    // SGX's launch control.
    (F7_ECX, bits(&[30])),
    // Cores of several kinds, PCONFIG, last branches. AMX: KVM has its state only for those who asked the kernel for it.
    (F7_EDX, bits(&[15, 18, 19, 22, 24, 25])),
    (F7_1_EAX, bits(&[21])),
    (F7_1_EDX, bits(&[8])),
    // SVM; IBS; SKINIT; watchdog; LWP; counters of the core, of the north bridge, of the last cache.
    (EXT1_ECX, bits(&[2, 10, 12, 13, 15, 23, 24, 28])),
];
/// The parts of a processor's state that are AMX's.
const AMX_STATE: u64 = 1 << 17 | 1 << 18;

/// The leaves of a machine, from which those of each of its processors follow.
#[derive(Clone, Debug)]
pub struct Leaves {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: VcpuCount,
}

impl Leaves {
    /// Asks KVM what it supports, once for the whole machine. Without a `level` the guest sees all of it.
    pub fn from_kvm(kvm: &Kvm, vcpus: VcpuCount, level: Option<Level>) -> Result<Self, Error> {
        let mut entries = supported(kvm).map_err(Error::kvm("tell what the processor supports"))?;
        if let Some(level) = level {
            let missing = level.missing_in(&entries);
            if !missing.is_empty() {
                return Err(Error::Level { level, missing });
            }
            level.restrict(&mut entries);
        }
        Ok(Self::new(vcpus, entries))
    }

    /// Exactly these.
    pub fn new(vcpus: VcpuCount, entries: Vec<kvm_cpuid_entry2>) -> Self {
        Self { entries, vcpus }
    }

    /// How many processors have them.
    pub fn vcpus(&self) -> VcpuCount {
        self.vcpus
    }

    /// As bytes: other processors have others.
    pub fn describe(&self) -> Vec<u8> {
        let words = |entry: &kvm_cpuid_entry2| {
            [entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx]
        };
        let leaves = self.entries.iter().flat_map(words).flat_map(u32::to_le_bytes);
        leaves.chain([self.vcpus.get()]).collect()
    }

    /// The leaves of processor number `index`, whose APIC id that is.
    pub fn for_vcpu(&self, index: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
        let mut entries = self.entries.clone();
        topology::write(&mut entries, self.vcpus, index, is_amd(&self.entries));
        CpuId::from_entries(&entries)
    }
}

/// What KVM supports on this host, as far as this machine has it.
pub fn supported(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>, kvm_ioctls::Error> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    Ok(corrected(supported.as_slice(), kvm.check_extension(Cap::TscDeadlineTimer)))
}

fn corrected(supported: &[kvm_cpuid_entry2], tsc_deadline: bool) -> Vec<kvm_cpuid_entry2> {
    let mut entries = supported.to_vec();
    entries.retain(|entry| !ABSENT_LEAVES.contains(&entry.function));
    for (place, absent) in ABSENT_FEATURES {
        place.change(&mut entries, |features| features & !absent);
    }
    state::restrict(&mut entries, !AMX_STATE);
    if is_amd(&entries) {
        // A register of Intel's, which KVM makes up there.
        F7_EDX.change(&mut entries, |features| features & !ARCH_CAPABILITIES);
    }
    F1_ECX
        .change(&mut entries, |features| features | HYPERVISOR | if tsc_deadline { TSC_DEADLINE } else { 0 });
    entries
}

/// Whether the processor is AMD's, or Hygon's, which are of their kind.
fn is_amd(entries: &[kvm_cpuid_entry2]) -> bool {
    let vendor = entries.iter().find(|entry| entry.function == 0);
    let vendor = vendor.map(|entry| [entry.ebx, entry.edx, entry.ecx].map(u32::to_le_bytes).concat());
    matches!(vendor.as_deref(), Some(b"AuthenticAMD" | b"HygonGenuine"))
}

#[cfg(test)]
pub(super) mod testing {
    use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

    /// A leaf without further ones.
    pub fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    /// One of the further ones.
    pub fn subleaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { index, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf(function, registers) }
    }

    pub fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    /// The leaf with a vendor's name.
    pub fn vendor(name: &[u8; 12]) -> kvm_cpuid_entry2 {
        let word = |at| u32::from_le_bytes(*name[at..].first_chunk().unwrap());
        leaf(0, [0x1f, word(0), word(8), word(4)])
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{find, leaf, subleaf, vendor};
    use super::*;

    /// A processor with everything that it can tell of.
    fn everything(name: &[u8; 12]) -> Vec<kvm_cpuid_entry2> {
        let all = [!0; 4];
        let mut entries = vec![vendor(name), leaf(0x1, all), leaf(0x6, all)];
        entries.extend([subleaf(0x7, 0, [2, !0, !0, !0]), subleaf(0x7, 1, all), subleaf(0x7, 2, all)]);
        entries.push(subleaf(0xd, 0, [0x6_00e7, 11008, 11008, 0]));
        entries.push(subleaf(0xd, 1, [0x1f, 0, 0, 0]));
        entries.push(subleaf(0xd, 2, [256, 576, 0, 0]));
        entries.extend([subleaf(0xd, 17, [64, 2752, 0, 0]), subleaf(0xd, 18, [8192, 2816, 0, 0])]);
        entries.extend(ABSENT_LEAVES.map(|function| leaf(function, all)));
        entries.extend([leaf(0x4000_0000, all), leaf(0x4000_0001, all)]);
        entries.extend([leaf(0x8000_0001, all), leaf(0x8000_0007, [0, 0, 0, 1 << 8])]);
        entries
    }

    #[test]
    fn the_guest_knows_that_it_is_one_and_has_a_timer() {
        for there in [false, true] {
            let entries = corrected(&[leaf(1, [0; 4])], there);
            let features = find(&entries, 1, 0).ecx;
            assert_ne!(features & HYPERVISOR, 0);
            assert_eq!(features & TSC_DEADLINE != 0, there);
        }
    }

    #[test]
    fn what_the_machine_has_not_is_not_told_of() {
        let entries = corrected(&everything(b"GenuineIntel"), true);
        for absent in ABSENT_LEAVES {
            assert!(entries.iter().all(|entry| entry.function != absent), "{absent:#x}");
        }
        for (name, place, bit) in [
            ("vmx", F1_ECX, 5),
            ("pdcm", F1_ECX, 15),
            ("sgx", F7_EBX, 2),
            ("cqm", F7_EBX, 12),
            ("intel_pt", F7_EBX, 25),
            ("hybrid", F7_EDX, 15),
            ("amx_tile", F7_EDX, 24),
            ("svm", EXT1_ECX, 2),
            ("perfctr_core", EXT1_ECX, 23),
        ] {
            assert_eq!(place.read(&entries) >> bit & 1, 0, "{name}");
        }
        let power = find(&entries, 6, 0);
        assert_eq!([power.eax, power.ebx, power.ecx, power.edx], [ARAT, 0, 0, 0]);
    }

    #[test]
    fn what_the_guest_needs_stays() {
        let entries = corrected(&everything(b"GenuineIntel"), true);
        assert_eq!(find(&entries, 0x4000_0001, 0).eax, !0, "kvmclock and its like");
        assert_eq!(find(&entries, 0x8000_0007, 0).edx, 1 << 8, "an invariant TSC");
        assert_eq!(F7_EDX.read(&entries) & ARCH_CAPABILITIES, ARCH_CAPABILITIES);
        assert_eq!(F7_EDX.read(&entries) >> 26 & 0b11, 0b11, "speculation control");
    }

    #[test]
    fn a_register_of_intels_is_not_in_others() {
        for name in [b"AuthenticAMD", b"HygonGenuine"] {
            let entries = corrected(&everything(name), true);
            assert_eq!(F7_EDX.read(&entries) & ARCH_CAPABILITIES, 0);
        }
    }

    #[test]
    fn state_that_has_gone_takes_no_place() {
        let entries = corrected(&everything(b"GenuineIntel"), true);
        let state = find(&entries, 0xd, 0);
        assert_eq!([state.eax, state.ebx, state.ecx], [0xe7, 832, 832]);
        assert!(entries.iter().all(|entry| entry.function != 0xd || entry.index < 17));
    }
}
