//! A machine: from open files to a running guest, and to its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jail::filter;
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::GuestAddress;

use crate::boot::elf::Image;
use crate::bus::{Bus, Rom};
use crate::confinement;
use crate::console::{ConsoleLog, Sink};
use crate::cpu;
use crate::cpu::thread::{VcpuEnd, VcpuFailure, VcpuThread, install_kick_handler};
use crate::devices::{self, Devices};
use crate::error::Error;
use crate::event_loop::{EventLoop, LoopHandle};
use crate::gdb::{Debugger, Gdb};
use crate::ioapic::{Ioapic, Registers};
use crate::layout;
use crate::memory::{DeviceMemory, HUGE_PAGE_SIZE, Region};
use crate::purpose::{Answer, Purpose};
use crate::shape::Shape;
use crate::template::Template;
use crate::timeline::{Phase, Timeline};
use crate::virtio::balloon::Balloon;
use crate::virtio::block::{Block, BlockConfig};
use crate::virtio::console::Console;
use crate::virtio::fs::{Fs, FsConfig};
use crate::virtio::net::{self, Net, NetConfig};
use crate::virtio::pmem::{Files, Pmem};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::{Vsock, VsockConfig};
use crate::virtio::window::Windows;
use crate::vm::{Access, Vm};

/// What the thread that creates the virtual machine needs for its stack.
const CREATION_STACK_BYTES: usize = 64 << 10;

/// What a machine starts from.
pub enum Start {
    /// An uncompressed x86-64 ELF kernel with a PVH entry point, that asks what the machine is for ([`crate::purpose`]). It must not
    /// change while the machine runs.
    Kernel(File),
    /// A machine that had booted, of the same shape.
    Template(Template),
}

impl Start {
    /// The file.
    pub fn file(&self) -> &File {
        match self {
            Self::Kernel(file) => file,
            Self::Template(template) => template.file(),
        }
    }

    /// The file, if it is mapped beside the machine's RAM: a template is mapped in its place.
    pub fn mapped_beside_ram(&self) -> Option<&File> {
        match self {
            Self::Kernel(file) => Some(file),
            Self::Template(_) => None,
        }
    }
}

/// What a machine is made of. Everything is open already: nothing here is a path, and nothing is parsed.
pub struct MachineConfig {
    /// `/dev/kvm`; see [`crate::probe::open_kvm`].
    pub kvm: Kvm,
    /// Its processors, its memory and the kernel's parameters.
    pub shape: Shape,
    /// What it starts from.
    pub start: Start,
    /// Files that the guest reads as `/dev/pmem0p1` and so on, in this order. They must not shrink while the machine runs.
    pub pmem: Vec<File>,
    /// An eventfd to which each of the guest's attempts to write those adds 1.
    pub pmem_writes: Option<OwnedFd>,
    /// Disks: `/dev/vda` and so on, in this order.
    pub blocks: Vec<BlockConfig>,
    /// Network cards: `eth0` and so on, in this order.
    pub nets: Vec<NetConfig>,
    /// File systems that others serve, each mounted by its tag.
    pub file_systems: Vec<FsConfig>,
    /// A socket device.
    pub vsock: Option<VsockConfig>,
    /// Whether its threads give up all system calls but those in [`crate::confinement`], for good. The process must be one that
    /// only runs the machine, and has no_new_privs.
    pub confined: bool,
    /// Whose debuggers the machine waits for, and serves. One that has it is not confined.
    pub gdb: Option<Gdb>,
    /// Where the guest's console output goes as it comes, beside the end of it that the machine keeps.
    pub console: Option<Sink>,
}

impl MachineConfig {
    /// A machine of these and nothing else, which runs confined.
    pub fn new(kvm: Kvm, shape: Shape, start: Start) -> Self {
        Self {
            kvm,
            shape,
            start,
            pmem: Vec::new(),
            pmem_writes: None,
            blocks: Vec::new(),
            nets: Vec::new(),
            file_systems: Vec::new(),
            vsock: None,
            confined: true,
            gdb: None,
            console: None,
        }
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest reset the machine. This is how it powers off, too: there is no other way out.
    Reset,
    /// A [`StopHandle`] ended it.
    Stopped,
}

/// What the event loop is stopped with.
#[derive(Debug)]
enum Outcome {
    Exit(Exit),
    Failed(VcpuFailure),
}

/// Ends a running machine at once, from any thread: the guest gets no chance to do anything about it.
#[derive(Clone)]
pub struct StopHandle(LoopHandle<Outcome>);

impl StopHandle {
    /// Ends the machine; [`Machine::run`] returns [`Exit::Stopped`]. Before `run` it makes that return at once, and
    /// after it nothing happens.
    pub fn stop(&self) {
        self.0.stop(Outcome::Exit(Exit::Stopped));
    }
}

/// The RAM of a machine.
///
/// A kernel that boots touches a little in many places, where huge pages would be mostly waste: twice the memory, and the
/// time to zero it. Only its image and its page descriptors are dense. What runs later fills its memory, and is faster with them.
#[derive(Clone)]
pub struct Ram(Vec<Region>);

impl Ram {
    /// Lets what is touched from now on be in huge pages.
    pub fn allow_huge_pages(&self) {
        self.0.iter().for_each(|region| region.mapping.advise_huge_pages(0..u64::MAX, true));
    }
}

/// What is in a machine's memory before it runs.
struct Contents {
    ram: Vec<Region>,
    pmem: Option<Region>,
    memory: DeviceMemory,
    /// What tells the guest of its pmem's parts.
    parameter: String,
    /// Where the kernel is entered, if it is.
    entry: Option<u32>,
}

impl Contents {
    fn load(config: &MachineConfig) -> Result<Self, Error> {
        let files = Files::map(&config.pmem)?;
        let parameter = files.as_ref().map(Files::kernel_parameter).unwrap_or_default();
        let pmem = files.map(|files| place(files, config.shape.memory_bytes)).transpose()?;
        let memory = |ram: &[Region]| DeviceMemory::new(ram.to_vec(), pmem.iter().cloned().collect());
        let (ram, memory, entry) = match &config.start {
            Start::Template(template) => {
                let ram = template.map_ram(&config.shape)?;
                let memory = memory(&ram)?;
                (ram, memory, None)
            }
            Start::Kernel(file) => {
                let ram = config.shape.map_private_ram()?;
                let (kernel, image) = config.shape.open_kernel(file)?;
                advise(&ram, &image);
                let memory = memory(&ram)?;
                config.shape.fill(&memory, &image)?;
                (ram, memory, Some(kernel.entry))
            }
        };
        Ok(Self { ram, pmem, memory, parameter, entry })
    }
}

/// A machine that is ready to run. Fields are dropped in this order: processors, then the rest of the virtual machine,
/// then its memory.
pub struct Machine {
    confined: bool,
    vcpus: Vec<VcpuFd>,
    bus: Arc<Bus>,
    events: EventLoop<Outcome>,
    vm: Vm,
    ram: Ram,
    console: ConsoleLog,
    timeline: Arc<Timeline>,
    debugger: Option<Debugger>,
}

impl Machine {
    /// Builds a machine, which does not run yet.
    pub fn build(mut config: MachineConfig) -> Result<Self, Error> {
        let console = ConsoleLog::new(config.console.take());
        let timeline = Arc::new(Timeline::default());

        let (mut vm, contents) = create_vm(&config.kvm, || Contents::load(&config))?;
        let Contents { ram, pmem, memory, parameter, entry } = contents;
        ram.iter().try_for_each(|region| vm.add_memory(region, Access::ReadWrite))?;
        pmem.iter().try_for_each(|region| vm.add_memory(region, Access::ReadOnly))?;

        let events = EventLoop::new().map_err(Error::host("create the event loop"))?;
        let windows = Windows::new()?;
        vm.add_memory(windows.region(), Access::ReadOnly)?;
        let registers = match &config.start {
            Start::Template(template) => template.ioapic(),
            Start::Kernel(_) => Registers::default(),
        };
        let ioapic = Ioapic::attach(&mut vm, registers)?;
        let mut devices = Devices::new(&vm, &windows, &memory, events.handle(), &console);
        devices.attach(Console::new(console.clone()))?;
        devices.attach(Rng)?;
        devices.attach(Balloon)?;
        if let Some(region) = &pmem {
            devices.attach(Pmem::new(region.start, region.mapping.bytes()))?;
        }
        for block in config.blocks {
            devices.attach(Block::new(block).map_err(Error::device("block"))?)?;
        }
        let cards = if config.nets.is_empty() { "" } else { net::KERNEL_PARAMETER };
        for net in config.nets {
            devices.attach(Net::new(net, &memory)?)?;
        }
        for file_system in config.file_systems {
            devices.attach(Fs::new(file_system).map_err(Error::device("file system"))?)?;
        }
        if let Some(vsock) = config.vsock {
            devices.attach(Vsock::new(vsock).map_err(Error::device("vsock"))?)?;
        }
        let transports = devices.into_transports();

        let purpose = Purpose::new(parameter + cards + &devices::kernel_parameters(transports.len()))?;
        let vcpus = cpu::create(&vm, &config.shape.cpuid)?;
        let answer = match &config.start {
            Start::Template(template) => {
                template.go_on(&vm, &vcpus, &memory, &purpose).map(|()| Answer::None)?
            }
            Start::Kernel(_) => Answer::tell(purpose, memory.clone()),
        };
        if let Some(entry) = entry {
            cpu::enter_kernel(&vcpus, entry)?;
        }
        let rom = rom(pmem, config.pmem_writes);
        let bus = Bus::new(transports, ioapic, rom, answer, console.clone(), Arc::clone(&timeline));
        timeline.record(Phase::Built);
        let confined = config.confined && config.gdb.is_none();
        let debugger = config.gdb.map(|gdb| gdb.debugger(&memory));
        Ok(Self {
            debugger,
            confined,
            vcpus,
            bus: Arc::new(bus),
            events,
            vm,
            ram: Ram(ram),
            console,
            timeline,
        })
    }

    /// A handle that ends the machine.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.events.handle())
    }

    /// The machine's RAM.
    pub fn ram(&self) -> Ram {
        self.ram.clone()
    }

    /// When what happened; it fills while the machine runs.
    pub fn timeline(&self) -> Arc<Timeline> {
        Arc::clone(&self.timeline)
    }

    /// The console, of which the end is kept.
    pub fn console(&self) -> ConsoleLog {
        self.console.clone()
    }

    /// Runs the machine to its end. The calling thread does the I/O; each processor has a thread of its own, and no guest code
    /// runs before all of them are confined.
    pub fn run(self) -> Result<Exit, Error> {
        let stop = self.stop_handle();
        let Self { confined, vcpus, bus, events, vm, ram: _, console, timeline, mut debugger } = self;
        let debugged = debugger.as_mut().map(|debugger| debugger.processors(vcpus.len()));
        let mut debugged = debugged.into_iter().flatten();
        install_kick_handler().map_err(Error::host("install a signal handler"))?;
        let stopping = Arc::new(AtomicBool::new(false));
        timeline.record(Phase::KernelEntry);
        let mut threads = Vec::with_capacity(vcpus.len());
        let mut outcome = Ok(());
        for (index, vcpu) in (0..).zip(vcpus) {
            let handle = events.handle();
            let on_end = move |end| report(&handle, end);
            let (bus, stopping) = (Arc::clone(&bus), Arc::clone(&stopping));
            match VcpuThread::start(index, vcpu, bus, stopping, confined, debugged.next(), on_end) {
                Ok(thread) => threads.push(thread),
                Err(error) => outcome = Err(error),
            }
        }
        // With the loop its commands end, so no processor's thread can wait for it any more.
        let outcome = outcome
            .and_then(|()| match debugger {
                Some(debugger) => debugger.start(threads.iter().map(VcpuThread::kick).collect(), stop),
                None => Ok(()),
            })
            .and_then(|()| if confined { Ok(filter::install(confinement::IO)?) } else { Ok(()) })
            .and_then(|()| {
                threads.iter().for_each(VcpuThread::go);
                events.run().map_err(Error::host("wait for events"))
            });
        stopping.store(true, Ordering::SeqCst);
        threads.iter().for_each(|thread| thread.kick().send());
        threads.into_iter().for_each(VcpuThread::wait);
        drop(vm);
        match outcome? {
            Outcome::Failed(failure) => Err(Error::Vcpu { failure, console: console.last_lines() }),
            Outcome::Exit(Exit::Reset) if console.panic_seen() => {
                Err(Error::GuestPanic { console: console.last_lines() })
            }
            Outcome::Exit(exit) => Ok(exit),
        }
    }
}

fn report(events: &LoopHandle<Outcome>, end: VcpuEnd) {
    match end {
        VcpuEnd::Reset => events.stop(Outcome::Exit(Exit::Reset)),
        VcpuEnd::Failed(failure) => events.stop(Outcome::Failed(failure)),
        VcpuEnd::Stopped => {}
    }
}

/// Creates the virtual machine while `meanwhile` is done: KVM waits for most of that time, since the thread that it makes
/// joins the caller's cgroup, and the kernel waits for a grace period of RCU before that (10 ms and more).
fn create_vm<T>(kvm: &Kvm, meanwhile: impl FnOnce() -> Result<T, Error>) -> Result<(Vm, T), Error> {
    std::thread::scope(|scope| {
        let creation = std::thread::Builder::new()
            .stack_size(CREATION_STACK_BYTES)
            .spawn_scoped(scope, || Vm::new(kvm))
            .map_err(Error::host("start a thread"))?;
        let done = meanwhile();
        let vm = creation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (done, vm) = (done?, vm?);
        Ok((vm, done))
    })
}

/// Allows huge pages where the kernel and the page descriptors will be: what a kernel fills densely as it boots.
fn advise(ram: &[Region], image: &Image) {
    let bytes = ram.iter().map(|region| region.mapping.bytes()).sum();
    let descriptors = layout::page_descriptors(bytes);
    for Region { start, mapping } in ram {
        let start = start.0;
        if start == 0 {
            for huge_page in image.dense_huge_pages() {
                mapping.advise_huge_pages(huge_page..huge_page + HUGE_PAGE_SIZE, true);
            }
        }
        if let Some(dense) = descriptors.as_ref().filter(|dense| dense.start >= start) {
            mapping.advise_huge_pages(dense.start - start..dense.end - start, true);
        }
    }
}

/// Gives the files of pmem their address.
fn place(files: Files, memory_bytes: u64) -> Result<Region, Error> {
    let start = layout::pmem_start(memory_bytes);
    layout::check_pmem(start, files.mapping.bytes())?;
    Ok(Region { start: GuestAddress(start), mapping: Arc::new(files.mapping) })
}

fn rom(pmem: Option<Region>, writes: Option<OwnedFd>) -> Rom {
    let range = pmem.map_or(0..0, |Region { start, mapping }| start.0..start.0 + mapping.bytes());
    Rom::new(range, writes)
}
