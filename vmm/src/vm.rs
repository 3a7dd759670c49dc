//! The virtual machine in the kernel: memory slots, interrupt controllers, and the descriptors that stand for
//! notifications and interrupts.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_clock_data, kvm_irqchip, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::error::Error;
use crate::layout::KVM_TSS_START;
use crate::memory::{Mapping, Region};

/// A virtual machine. Fields are dropped in this order: first the machine, then the memory that it is made of.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    memory: Vec<Arc<Mapping>>,
}

/// What the guest may do to a memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write: RAM.
    ReadWrite,
    /// Only read: a write is an exit to the [bus](crate::bus).
    ReadOnly,
}

impl Vm {
    /// A machine without memory and processors, with KVM's own interrupt controllers.
    ///
    /// There is no PIT: Linux does not ask for one when it has kvmclock and the TSC deadline timer.
    pub fn new(kvm: &Kvm) -> Result<Self, Error> {
        let fd = loop {
            match kvm.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                result => break result.map_err(Error::kvm("create a virtual machine"))?,
            }
        };
        fd.set_tss_address(KVM_TSS_START as usize)
            .map_err(Error::kvm("set the task state segment's address"))?;
        fd.create_irq_chip().map_err(Error::kvm("create the interrupt controllers"))?;
        Ok(Self { fd, memory: Vec::new() })
    }

    /// Lets the guest have `region`.
    pub fn add_memory(&mut self, region: &Region, access: Access) -> Result<(), Error> {
        let slot = kvm_userspace_memory_region {
            slot: self.memory.len() as u32,
            flags: if access == Access::ReadOnly { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: region.start.0,
            memory_size: region.mapping.bytes(),
            userspace_addr: region.mapping.host_address(),
        };
        // SAFETY: the mapping is of this size, and is kept until the machine is gone.
        unsafe { self.fd.set_user_memory_region(slot) }.map_err(Error::kvm("give the guest its memory"))?;
        self.memory.push(Arc::clone(&region.mapping));
        Ok(())
    }

    /// Creates processor number `index`.
    pub fn create_vcpu(&self, index: u8) -> Result<VcpuFd, Error> {
        self.fd.create_vcpu(index.into()).map_err(Error::kvm("create a processor"))
    }

    /// Makes a write of the four bytes of `value` to `port` write to `fd` instead of leaving the guest.
    pub fn add_notification(&self, fd: &EventFd, port: u16, value: u32) -> Result<(), Error> {
        self.fd
            .register_ioevent(fd, &IoEventAddress::Pio(port.into()), value)
            .map_err(Error::kvm("register a queue's notification"))
    }

    /// The state of an interrupt controller.
    pub fn interrupt_controller(&self, chip_id: u32) -> Result<kvm_irqchip, Error> {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        self.fd.get_irqchip(&mut chip).map_err(Error::kvm("tell an interrupt controller's state"))?;
        Ok(chip)
    }

    /// Puts an interrupt controller into a state.
    pub fn set_interrupt_controller(&self, chip: &kvm_irqchip) -> Result<(), Error> {
        self.fd.set_irqchip(chip).map_err(Error::kvm("set an interrupt controller's state"))
    }

    /// kvmclock, in nanoseconds.
    pub fn clock_ns(&self) -> Result<u64, Error> {
        Ok(self.fd.get_clock().map_err(Error::kvm("tell the guest's clock"))?.clock)
    }

    /// Sets kvmclock. The time of day, which it could set as well, a guest asks for itself.
    pub fn set_clock_ns(&self, clock: u64) -> Result<(), Error> {
        let clock = kvm_clock_data { clock, ..Default::default() };
        self.fd.set_clock(&clock).map_err(Error::kvm("set the guest's clock"))
    }

    /// Makes a write to `fd` the interrupt `gsi`.
    pub fn add_interrupt(&self, fd: &EventFd, gsi: u32) -> Result<(), Error> {
        self.fd.register_irqfd(fd, gsi).map_err(Error::kvm("register a device's interrupt"))
    }
}
