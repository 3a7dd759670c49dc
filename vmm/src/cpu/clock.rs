//! The processors' time-stamp counters.

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;

vmm_sys_util::ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);

/// The host's counter.
pub fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets processes have it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Makes the guest's counter the host's plus `offset`. To write the counter's register would not do: KVM takes a value that is
/// less than a second from what it is for the wish that all be equal, and changes nothing.
pub fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> Result<(), kvm_ioctls::Error> {
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: std::ptr::from_ref(&offset) as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads the attribute, and the 8 bytes at its address, both of which outlive the call.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) };
    if result == 0 { Ok(()) } else { Err(kvm_ioctls::Error::last()) }
}
