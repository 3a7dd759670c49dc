//! The virtual machine in the kernel: memory slots, interrupts' routes, and the descriptors that stand for
//! notifications and interrupts.

use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MEM_READONLY, KvmIrqRouting, kvm_clock_data,
    kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::error::Error;
use crate::ioapic::{Route, Router};
use crate::layout::{IOAPIC_PINS, KVM_TSS_START};
use crate::memory::{Mapping, Region};

/// A virtual machine. Fields are dropped in this order: first the machine, then the memory that it is made of.
#[derive(Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
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
    /// A machine without memory and processors. KVM has the interrupt controller of each processor, and no other ([`crate::ioapic`]).
    ///
    /// There is no PIC and no PIT: Linux does not ask for them when it has an MP table, kvmclock and the TSC deadline timer.
    pub fn new(kvm: &Kvm) -> Result<Self, Error> {
        let fd = loop {
            match kvm.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                result => break result.map_err(Error::kvm("create a virtual machine"))?,
            }
        };
        fd.set_tss_address(KVM_TSS_START as usize)
            .map_err(Error::kvm("set the task state segment's address"))?;
        let mut split = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
        split.args[0] = IOAPIC_PINS.into();
        fd.enable_cap(&split).map_err(Error::kvm("create the interrupt controllers"))?;
        Ok(Self { fd: Arc::new(fd), memory: Vec::new() })
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

    /// Who routes the machine's interrupts.
    pub fn router(&self) -> impl Router + 'static {
        KvmRouter(Arc::clone(&self.fd))
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

struct KvmRouter(Arc<VmFd>);

impl Router for KvmRouter {
    fn route(&self, routes: &[Route]) -> Result<(), Error> {
        let entries: Vec<_> = routes.iter().map(routing_entry).collect();
        // KVM takes more than there are pins.
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG));
        let routed = routing.and_then(|routing| self.0.set_gsi_routing(&routing));
        routed.map_err(Error::kvm("route the interrupts"))
    }
}

fn routing_entry(route: &Route) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi { address_lo: route.address, data: route.data, ..Default::default() };
    kvm_irq_routing_entry {
        gsi: route.gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..Default::default()
    }
}
