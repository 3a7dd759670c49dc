//! How a template is made: a machine without devices boots until its kernel asks what it is for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use kvm_ioctls::{Kvm, VcpuFd};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::ProtFlags;

use super::state::{MachineState, SpecificRegisters};
use super::{Header, Key, offset_in_file, pieces};
use crate::bus::{Bus, Rom};
use crate::console::ConsoleLog;
use crate::cpu;
use crate::cpu::thread::{Enrolled, Kick, VcpuEnd, install_kick_handler, run};
use crate::error::Error;
use crate::ioapic::{Ioapic, Registers};
use crate::memory::{DeviceMemory, Mapping, PAGE_SIZE, Sharing};
use crate::purpose::{Answer, Hold};
use crate::shape::Shape;
use crate::vm::{Access, Vm};

/// Boots `kernel` in a machine of this `shape`, and leaves the template of that `key` in `file`, which is empty.
pub fn make(kvm: &Kvm, shape: &Shape, kernel: &File, file: &File, key: &Key) -> Result<(), Error> {
    file.set_len(shape.memory_bytes).map_err(Error::host("give a template its size"))?;
    let ram = shape.map_ram(|start, bytes| {
        let mut mapping = Mapping::anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        mapping.overlay(0, file, offset_in_file(start), bytes, Sharing::Shared)?;
        Ok(mapping)
    })?;
    let (kernel, image) = shape.open_kernel(kernel)?;
    let memory = DeviceMemory::new(ram.clone(), Vec::new())?;
    shape.fill(&memory, &image)?;

    let mut vm = Vm::new(kvm)?;
    ram.iter().try_for_each(|region| vm.add_memory(region, Access::ReadWrite))?;
    let vcpus = cpu::create(&vm, &shape.cpuid)?;
    let fresh = vcpus.iter().map(|vcpu| SpecificRegisters::of(kvm, vcpu)).collect::<Result<Vec<_>, _>>();
    let fresh = fresh.map_err(Error::kvm("tell a processor's registers"))?;
    cpu::enter_kernel(&vcpus, kernel.entry)?;
    let ioapic = Ioapic::attach(&mut vm, Registers::default())?;
    let Booted { vcpus, ioapic, purpose_address } = boot(vcpus, ioapic)?;
    let state = MachineState::save(kvm, &vm, ioapic, &vcpus, &fresh)?.to_bytes();
    let header = Header { key: *key, state_bytes: state.len() as u64, purpose_address };
    finish(file, shape.memory_bytes, &state, header).map_err(Error::host("write a template"))
}

/// A machine whose kernel has asked what it is for.
struct Booted {
    vcpus: Vec<VcpuFd>,
    ioapic: Registers,
    /// Where it looks for the answer.
    purpose_address: u32,
}

/// Runs the processors until then.
fn boot(vcpus: Vec<VcpuFd>, ioapic: Ioapic) -> Result<Booted, Error> {
    install_kick_handler().map_err(Error::host("install a signal handler"))?;
    let (console, hold) = (ConsoleLog::new(None), Arc::new(Hold::default()));
    let answer = Answer::Hold(Arc::clone(&hold));
    let bus = Bus::new(Vec::new(), ioapic, Rom::new(0..0, None), answer, console.clone(), Arc::default());
    let (bus, stopping) = (&bus, &hold.stopping);
    let (tell, told) = channel();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(vcpus)
            .map(|(index, mut vcpu)| {
                let tell = tell.clone();
                scope.spawn(move || {
                    let _kick = tell.send(Some(Kick::of_this_thread()));
                    let end = run(index, &mut Enrolled::new(&mut vcpu), bus, stopping, None);
                    let _end = tell.send(None);
                    (vcpu, end)
                })
            })
            .collect();
        // The first that ends ends all. A thread that has not told how to kick it sees that it is to stop before it runs.
        let kicks: Vec<Kick> = told.iter().map_while(|kick| kick).collect();
        stopping.store(true, Ordering::SeqCst);
        kicks.iter().chain(told.try_iter().flatten().collect::<Vec<_>>().iter()).for_each(Kick::send);
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut vcpus = Vec::with_capacity(ended.len());
    for (mut vcpu, end) in ended {
        match end {
            VcpuEnd::Stopped => {}
            VcpuEnd::Failed(failure) => return Err(Error::Vcpu { failure, console: console.last_lines() }),
            VcpuEnd::Reset => return Err(Error::GuestPanic { console: console.last_lines() }),
        }
        complete(&mut vcpu).map_err(Error::kvm("complete what a processor has begun"))?;
        vcpus.push(vcpu);
    }
    let address = hold.address().ok_or_else(|| Error::GuestPanic { console: console.last_lines() })?;
    Ok(Booted { vcpus, ioapic: bus.ioapic_registers(), purpose_address: address })
}

/// KVM completes the access that a processor has left the guest for when it next enters it. It is not to enter it.
fn complete(vcpu: &mut VcpuFd) -> Result<(), kvm_ioctls::Error> {
    vcpu.set_kvm_immediate_exit(1);
    let entered = vcpu.run().map(drop);
    vcpu.set_kvm_immediate_exit(0);
    match entered {
        Err(error) if error.errno() == libc::EINTR => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(kvm_ioctls::Error::new(libc::EPROTO)),
    }
}

/// Writes what comes after the memory, and fills the holes that are too small to be worth one.
pub(super) fn finish(file: &File, memory_end: u64, state: &[u8], header: Header) -> std::io::Result<()> {
    for piece in pieces(file, memory_end)? {
        fallocate(file, FallocateFlags::empty(), piece.start as i64, (piece.end - piece.start) as i64)?;
    }
    file.write_all_at(state, memory_end)?;
    let header_at = (memory_end + state.len() as u64).next_multiple_of(PAGE_SIZE);
    file.set_len(header_at + PAGE_SIZE)?;
    file.write_all_at(&header.to_bytes(), header_at)
}
