//! KVM's structures as the bytes that they are.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};

/// What is nothing but bytes.
///
/// # Safety
///
/// Any bytes must be a value, and every byte of a value must be initialised: no padding, no references, no enums.
pub unsafe trait Plain: Sized {}

macro_rules! plain {
    ($($structure:ty),*) => { $(
        // SAFETY: a structure of integers that the kernel's interface lays out without implicit padding.
        unsafe impl Plain for $structure {}
    )* };
}

plain!(u32, u64, kvm_mp_state, kvm_regs, kvm_sregs, kvm_xsave, kvm_xcrs, kvm_debugregs);
plain!(kvm_lapic_state, kvm_vcpu_events, kvm_msr_entry);

/// Appends `value` to `bytes`.
pub fn put<T: Plain>(bytes: &mut Vec<u8>, value: &T) {
    // SAFETY: the value is all initialised bytes, of this size.
    bytes.extend_from_slice(unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
    });
}

/// Takes a value from the beginning of `bytes`; `None` if there are too few.
pub fn take<T: Plain>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = bytes.split_at_checked(size_of::<T>())?;
    *bytes = rest;
    // SAFETY: there are as many bytes as the value has, and any are one; they need not be aligned.
    Some(unsafe { value.as_ptr().cast::<T>().read_unaligned() })
}

/// Takes `count` values, of which there are at most as `bytes` hold.
pub fn take_all<T: Plain>(bytes: &mut &[u8], count: u32) -> Option<Vec<T>> {
    (0..count).map(|_| take(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_and_nothing_else() {
        let regs = kvm_regs { rip: 0xfff0, rflags: 2, ..Default::default() };
        let mut bytes = Vec::new();
        put(&mut bytes, &7_u32);
        put(&mut bytes, &regs);
        let mut rest = bytes.as_slice();
        assert_eq!(take::<u32>(&mut rest), Some(7));
        assert_eq!(take::<kvm_regs>(&mut rest), Some(regs));
        assert!(rest.is_empty() && take::<u32>(&mut rest).is_none());
        assert!(take_all::<kvm_msr_entry>(&mut [0; 40].as_slice(), u32::MAX).is_none());
    }
}
