//! Levels of processors: the micro-architecture levels of the x86-64 psABI (section 3.1.1), so that a guest sees the same on all
//! hosts of a fleet.
//!
//! A guest of a level is told of the level's instructions, of what its kernel needs to run, and of everything that tells which
//! attacks by speculation the processor is open to, and how to prevent them. The vendor, the family and the model stay
//! the host's: a kernel chooses its mitigations by them.

use std::fmt;

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;

use super::feature::{
    EXT1_ECX, EXT1_EDX, EXT8_EBX, EXT21_EAX, EXT21_ECX, F1_ECX, F1_EDX, F6_EAX, F7_1_EAX, F7_1_EBX, F7_1_ECX,
    F7_1_EDX, F7_2_EDX, F7_EBX, F7_ECX, F7_EDX, Feature, Place, XCR0, XSAVE, XSS, bits,
};
use super::{cpuid, state};

/// A level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// x86-64-v2: SSE up to 4.2.
    V2,
    /// x86-64-v3: AVX2.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
}

/// What [`Level::V2`] has more than every 64-bit processor.
const V2: &[Feature] = &[
    F1_ECX.bit("CMPXCHG16B", 13),
    EXT1_ECX.bit("LAHF-SAHF", 0),
    F1_ECX.bit("POPCNT", 23),
    F1_ECX.bit("SSE3", 0),
    F1_ECX.bit("SSE4.1", 19),
    F1_ECX.bit("SSE4.2", 20),
    F1_ECX.bit("SSSE3", 9),
];

/// What [`Level::V3`] has more than [`Level::V2`]. The psABI's OSXSAVE is what a kernel makes of XSAVE and the state.
const V3: &[Feature] = &[
    F1_ECX.bit("AVX", 28),
    F7_EBX.bit("AVX2", 5),
    F7_EBX.bit("BMI1", 3),
    F7_EBX.bit("BMI2", 8),
    F1_ECX.bit("F16C", 29),
    F1_ECX.bit("FMA", 12),
    EXT1_ECX.bit("LZCNT", 5),
    F1_ECX.bit("MOVBE", 22),
    F1_ECX.bit("XSAVE", 26),
    XCR0.bit("the state of x87", 0),
    XCR0.bit("the state of SSE", 1),
    XCR0.bit("the state of AVX", 2),
];

/// What [`Level::V4`] has more than [`Level::V3`].
const V4: &[Feature] = &[
    F7_EBX.bit("AVX512F", 16),
    F7_EBX.bit("AVX512BW", 30),
    F7_EBX.bit("AVX512CD", 28),
    F7_EBX.bit("AVX512DQ", 17),
    F7_EBX.bit("AVX512VL", 31),
    XCR0.bit("the state of AVX-512's masks", 5),
    XCR0.bit("the state of AVX-512's registers 0 to 15", 6),
    XCR0.bit("the state of AVX-512's registers 16 to 31", 7),
];

/// The bits of each register that lists features which are no matter of levels. All others are a level's, or not told of.
const OF_EVERY_LEVEL: &[(Place, u32)] = &[
    // PCID, x2APIC, TSC deadline, hypervisor.
    (F1_ECX, bits(&[17, 21, 24, 31])),
    // What every 64-bit processor has; HTT.
    (F1_EDX, bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 28])),
    // ARAT.
    (F6_EAX, bits(&[2])),
    // TSC_ADJUST, SMEP, INVPCID, SMAP; two peculiarities of the FPU.
    (F7_EBX, bits(&[1, 6, 7, 10, 13, 20])),
    // UMIP.
    (F7_ECX, bits(&[2])),
    // SRBDS_CTRL, MD_CLEAR, RTM_ALWAYS_ABORT, IBRS and IBPB, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD.
    (F7_EDX, bits(&[9, 10, 11, 26, 27, 28, 29, 31])),
    (F7_1_EAX, 0),
    (F7_1_EBX, 0),
    (F7_1_ECX, 0),
    (F7_1_EDX, 0),
    // PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL, MCDT_NO.
    (F7_2_EDX, bits(&[0, 1, 2, 3, 4, 5])),
    (XCR0, 0),
    (XSAVE, 0),
    (XSS, 0),
    // CmpLegacy, and the extensions of topology.
    (EXT1_ECX, bits(&[1, 22])),
    // SYSCALL, NX, LM; what leaf 1 has as well.
    (EXT1_EDX, bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 23, 24, 29])),
    // The pointers of FXSAVE; IBPB, IBRS, STIBP and how they are meant to be used, SSBD, SSB_NO, PSFD, BTC_NO, IBPB_RET.
    (EXT8_EBX, bits(&[2, 12, 14, 15, 16, 17, 18, 19, 24, 25, 26, 28, 29, 30])),
    // Breakpoints, LFENCE and null selectors; VERW, automatic IBRS, and what there is against SRSO and TSA.
    (EXT21_EAX, bits(&[0, 2, 5, 6, 8, 27, 28, 29, 30])),
    (EXT21_ECX, bits(&[1, 2])),
];

/// The last sub-leaf of leaf 7 that is known here.
const LAST_OF_7: u32 = 2;

impl Level {
    /// What this host lacks for it, by name.
    pub fn missing(self, kvm: &Kvm) -> Result<Vec<&'static str>, kvm_ioctls::Error> {
        Ok(self.missing_in(&cpuid::supported(kvm)?))
    }

    /// What `entries` lack for it.
    pub(super) fn missing_in(self, entries: &[kvm_cpuid_entry2]) -> Vec<&'static str> {
        self.features().filter(|feature| !feature.is_in(entries)).map(|feature| feature.name).collect()
    }

    /// Takes everything else out of them.
    pub(super) fn restrict(self, entries: &mut Vec<kvm_cpuid_entry2>) {
        entries.retain(|entry| self.tells_by(entry.function, entry.index));
        if let Some(first) = entries.iter_mut().find(|entry| (entry.function, entry.index) == (7, 0)) {
            first.eax = first.eax.min(LAST_OF_7);
        }
        for (place, of_every_level) in OF_EVERY_LEVEL {
            let own = self.features().filter(|feature| feature.place == *place);
            let told = own.fold(*of_every_level, |told, feature| told | feature.mask());
            place.change(entries, |features| features & told);
        }
        state::restrict(entries, self.state());
    }

    /// The parts of a processor's state that it has.
    fn state(self) -> u64 {
        let parts = self.features().filter(|feature| feature.place == XCR0);
        parts.fold(0, |parts, part| parts | u64::from(part.mask()))
    }

    fn features(self) -> impl Iterator<Item = &'static Feature> {
        let (v3, v4) = (if self >= Self::V3 { V3 } else { &[] }, if self >= Self::V4 { V4 } else { &[] });
        V2.iter().chain(v3).chain(v4)
    }

    /// Whether a leaf tells of no more than what is in the tables, or of no instructions at all.
    fn tells_by(self, leaf: u32, index: u32) -> bool {
        match leaf {
            0x7 => index <= LAST_OF_7,
            0xd => self.state() != 0,
            0x0..=0x2 | 0x4 | 0x6 | 0x4000_0000..=0x4000_00ff | 0x8000_0000..=0x8000_0008 => true,
            _ => matches!(leaf, 0x8000_001d | 0x8000_001e | 0x8000_0021),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        })
    }
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
