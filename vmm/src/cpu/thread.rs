//! The threads that run the processors. They do nothing but KVM_RUN and what its exits ask for; data goes
//! past them, by ioeventfd and irqfd.
//!
//! A thread whose processor has ended waits for the process's end: to end takes a thread more system calls than
//! to run a processor does, and it would have to be allowed them all the time.

use std::cell::Cell;
use std::io;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use jail::filter;
use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::unistd::{getpid, gettid};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::confinement;
use crate::error::Error;
use crate::gdb::Debugged;

/// What a processor's thread needs for its stack: exits are handled without recursion and without large buffers.
const STACK_BYTES: usize = 128 << 10;

/// How a processor's thread ended.
#[derive(Debug)]
pub enum VcpuEnd {
    /// The guest has reset the machine; a triple fault is how it does that.
    Reset,
    /// It was told to stop.
    Stopped,
    /// It cannot go on.
    Failed(VcpuFailure),
}

/// Why a processor cannot go on.
#[derive(Debug)]
pub struct VcpuFailure {
    /// Its number.
    pub vcpu: u8,
    /// What KVM reported.
    pub reason: String,
    /// Its registers then, for a human.
    pub registers: String,
}

/// What a debugger has had a processor leave the guest for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// The exception's number.
    pub exception: u32,
    /// DR6 as the processor would have it.
    pub dr6: u64,
}

/// Gets a thread out of the guest.
#[derive(Clone, Copy, Debug)]
pub struct Kick {
    /// Who kicks it may not ask for the number any more.
    process_id: libc::pid_t,
    thread_id: libc::pid_t,
}

impl Kick {
    /// What gets the calling thread out of the guest.
    pub fn of_this_thread() -> Self {
        Self { process_id: getpid().as_raw(), thread_id: gettid().as_raw() }
    }

    /// Does so.
    pub fn send(&self) {
        // SAFETY: the call takes numbers; the thread is there until the process ends, and the signal has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process_id, self.thread_id, kick_signal()) };
    }
}

/// A processor's thread.
#[derive(Debug)]
pub struct VcpuThread {
    kick: Kick,
    go: Sender<()>,
    ended: Receiver<()>,
}

impl VcpuThread {
    /// Starts a thread that takes its filter if it is to be `confined`, waits for [`VcpuThread::go`], and then runs `vcpu`, number
    /// `index`, until it ends or `stopping` is set and it is [kicked](Self::kick); then it calls `on_end`.
    pub fn start(
        index: u8,
        vcpu: VcpuFd,
        bus: Arc<Bus>,
        stopping: Arc<AtomicBool>,
        confined: bool,
        debugged: Option<Debugged>,
        on_end: impl FnOnce(VcpuEnd) + Send + 'static,
    ) -> Result<Self, Error> {
        let (report, reported) = channel();
        let (go, started) = channel();
        let (end, ended) = channel();
        let body = move || {
            let kick = Kick::of_this_thread();
            let result = if confined { filter::install(confinement::VCPU) } else { Ok(()) };
            let failed = result.is_err();
            let _nobody_waits = report.send(result.map(|()| kick));
            let mut vcpu = vcpu;
            let mut vcpu = Enrolled::new(&mut vcpu);
            if !failed && started.recv().is_ok() {
                on_end(run(index, &mut vcpu, &bus, &stopping, debugged.as_ref()));
            }
            drop((debugged, end));
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .stack_size(STACK_BYTES)
            .spawn(body)
            .map_err(Error::host("start a processor's thread"))?;
        let gone = |_| Error::host("start a processor's thread")(io::ErrorKind::BrokenPipe.into());
        let kick = reported.recv().map_err(gone)??;
        Ok(Self { kick, go, ended })
    }

    /// Lets it run.
    pub fn go(&self) {
        let _ended_already = self.go.send(());
    }

    /// What gets the thread out of the guest, so that it sees that it is to stop.
    pub fn kick(&self) -> Kick {
        self.kick
    }

    /// Waits until the processor has ended, or will never run.
    pub fn wait(self) {
        drop(self.go);
        // Nothing is ever sent: it is the sender's end that tells.
        let _ended = self.ended.recv();
    }
}

thread_local! {
    /// What this thread shares with KVM while it runs a processor.
    static SHARED: Cell<*mut kvm_run> = const { Cell::new(null_mut()) };
}

/// The signal that gets a thread out of KVM_RUN: the first real-time signal, which has no other meaning.
pub(crate) fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Installs the handler of the signal that a [`Kick`] is.
pub fn install_kick_handler() -> io::Result<()> {
    register_signal_handler(kick_signal(), on_kick)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// A signal that comes while the thread is in KVM_RUN makes that return. One that comes just before it would be lost, so
/// the flag that KVM looks at on entry is set as well (KVM API, section 5, immediate_exit).
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let shared = SHARED.get();
    if !shared.is_null() {
        // SAFETY: `Enrolled` sets the pointer to this thread's live kvm_run and clears it before that is unmapped. The
        // handler interrupts only this thread, and the field is a byte that KVM expects to be written at any time.
        unsafe { (&raw mut (*shared).immediate_exit).write_volatile(1) };
    }
}

/// While this lives, a kick reaches the processor of this thread.
pub(crate) struct Enrolled<'a>(&'a mut VcpuFd);

impl<'a> Enrolled<'a> {
    /// Enrols the processor with the calling thread, which must be the one to run it.
    pub(crate) fn new(vcpu: &'a mut VcpuFd) -> Self {
        SHARED.set(vcpu.get_kvm_run());
        Self(vcpu)
    }

    /// The processor.
    pub(crate) fn vcpu(&mut self) -> &mut VcpuFd {
        self.0
    }
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        SHARED.set(null_mut());
    }
}

/// What to do after an exit.
enum Next {
    Enter,
    Trapped(Trap),
    Reset,
    Fail(String),
}

/// Runs a processor until it ends, or has left the guest and is `stopping`.
pub(crate) fn run(
    index: u8,
    vcpu: &mut Enrolled<'_>,
    bus: &Bus,
    stopping: &AtomicBool,
    debugged: Option<&Debugged>,
) -> VcpuEnd {
    let mut trap = None;
    loop {
        if let Some(debugged) = debugged {
            debugged.attend(vcpu.vcpu(), trap.take(), stopping);
        }
        if stopping.load(Ordering::SeqCst) {
            return VcpuEnd::Stopped;
        }
        match enter(vcpu.vcpu(), bus) {
            Next::Enter => {}
            Next::Trapped(into) => trap = Some(into),
            Next::Reset => return VcpuEnd::Reset,
            Next::Fail(reason) => {
                let registers = registers(vcpu.vcpu());
                return VcpuEnd::Failed(VcpuFailure { vcpu: index, reason, registers });
            }
        }
    }
}

fn enter(vcpu: &mut VcpuFd, bus: &Bus) -> Next {
    match vcpu.run() {
        Ok(VcpuExit::MmioRead(_, data)) => bus.mmio_read(data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.mmio_write(address, data),
        Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
        Ok(VcpuExit::IoOut(port, data)) => bus.port_write(port, data),
        Ok(VcpuExit::Shutdown) => return Next::Reset,
        // Only a debugger's doing.
        Ok(VcpuExit::Debug(exit)) => return Next::Trapped(Trap { exception: exit.exception, dr6: exit.dr6 }),
        Ok(VcpuExit::InternalError) => return Next::Fail(internal_error(vcpu)),
        Ok(VcpuExit::FailEntry(reason, _)) => {
            return Next::Fail(format!(
                "the processor refuses the guest's state (hardware reason {reason:#x})"
            ));
        }
        Ok(exit) => return Next::Fail(format!("unexpected exit {exit:?}")),
        // A kick, or a processor that has just been started by another.
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
        Err(error) => return Next::Fail(format!("KVM_RUN: {error}")),
    }
    Next::Enter
}

fn internal_error(vcpu: &mut VcpuFd) -> String {
    const EMULATION: u32 = 1;
    // SAFETY: the exit was KVM_EXIT_INTERNAL_ERROR, for which KVM fills in this member of the union; all of its
    // fields are integers.
    let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    match suberror {
        EMULATION => "KVM cannot emulate an instruction of the guest".to_owned(),
        other => format!("KVM internal error {other}"),
    }
}

fn registers(vcpu: &VcpuFd) -> String {
    match (vcpu.get_regs(), vcpu.get_sregs()) {
        (Ok(regs), Ok(sregs)) => format!(
            "rip {:#x} rsp {:#x} rflags {:#x} rax {:#x} cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} efer {:#x} cs {:#x}",
            regs.rip,
            regs.rsp,
            regs.rflags,
            regs.rax,
            sregs.cr0,
            sregs.cr2,
            sregs.cr3,
            sregs.cr4,
            sregs.efer,
            sregs.cs.selector,
        ),
        _ => "not readable".to_owned(),
    }
}
