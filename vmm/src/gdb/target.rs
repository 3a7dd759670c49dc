//! The machine as a debugger sees it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};
use vm_memory::{Bytes, GuestAddress};

use super::registers;
use super::stopped::{Ended, Processor, Told};
use crate::cpu::thread::Trap;
use crate::machine::StopHandle;
use crate::memory::{DeviceMemory, PAGE_SIZE};

/// The first processor: gdb counts threads from one.
pub const FIRST: Tid = Tid::MIN;

/// How long a wait takes until the connection is looked at.
const SLICE: Duration = Duration::from_millis(10);

/// `int3`.
const BREAKPOINT: u8 = 0xcc;
const BREAKPOINT_EXCEPTION: u32 = 3;
/// How many breakpoints a processor has.
const HARDWARE_MAX: usize = 4;
/// Bits of DR6 that tell which of them was hit (SDM volume 3, section 18.2.3).
const DR6_HIT: u64 = 0xf;
const DR7_ALWAYS: u64 = 0x400;

/// A machine under a debugger.
pub struct Target {
    processors: Vec<Processor>,
    told: Receiver<Told>,
    memory: DeviceMemory,
    stop: StopHandle,
    hardware: Vec<u64>,
    /// By its address, what was there.
    software: BTreeMap<u64, u8>,
    /// The processor that is to execute one instruction when the guest goes on.
    stepping: Option<usize>,
    /// Which processors go on then; all of them, unless others are to stay stopped.
    going: Vec<usize>,
    others_stay: bool,
}

impl Target {
    pub fn new(
        processors: Vec<Processor>,
        told: Receiver<Told>,
        memory: DeviceMemory,
        stop: StopHandle,
    ) -> Self {
        let (hardware, software) = (Vec::new(), BTreeMap::new());
        Self {
            processors,
            told,
            memory,
            stop,
            hardware,
            software,
            stepping: None,
            going: Vec::new(),
            others_stay: false,
        }
    }

    /// Stops all processors that run. A trap that another one runs into meanwhile comes again when that goes on.
    pub fn stop_all(&mut self) {
        self.processors.iter().filter(|processor| processor.is_running()).for_each(Processor::pause);
        while self.processors.iter().any(Processor::is_running) {
            let Ok(told) = self.told.recv() else { return };
            self.note(&told);
        }
    }

    /// Why the guest has stopped, if it has within a moment.
    pub fn wait_for_stop(&mut self) -> Option<MultiThreadStopReason<u64>> {
        let told = self.told.recv_timeout(SLICE).ok()?;
        self.note(&told);
        match told {
            Told::Stopped(index, Some(trap)) if self.is_guests(index, trap) => {
                self.let_guest_have(index);
                None
            }
            Told::Stopped(index, Some(trap)) => {
                self.stop_all();
                Some(reason(index, trap))
            }
            Told::Stopped(index, None) => {
                self.go(index);
                None
            }
            Told::Ended(_) => {
                let all = self.processors.iter().all(Processor::has_ended);
                all.then_some(MultiThreadStopReason::Exited(0))
            }
        }
    }

    /// The guest runs on without a debugger.
    pub fn release(&mut self) {
        self.stop_all();
        for (address, original) in std::mem::take(&mut self.software) {
            let _it_is_gone = self.write(0, address, &[original]);
        }
        self.hardware.clear();
        self.stepping = None;
        (0..self.processors.len()).for_each(|index| {
            let _ended = self.debug(index, 0);
            self.go(index);
        });
    }

    /// Ends the machine.
    pub fn end_machine(&self) {
        self.stop.stop();
    }

    fn note(&mut self, told: &Told) {
        let (Told::Stopped(index, _) | Told::Ended(index)) = told;
        if let Some(processor) = self.processors.get_mut(*index) {
            processor.note(told);
        }
    }

    fn go(&mut self, index: usize) {
        self.processors.get_mut(index).into_iter().for_each(Processor::go);
    }

    /// Whether the guest has run into an `int3` of its own.
    fn is_guests(&self, index: usize, trap: Trap) -> bool {
        let rip = self.perform(index, |vcpu| vcpu.get_regs().map(|regs| regs.rip));
        trap.exception == BREAKPOINT_EXCEPTION
            && matches!(rip, Ok(Ok(rip)) if !self.software.contains_key(&rip))
    }

    fn let_guest_have(&mut self, index: usize) {
        let _ended = self.debug(index, KVM_GUESTDBG_INJECT_BP);
        self.go(index);
    }

    fn perform<T: Send + 'static>(
        &self,
        index: usize,
        work: impl FnOnce(&mut kvm_ioctls::VcpuFd) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        self.processors.get(index).ok_or(Ended)?.perform(work)
    }

    /// Has a processor leave the guest for what is wanted of it, and `further`.
    fn debug(&self, index: usize, further: u32) -> Result<(), Ended> {
        let mut debug = kvm_guest_debug { control: further, ..Default::default() };
        if self.stepping == Some(index) {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if !self.software.is_empty() {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if !self.hardware.is_empty() {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            let [addresses @ .., _, _, _, dr7] = &mut debug.arch.debugreg;
            *dr7 = DR7_ALWAYS;
            for ((number, to), address) in addresses.iter_mut().enumerate().zip(&self.hardware) {
                *to = *address;
                // Globally on; the rest of its bits mean an instruction.
                *dr7 |= 2 << (2 * number);
            }
        }
        if debug.control != 0 {
            debug.control |= KVM_GUESTDBG_ENABLE;
        }
        self.perform(index, move |vcpu| vcpu.set_guest_debug(&debug))?.map_err(|_| Ended)
    }

    /// The physical addresses of `bytes` bytes, page by page.
    fn translate(&self, index: usize, start: u64, bytes: usize) -> Option<Vec<(GuestAddress, usize)>> {
        let (mut pieces, mut address, mut left) = (Vec::new(), start, bytes);
        while left > 0 {
            let piece = usize::try_from(PAGE_SIZE - address % PAGE_SIZE).ok()?.min(left);
            let translated = self.perform(index, move |vcpu| vcpu.translate_gva(address));
            let physical = translated.ok()?.ok().filter(|found| found.valid != 0)?.physical_address;
            pieces.push((GuestAddress(physical), piece));
            (address, left) = (address.wrapping_add(piece as u64), left - piece);
        }
        Some(pieces)
    }

    fn read(&self, index: usize, start: u64, data: &mut [u8]) -> Option<()> {
        let mut rest = &mut *data;
        for (address, bytes) in self.translate(index, start, rest.len())? {
            let (piece, others) = rest.split_at_mut_checked(bytes)?;
            self.memory.read_slice(piece, address).ok()?;
            rest = others;
        }
        Some(())
    }

    /// Images of the host stay what they are: a guest's persistent memory cannot be written.
    fn write(&self, index: usize, start: u64, data: &[u8]) -> Option<()> {
        let mut rest = data;
        for (address, bytes) in self.translate(index, start, rest.len())? {
            let (piece, others) = rest.split_at_checked(bytes)?;
            self.memory.write_slice(piece, address).ok()?;
            rest = others;
        }
        Some(())
    }
}

fn index(tid: Tid) -> usize {
    tid.get() - 1
}

fn tid(index: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(index)
}

fn reason(index: usize, trap: Trap) -> MultiThreadStopReason<u64> {
    match trap {
        Trap { exception: BREAKPOINT_EXCEPTION, .. } => MultiThreadStopReason::SwBreak(tid(index)),
        Trap { dr6, .. } if dr6 & DR6_HIT != 0 => MultiThreadStopReason::HwBreak(tid(index)),
        // An instruction has been executed.
        _ => MultiThreadStopReason::SignalWithThread { tid: tid(index), signal: Signal::SIGTRAP },
    }
}

/// gdb is told "no such thing there", and goes on.
fn fault<T>(done: Option<T>) -> TargetResult<T, Target> {
    done.ok_or(TargetError::Errno(libc::EFAULT as u8))
}

impl gdbstub::target::Target for Target {
    type Arch = X86_64_SSE;
    type Error = Ended;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Target {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let read = self.perform(index(tid), |vcpu| registers::read(vcpu));
        *registers = fault(read.ok().and_then(Result::ok))?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let registers = registers.clone();
        let written = self.perform(index(tid), move |vcpu| registers::write(vcpu, &registers));
        fault(written.ok().and_then(Result::ok))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        fault(self.read(index(tid), start, data))?;
        Ok(data.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        fault(self.write(index(tid), start, data))
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Ended> {
        let there = self.processors.iter().enumerate().filter(|(_, processor)| !processor.has_ended());
        there.for_each(|(index, _)| active(tid(index)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Target {
    fn resume(&mut self) -> Result<(), Ended> {
        let alive = self.processors.iter().enumerate().filter(|(_, processor)| !processor.has_ended());
        alive.map(|(index, _)| index).try_for_each(|index| self.debug(index, 0))?;
        for index in 0..self.processors.len() {
            if !self.others_stay || self.going.contains(&index) {
                self.go(index);
            }
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Ended> {
        (self.stepping, self.others_stay) = (None, false);
        self.going.clear();
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Ended> {
        self.going.push(index(tid));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Target {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Ended> {
        self.stepping = Some(index(tid));
        self.going.push(index(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Target {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Ended> {
        self.others_stay = true;
        Ok(())
    }
}

impl Breakpoints for Target {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Target {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let mut original = [0];
        let set = self.read(0, address, &mut original).and_then(|()| self.write(0, address, &[BREAKPOINT]));
        if set.is_some() && !self.software.contains_key(&address) {
            self.software.insert(address, original[0]);
        }
        Ok(set.is_some())
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let Some(original) = self.software.remove(&address) else { return Ok(false) };
        Ok(self.write(0, address, &[original]).is_some())
    }
}

impl HwBreakpoint for Target {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let there = self.hardware.contains(&address);
        if !there && self.hardware.len() < HARDWARE_MAX {
            self.hardware.push(address);
        }
        Ok(self.hardware.contains(&address))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let before = self.hardware.len();
        self.hardware.retain(|there| *there != address);
        Ok(self.hardware.len() < before)
    }
}
