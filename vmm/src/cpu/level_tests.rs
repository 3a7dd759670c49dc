use super::*;
use crate::cpu::cpuid::testing::{find, leaf, subleaf};

/// A processor that has everything but what is named.
fn all_but(lacking: &[&str]) -> Vec<kvm_cpuid_entry2> {
    let all = [!0; 4];
    let mut entries = vec![leaf(0x0, [0x24, 1, 2, 3]), leaf(0x1, all), leaf(0x6, all)];
    entries.extend([subleaf(0x7, 0, [9, !0, !0, !0]), subleaf(0x7, 1, all), subleaf(0x7, 2, all)]);
    entries.extend([subleaf(0x7, 9, all), leaf(0x19, all), leaf(0x24, all)]);
    entries.extend([subleaf(0xd, 0, [0x2e7, 2696, 2696, 0]), subleaf(0xd, 1, [0xf, 0, 0x1800, 0])]);
    for (part, bytes, offset) in [(2, 256, 576), (5, 64, 1088), (6, 512, 1152), (7, 1024, 1664), (9, 8, 2688)]
    {
        entries.push(subleaf(0xd, part, [bytes, offset, 0, 0]));
    }
    entries.push(subleaf(0xd, 11, [16, 0, 1, 0]));
    entries.extend([leaf(0x4000_0000, all), leaf(0x4000_0001, all)]);
    entries.extend([leaf(0x8000_0000, [0x8000_0021, 0, 0, 0]), leaf(0x8000_0001, all)]);
    entries.extend([leaf(0x8000_0007, [0, 0, 0, 1 << 8]), leaf(0x8000_0008, all), leaf(0x8000_0021, all)]);
    for feature in V2.iter().chain(V3).chain(V4).filter(|feature| lacking.contains(&feature.name)) {
        feature.place.change(&mut entries, |features| features & !feature.mask());
    }
    entries
}

fn restricted(level: Level) -> Vec<kvm_cpuid_entry2> {
    let mut entries = all_but(&[]);
    level.restrict(&mut entries);
    entries
}

#[test]
fn what_is_missing_is_named() {
    for (lacking, v2, v3, v4) in [
        (&[][..], &[][..], &[][..], &[][..]),
        (&["AVX512BW"], &[], &[], &["AVX512BW"]),
        (&["AVX2", "LZCNT"], &[], &["AVX2", "LZCNT"], &["AVX2", "LZCNT"]),
        (&["SSE4.2"], &["SSE4.2"], &["SSE4.2"], &["SSE4.2"]),
        (&["the state of AVX"], &[], &["the state of AVX"], &["the state of AVX"]),
    ] {
        let entries = all_but(lacking);
        for (level, missing) in [(Level::V2, v2), (Level::V3, v3), (Level::V4, v4)] {
            assert_eq!(level.missing_in(&entries), missing, "{level}");
        }
    }
}

#[test]
fn a_level_has_its_features_and_those_below() {
    for (level, has, has_not) in [
        (Level::V2, V2.to_vec(), [V3, V4].concat()),
        (Level::V3, [V2, V3].concat(), V4.to_vec()),
        (Level::V4, [V2, V3, V4].concat(), Vec::new()),
    ] {
        let entries = restricted(level);
        assert!(has.iter().all(|feature| feature.is_in(&entries)), "{level}");
        assert!(!has_not.iter().any(|feature| feature.is_in(&entries)), "{level}");
        assert!(level.missing_in(&entries).is_empty());
    }
}

/// Bits of instructions in between, as the psABI leaves them out.
#[test]
fn nothing_else_is_told_of() {
    for level in [Level::V2, Level::V3, Level::V4] {
        let entries = restricted(level);
        for feature in [
            F1_ECX.bit("AES", 25),
            F1_ECX.bit("PCLMULQDQ", 1),
            F1_ECX.bit("RDRAND", 30),
            F7_EBX.bit("FSGSBASE", 0),
            F7_EBX.bit("RTM", 11),
            F7_EBX.bit("RDSEED", 18),
            F7_EBX.bit("SHA", 29),
            F7_ECX.bit("PKU", 3),
            F7_ECX.bit("GFNI", 8),
            F7_EDX.bit("FSRM", 4),
            F7_EDX.bit("AVX512_FP16", 23),
            F7_1_EAX.bit("AVX-VNNI", 4),
            XCR0.bit("the state of protection keys", 9),
            XSAVE.bit("XSAVEOPT", 0),
            EXT1_ECX.bit("SSE4A", 6),
            EXT1_EDX.bit("RDTSCP", 27),
            EXT8_EBX.bit("CLZERO", 0),
        ] {
            assert!(!feature.is_in(&entries), "{} in {level}", feature.name);
        }
        assert!(entries.iter().all(|entry| !matches!(entry.function, 0x19 | 0x24)));
        assert_eq!(find(&entries, 7, 0).eax, 2, "its last sub-leaf");
        assert!(entries.iter().all(|entry| entry.function != 7 || entry.index <= 2));
    }
}

#[test]
fn a_kernel_runs_and_protects_itself() {
    for level in [Level::V2, Level::V3, Level::V4] {
        let entries = restricted(level);
        for feature in [
            F1_ECX.bit("x2APIC", 21),
            F1_ECX.bit("TSC deadline", 24),
            F1_ECX.bit("hypervisor", 31),
            F1_EDX.bit("TSC", 4),
            F1_EDX.bit("PAT", 16),
            F1_EDX.bit("SSE2", 26),
            F7_EBX.bit("SMEP", 7),
            F7_EBX.bit("SMAP", 20),
            F7_EDX.bit("MD_CLEAR", 10),
            F7_EDX.bit("SPEC_CTRL", 26),
            F7_EDX.bit("ARCH_CAPABILITIES", 29),
            F7_EDX.bit("SSBD", 31),
            F7_2_EDX.bit("BHI_CTRL", 4),
            EXT1_EDX.bit("SYSCALL", 11),
            EXT1_EDX.bit("NX", 20),
            EXT1_EDX.bit("LM", 29),
            EXT8_EBX.bit("IBPB", 12),
            EXT8_EBX.bit("BTC_NO", 29),
            EXT21_EAX.bit("automatic IBRS", 8),
            EXT21_EAX.bit("SRSO_NO", 29),
        ] {
            assert!(feature.is_in(&entries), "{} in {level}", feature.name);
        }
        assert_eq!(find(&entries, 0x4000_0001, 0).eax, !0, "kvmclock and its like");
        assert_eq!(find(&entries, 0x8000_0007, 0).edx, 1 << 8, "an invariant TSC");
    }
}

#[test]
fn the_state_is_that_of_the_level() {
    assert!(restricted(Level::V2).iter().all(|entry| entry.function != 0xd), "no XSAVE, no state");
    for (level, parts, bytes, kept) in
        [(Level::V3, 0x7, 832, &[2][..]), (Level::V4, 0xe7, 2688, &[2, 5, 6, 7])]
    {
        let entries = restricted(level);
        let state = find(&entries, 0xd, 0);
        assert_eq!([state.eax, state.ebx, state.ecx, state.edx], [parts, bytes, bytes, 0]);
        let extensions = find(&entries, 0xd, 1);
        assert_eq!([extensions.eax, extensions.ecx, extensions.edx], [0; 3], "{level}");
        let parts = entries.iter().filter(|entry| entry.function == 0xd && entry.index > 1);
        assert_eq!(parts.map(|part| part.index).collect::<Vec<_>>(), kept);
    }
}
