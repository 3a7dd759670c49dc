//! Where CPUID tells of features: bits of registers of leaves, by the names that their vendors use.
//!
//! Leaves and bits are those of Intel's SDM volume 2 (CPUID) and AMD's APM volume 3, appendix E.

use kvm_bindings::kvm_cpuid_entry2;

/// A register of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

use Register::{Eax, Ebx, Ecx, Edx};

/// A register of a leaf that lists features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    leaf: u32,
    index: u32,
    register: Register,
}

/// A feature, by the bit that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// As messages call it.
    pub name: &'static str,
    /// Where the bit is.
    pub place: Place,
    bit: u8,
}

pub const F1_ECX: Place = Place::new(0x1, 0, Ecx);
pub const F1_EDX: Place = Place::new(0x1, 0, Edx);
pub const F6_EAX: Place = Place::new(0x6, 0, Eax);
pub const F6_EBX: Place = Place::new(0x6, 0, Ebx);
pub const F6_ECX: Place = Place::new(0x6, 0, Ecx);
pub const F6_EDX: Place = Place::new(0x6, 0, Edx);
pub const F7_EBX: Place = Place::new(0x7, 0, Ebx);
pub const F7_ECX: Place = Place::new(0x7, 0, Ecx);
pub const F7_EDX: Place = Place::new(0x7, 0, Edx);
pub const F7_1_EAX: Place = Place::new(0x7, 1, Eax);
pub const F7_1_EBX: Place = Place::new(0x7, 1, Ebx);
pub const F7_1_ECX: Place = Place::new(0x7, 1, Ecx);
pub const F7_1_EDX: Place = Place::new(0x7, 1, Edx);
pub const F7_2_EDX: Place = Place::new(0x7, 2, Edx);
/// The low half of XCR0: which parts of its state a processor saves.
pub const XCR0: Place = Place::new(0xd, 0, Eax);
pub const XSAVE: Place = Place::new(0xd, 1, Eax);
/// The same of what only the kernel saves.
pub const XSS: Place = Place::new(0xd, 1, Ecx);
pub const EXT1_ECX: Place = Place::new(0x8000_0001, 0, Ecx);
pub const EXT1_EDX: Place = Place::new(0x8000_0001, 0, Edx);
pub const EXT8_EBX: Place = Place::new(0x8000_0008, 0, Ebx);
pub const EXT21_EAX: Place = Place::new(0x8000_0021, 0, Eax);
pub const EXT21_ECX: Place = Place::new(0x8000_0021, 0, Ecx);

impl Place {
    const fn new(leaf: u32, index: u32, register: Register) -> Self {
        Self { leaf, index, register }
    }

    /// The feature that bit number `bit` tells of.
    pub const fn bit(self, name: &'static str, bit: u8) -> Feature {
        Feature { name, place: self, bit }
    }

    /// What `entries` have there; nothing if they have no such leaf.
    pub fn read(self, entries: &[kvm_cpuid_entry2]) -> u32 {
        entries.iter().find(|entry| self.is_of(entry)).map_or(0, |entry| match self.register {
            Eax => entry.eax,
            Ebx => entry.ebx,
            Ecx => entry.ecx,
            Edx => entry.edx,
        })
    }

    /// Changes it, if they have such a leaf.
    pub fn change(self, entries: &mut [kvm_cpuid_entry2], change: impl FnOnce(u32) -> u32) {
        if let Some(entry) = entries.iter_mut().find(|entry| self.is_of(entry)) {
            let register = match self.register {
                Eax => &mut entry.eax,
                Ebx => &mut entry.ebx,
                Ecx => &mut entry.ecx,
                Edx => &mut entry.edx,
            };
            *register = change(*register);
        }
    }

    fn is_of(self, entry: &kvm_cpuid_entry2) -> bool {
        (entry.function, entry.index) == (self.leaf, self.index)
    }
}

impl Feature {
    /// Its bit.
    pub const fn mask(&self) -> u32 {
        1 << self.bit
    }

    /// Whether `entries` tell of it.
    pub fn is_in(&self, entries: &[kvm_cpuid_entry2]) -> bool {
        self.place.read(entries) & self.mask() != 0
    }
}

/// The bits with these numbers.
pub const fn bits(numbers: &[u8]) -> u32 {
    let mut mask = 0;
    let mut rest = numbers;
    while let [first, others @ ..] = rest {
        mask |= 1 << *first;
        rest = others;
    }
    mask
}
