//! Leaf 0xd: which parts of its state a processor saves with XSAVE, and how much room that takes.

use kvm_bindings::kvm_cpuid_entry2;

const LEAF: u32 = 0xd;
/// Its sub-leaves of a part of the state each begin here.
const FIRST_PART: u32 = 2;
/// The parts that have no sub-leaf, x87's and SSE's, and the header (SDM volume 1, section 13.4).
const LEGACY_BYTES: u32 = 512 + 64;

/// Takes all parts away but those of `mask`, and tells the room for what is left.
pub fn restrict(entries: &mut Vec<kvm_cpuid_entry2>, mask: u64) {
    let is_kept = |part: u32| 1_u64.checked_shl(part).is_some_and(|bit| mask & bit != 0);
    entries.retain(|entry| entry.function != LEAF || entry.index < FIRST_PART || is_kept(entry.index));
    let (low, high) = (mask as u32, (mask >> 32) as u32);
    let is = |entry: &kvm_cpuid_entry2, index| entry.function == LEAF && entry.index == index;
    if let Some(kernels) = entries.iter_mut().find(|entry| is(entry, 1)) {
        (kernels.ecx, kernels.edx) = (kernels.ecx & low, kernels.edx & high);
    }
    let users = entries.iter().find(|entry| is(entry, 0));
    let users = users.map_or(0, |entry| (u64::from(entry.edx) << 32 | u64::from(entry.eax)) & mask);
    let bytes = room(entries, users);
    if let Some(all) = entries.iter_mut().find(|entry| is(entry, 0)) {
        // KVM tells the room for what a guest has switched on, in ebx, once it has.
        (all.eax, all.ebx, all.ecx, all.edx) = (users as u32, bytes, bytes, (users >> 32) as u32);
    }
}

/// The bytes of these parts, each of which has a place of its own.
fn room(entries: &[kvm_cpuid_entry2], parts: u64) -> u32 {
    let parts = entries.iter().filter(|entry| {
        entry.function == LEAF && (FIRST_PART..64).contains(&entry.index) && parts >> entry.index & 1 != 0
    });
    parts.map(|part| part.ebx.saturating_add(part.eax)).fold(LEGACY_BYTES, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::cpuid::testing::{find, subleaf};

    /// AVX, AVX-512, protection keys, and CET's, which only the kernel saves.
    fn entries() -> Vec<kvm_cpuid_entry2> {
        vec![
            subleaf(LEAF, 0, [0x2e7, 2696, 2696, 0]),
            subleaf(LEAF, 1, [0xf, 0, 0x1800, 0]),
            subleaf(LEAF, 2, [256, 576, 0, 0]),
            subleaf(LEAF, 5, [64, 1088, 0, 0]),
            subleaf(LEAF, 6, [512, 1152, 0, 0]),
            subleaf(LEAF, 7, [1024, 1664, 0, 0]),
            subleaf(LEAF, 9, [8, 2688, 0, 0]),
            subleaf(LEAF, 11, [16, 0, 1, 0]),
            subleaf(LEAF, 12, [24, 0, 1, 0]),
        ]
    }

    #[test]
    fn the_room_is_for_what_is_there() {
        for (mask, parts, bytes, kernels) in [
            (u64::MAX, 0x2e7, 2696, 0x1800),
            (0xe7, 0xe7, 2688, 0),
            (0x7, 0x7, 832, 0),
            (0x3, 0x3, 576, 0),
            (0x807, 0x7, 832, 0x800),
        ] {
            let mut entries = entries();
            restrict(&mut entries, mask);
            let all = find(&entries, LEAF, 0);
            assert_eq!([all.eax, all.ebx, all.ecx, all.edx], [parts, bytes, bytes, 0], "{mask:#x}");
            assert_eq!(find(&entries, LEAF, 1).ecx, kernels, "{mask:#x}");
            let left = entries.iter().filter(|entry| entry.index >= FIRST_PART);
            assert!(left.into_iter().all(|entry| mask >> entry.index & 1 != 0), "{mask:#x}");
        }
    }

    #[test]
    fn a_processor_without_is_left_alone() {
        let mut entries = Vec::new();
        restrict(&mut entries, 0x7);
        assert!(entries.is_empty());
    }
}
