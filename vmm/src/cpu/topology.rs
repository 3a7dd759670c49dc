//! CPUID's leaves on topology: one socket of as many cores as the machine has processors, each of one thread.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::VcpuCount;
use super::feature::{EXT1_ECX, F1_EDX};

const HTT: u32 = 1 << 28;
/// What [`HTT`] counts are cores, not threads (AMD).
const CMP_LEGACY: u32 = 1 << 1;

const LEVEL_TYPE_THREAD: u32 = 1 << 8;
const LEVEL_TYPE_CORE: u32 = 2 << 8;

/// Writes the topology of a machine of `vcpus`, as the one with `apic_id` sees it. `amd` is whether the processor is AMD's, or one of its kind.
pub fn write(entries: &mut Vec<kvm_cpuid_entry2>, vcpus: VcpuCount, apic_id: u8, amd: bool) {
    let (count, apic_id) = (u32::from(vcpus.get()), u32::from(apic_id));
    let id_bits = count.next_power_of_two().trailing_zeros();
    for entry in entries.iter_mut() {
        write_entry(entry, apic_id, count, id_bits);
    }
    let several = |register: u32, bit: u32| if count > 1 { register | bit } else { register & !bit };
    F1_EDX.change(entries, |edx| several(edx, HTT));
    if amd {
        EXT1_ECX.change(entries, |ecx| several(ecx, CMP_LEGACY));
    }
    if entries.iter().any(|entry| entry.function == 0 && entry.eax >= 0xb) {
        entries.push(level(0, 0, 1, LEVEL_TYPE_THREAD, apic_id));
        entries.push(level(1, id_bits, count, LEVEL_TYPE_CORE, apic_id));
    }
}

fn write_entry(entry: &mut kvm_cpuid_entry2, apic_id: u32, count: u32, id_bits: u32) {
    match entry.function {
        0x1 => entry.ebx = entry.ebx & 0x0000_ffff | count << 16 | apic_id << 24,
        // Caches: the first two levels are a core's own, the third is everybody's.
        0x4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 0x7 >= 3 { count - 1 } else { 0 };
            // Intel's leaf has the number of cores as well.
            let cores = if entry.function == 0x4 { (count - 1) << 26 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | cores;
        }
        0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | id_bits << 12 | (count - 1),
        // A core has one thread, and the socket one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (apic_id, apic_id, 0),
        _ => {}
    }
}

/// A level of leaf 0xb: how many bits of the APIC id number what is below it, and how many processors that are.
fn level(level: u32, shift: u32, processors: u32, kind: u32, apic_id: u32) -> kvm_cpuid_entry2 {
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
    use crate::cpu::cpuid::testing::{find, leaf};

    fn entries(vcpus: u8, apic_id: u8, amd: bool) -> Vec<kvm_cpuid_entry2> {
        let mut entries = vec![
            leaf(0, [0xd, 0, 0, 0]),
            leaf(1, [0, 0xff01_0800, 0, 0]),
            leaf(4, [0x0000_0121, 0, 0, 0]),
            leaf(4, [0x0000_0163, 0, 0, 0]),
            leaf(0x8000_0001, [0, 0, 1, 0]),
            leaf(0x8000_0008, [0x3028, 0, 0xf0ff, 0]),
            leaf(0x8000_001d, [0x03ff_c121, 0, 0, 0]),
            leaf(0x8000_001d, [0x03ff_c163, 0, 0, 0]),
            leaf(0x8000_001e, [9, 9, 9, 0]),
        ];
        write(&mut entries, VcpuCount::new(vcpus).unwrap(), apic_id, amd);
        entries
    }

    #[test]
    fn each_processor_has_its_own_apic_id() {
        for index in [0, 3, 31] {
            let entries = entries(32, index, false);
            let id = u32::from(index);
            assert_eq!(find(&entries, 1, 0).ebx, id << 24 | 32 << 16 | 0x0800);
            assert_eq!(find(&entries, 0xb, 0).edx, id);
            assert_eq!(find(&entries, 0xb, 1).edx, id);
            assert_eq!(find(&entries, 0x8000_001e, 0).eax, id);
        }
    }

    #[test]
    fn the_topology_is_one_socket_of_cores() {
        let entries = entries(6, 1, false);
        let (threads, cores) = (find(&entries, 0xb, 0), find(&entries, 0xb, 1));
        assert_eq!([threads.eax, threads.ebx, threads.ecx], [0, 1, 0x100]);
        assert_eq!([cores.eax, cores.ebx, cores.ecx], [3, 6, 0x201]);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 3 << 12 | 5);
        assert_eq!(entries.iter().filter(|entry| entry.function == 0xb).count(), 2);
        for function in [4, 0x8000_001d] {
            let caches = entries.iter().filter(|entry| entry.function == function);
            let shared: Vec<u32> = caches.map(|entry| entry.eax >> 14 & 0xfff).collect();
            assert_eq!(shared, [0, 5], "{function:#x}");
        }
    }

    #[test]
    fn several_processors_are_cores_to_each_vendor() {
        for (vcpus, amd, htt, legacy) in
            [(1, false, 0, 0), (1, true, 0, 0), (2, false, HTT, 0), (2, true, HTT, CMP_LEGACY)]
        {
            let entries = entries(vcpus, 0, amd);
            assert_eq!(find(&entries, 1, 0).edx, htt);
            assert_eq!(find(&entries, 0x8000_0001, 0).ecx, 1 | legacy);
        }
    }
}
