//! CPUID as the guest sees it: what KVM supports on this host, as one socket of as many cores as the machine
//! has processors, without nested virtualisation and performance counters.
//!
//! Leaves and bits are those of Intel's SDM volume 2 (CPUID) and AMD's APM volume 3, appendix E.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::VcpuCount;

const LEAF_1_ECX_VMX: u32 = 1 << 5;
const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF_1_EDX_HTT: u32 = 1 << 28;
const EXTENDED_1_ECX_SVM: u32 = 1 << 2;
/// Core and level-1 performance counters of AMD.
const EXTENDED_1_ECX_COUNTERS: u32 = 1 << 23;

const LEVEL_TYPE_THREAD: u32 = 1 << 8;
const LEVEL_TYPE_CORE: u32 = 2 << 8;

/// The leaves of a machine, from which those of each of its processors follow.
#[derive(Clone, Debug)]
pub struct Template {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: VcpuCount,
}

impl Template {
    /// Asks KVM what it supports, once for the whole machine.
    pub fn from_kvm(kvm: &Kvm, vcpus: VcpuCount) -> Result<Self, kvm_ioctls::Error> {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        Ok(Self::new(supported.as_slice(), tsc_deadline, vcpus))
    }

    fn new(supported: &[kvm_cpuid_entry2], tsc_deadline: bool, vcpus: VcpuCount) -> Self {
        // 0xb and 0x1f are written anew for each processor; 0xa describes performance counters.
        let kept = supported.iter().filter(|entry| !matches!(entry.function, 0xa | 0xb | 0x1f | 0x8000_000a));
        let mut entries: Vec<_> = kept.copied().collect();
        for entry in &mut entries {
            match entry.function {
                0x1 => {
                    entry.ecx = entry.ecx & !LEAF_1_ECX_VMX | LEAF_1_ECX_HYPERVISOR;
                    if tsc_deadline {
                        entry.ecx |= LEAF_1_ECX_TSC_DEADLINE;
                    }
                }
                0x8000_0001 => entry.ecx &= !(EXTENDED_1_ECX_SVM | EXTENDED_1_ECX_COUNTERS),
                _ => {}
            }
        }
        Self { entries, vcpus }
    }

    /// The leaves of processor number `index`, whose APIC id that is.
    pub fn for_vcpu(&self, index: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
        let mut entries = self.entries.clone();
        let count = u32::from(self.vcpus.get());
        let apic_id = u32::from(index);
        let id_bits = count.next_power_of_two().trailing_zeros();
        for entry in &mut entries {
            set_topology(entry, apic_id, count, id_bits);
        }
        if self.entries.iter().any(|entry| entry.function == 0 && entry.eax >= 0xb) {
            entries.push(extended_topology(0, 0, 1, LEVEL_TYPE_THREAD, apic_id));
            entries.push(extended_topology(1, id_bits, count, LEVEL_TYPE_CORE, apic_id));
        }
        CpuId::from_entries(&entries)
    }
}

fn set_topology(entry: &mut kvm_cpuid_entry2, apic_id: u32, count: u32, id_bits: u32) {
    match entry.function {
        0x1 => {
            entry.ebx = entry.ebx & 0x0000_ffff | count << 16 | apic_id << 24;
            entry.edx = if count > 1 { entry.edx | LEAF_1_EDX_HTT } else { entry.edx & !LEAF_1_EDX_HTT };
        }
        // Caches: the first two levels are a core's own, the third is everybody's.
        0x4 if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 0x7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | (count - 1) << 26;
        }
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 0x7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | id_bits << 12 | (count - 1),
        // A core has one thread, and the socket one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (apic_id, apic_id, 0),
        _ => {}
    }
}

/// A level of leaf 0xb: how many bits of the APIC id number what is below it, and how many processors that are.
fn extended_topology(level: u32, shift: u32, processors: u32, kind: u32, apic_id: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: kind | level,
        edx: apic_id,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn cpuid(vcpus: u8, index: u8) -> Vec<kvm_cpuid_entry2> {
        let supported = [
            leaf(0, [0xd, 0, 0, 0]),
            leaf(1, [0, 0xff01_0800, LEAF_1_ECX_VMX, 0]),
            leaf(4, [0x0000_0121, 0, 0, 0]),
            leaf(4, [0x0000_0163, 0, 0, 0]),
            leaf(0xa, [0x0730_0802, 0, 0, 0]),
            leaf(0xb, [1, 2, 3, 4]),
            leaf(0x8000_0001, [0, 0, EXTENDED_1_ECX_SVM | 1, 0]),
            leaf(0x8000_0008, [0x3028, 0, 0xf0ff, 0]),
            leaf(0x8000_001e, [9, 9, 9, 0]),
        ];
        let template = Template::new(&supported, true, VcpuCount::new(vcpus).unwrap());
        template.for_vcpu(index).unwrap().as_slice().to_vec()
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| entry.function == function && entry.index == index).unwrap()
    }

    #[test]
    fn each_processor_has_its_own_apic_id() {
        for index in [0, 3] {
            let entries = cpuid(4, index);
            let id = u32::from(index);
            assert_eq!(find(&entries, 1, 0).ebx, id << 24 | 4 << 16 | 0x0800);
            assert_eq!(find(&entries, 0xb, 0).edx, id);
            assert_eq!(find(&entries, 0x8000_001e, 0).eax, id);
        }
    }

    #[test]
    fn the_topology_is_one_socket_of_cores() {
        let entries = cpuid(6, 1);
        let threads = find(&entries, 0xb, 0);
        let cores = find(&entries, 0xb, 1);
        assert_eq!([threads.eax, threads.ebx, threads.ecx], [0, 1, 0x100]);
        assert_eq!([cores.eax, cores.ebx, cores.ecx], [3, 6, 0x201]);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 3 << 12 | 5);
        assert_eq!(entries.iter().filter(|entry| entry.function == 0xb).count(), 2);
        let shared: Vec<u32> =
            entries.iter().filter(|entry| entry.function == 4).map(|entry| entry.eax >> 14 & 0xfff).collect();
        assert_eq!(shared, [0, 5]);
    }

    #[test]
    fn the_guest_knows_that_it_is_one_and_nests_no_other() {
        let entries = cpuid(1, 0);
        let features = find(&entries, 1, 0).ecx;
        assert_eq!(features & LEAF_1_ECX_VMX, 0);
        assert_ne!(features & LEAF_1_ECX_HYPERVISOR, 0);
        assert_ne!(features & LEAF_1_ECX_TSC_DEADLINE, 0);
        assert_eq!(find(&entries, 0x8000_0001, 0).ecx, 1);
        assert!(!entries.iter().any(|entry| entry.function == 0xa));
        assert_eq!(find(&entries, 1, 0).edx & LEAF_1_EDX_HTT, 0);
    }

    #[test]
    fn counts_are_one_to_thirty_two() {
        assert_eq!(VcpuCount::new(0), None);
        assert_eq!(VcpuCount::new(33), None);
        assert_eq!(VcpuCount::new(32).map(VcpuCount::get), Some(32));
    }
}
