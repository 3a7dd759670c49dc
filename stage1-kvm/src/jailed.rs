//! The machine's process: what it does in its jail.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use jail::{Jail, filter};
use nix::sys::resource::Resource;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use vmm::memory::HUGE_PAGE_SIZE;
use vmm::{Machine, MachineConfig, Ram, StopHandle, confinement};

use crate::error::Error;
use crate::handshake::Ends;
use crate::machine;
use crate::report::Report;

/// The guest has booted: what it fills from now on may be in huge pages.
pub const BOOTED: u8 = b'b';
/// The machine is to end and to report.
pub const STOP: u8 = b's';

/// What the thread that takes orders needs for its stack.
const STACK_BYTES: usize = 64 << 10;
/// Devices, what they wait for, and the host's and the guest's connections, twice each.
const MAX_DESCRIPTORS: u64 = 2048;
/// What the process may map beside the guest's RAM and images: its program, stacks and buffers.
const MAX_OWN_BYTES: u64 = 256 << 20;
/// 32 processors, and a few threads more.
const MAX_THREADS: u64 = 64;

/// What the process is started with.
pub struct Start {
    /// The machine; its socket device is yet to get `ends`.
    pub config: MachineConfig,
    /// Its ends of the guest's connections.
    pub ends: Ends,
    /// From where orders come, and where the report goes.
    pub parent: OwnedFd,
    /// Where the console and what this process says go, if anywhere.
    pub stderr: Option<OwnedFd>,
    /// Where its jail is.
    pub place: Place,
}

/// The jail's place.
pub struct Place {
    /// What the empty root is mounted on.
    mount_point: PathBuf,
    /// The user that the process becomes.
    user: u32,
}

impl Place {
    /// In the pod's directory, for a child of this process. It does not know its own number there; its parent's is as unique, for it lives
    /// as long.
    pub fn here() -> Result<Self, Error> {
        let mount_point = std::env::current_dir()
            .map_err(|source| Error::System { action: "find the pod's directory", source })?;
        Ok(Self { mount_point, user: Jail::user_of(std::process::id().cast_signed()) })
    }
}

/// Runs a machine in the calling process, forked for that, and ends the process.
pub fn run(start: Start) -> ! {
    let Start { config, ends, parent, stderr, place } = start;
    let outcome = attempt(config, ends, &parent, stderr, place);
    report(&parent, &outcome.unwrap_or_else(|error| Report::failed(error.as_ref())))
}

/// Reports to the parent, and ends the process.
pub fn report(parent: &OwnedFd, report: &Report) -> ! {
    if let Ok(frame) = pod::control::encode(report) {
        let mut rest = frame.as_slice();
        while let Ok(count @ 1..) = nix::unistd::write(parent, rest) {
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    // SAFETY: the process ends, and nothing of it is to be put in order: what it shares with its parent is the parent's.
    unsafe { libc::_exit(0) }
}

/// Shuts the calling process in, with these descriptors and within these limits, beside those that are the same for all. What it
/// says goes to `stderr`, or nowhere.
pub fn shut_in(
    place: &Place,
    mut descriptors: Vec<RawFd>,
    limits: &[(Resource, u64)],
    stderr: Option<OwnedFd>,
) -> Result<(), Box<dyn std::error::Error>> {
    confinement::prepare();
    let nothing = OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?);
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(stderr.as_ref().unwrap_or(&nothing))?;
    descriptors.extend([0, 1, 2]);
    let mut all = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (Resource::RLIMIT_NPROC, MAX_THREADS),
    ];
    all.extend(limits);
    // They are closed by the jail, and must not be closed again when their numbers are somebody else's.
    std::mem::forget((nothing, stderr));
    let jail =
        Jail { mount_point: &place.mount_point, user: place.user, descriptors: &descriptors, limits: &all };
    Ok(jail.enter()?)
}

fn attempt(
    mut config: MachineConfig,
    ends: Ends,
    parent: &OwnedFd,
    stderr: Option<OwnedFd>,
    place: Place,
) -> Result<Report, Box<dyn std::error::Error>> {
    let mut descriptors = machine::descriptors(&config);
    descriptors.extend(ends.descriptors());
    descriptors.push(parent.as_raw_fd());
    let size = |file: &File| Ok(file.metadata()?.len());
    let disks = config.blocks.iter().map(|block| size(&block.file)).collect::<io::Result<Vec<_>>>()?;
    let mapped = config.pmem.iter().chain(config.start.mapped_beside_ram()).map(size);
    let limits = [
        (
            Resource::RLIMIT_AS,
            address_space(config.shape.memory_bytes, &mapped.collect::<io::Result<Vec<_>>>()?),
        ),
        (Resource::RLIMIT_FSIZE, disks.into_iter().max().unwrap_or_default()),
    ];
    shut_in(&place, descriptors, &limits, stderr)?;

    if let Some(vsock) = &mut config.vsock {
        vsock.to_host = ends.into_ports();
    }
    let machine = Machine::build(config)?;
    filter::report_to(parent.try_clone()?)?;
    take_orders(parent.try_clone()?, machine.ram(), machine.stop_handle())?;
    Ok(Report::of(machine))
}

/// The most that a process may map which has a machine of so much memory, and files of these sizes: it has no other way to take memory
/// of the host's.
pub fn address_space(memory_bytes: u64, files: &[u64]) -> u64 {
    // Rounded up, and with room to be aligned in.
    let mapped = |bytes: &u64| bytes.saturating_add(2 * HUGE_PAGE_SIZE);
    files.iter().map(mapped).fold(memory_bytes.saturating_add(MAX_OWN_BYTES), u64::saturating_add)
}

/// Starts the thread that does what the parent says.
fn take_orders(parent: OwnedFd, ram: Ram, stop: StopHandle) -> Result<(), Box<dyn std::error::Error>> {
    let (tell, told) = std::sync::mpsc::channel();
    let body = move || {
        let confined = filter::install(confinement::ORDERS);
        let ready = confined.is_ok();
        let _nobody_waits = tell.send(confined);
        let mut order = [0];
        while ready && matches!(nix::unistd::read(&parent, &mut order), Ok(1)) {
            match order {
                [BOOTED] => ram.allow_huge_pages(),
                [STOP] => stop.stop(),
                _ => {}
            }
        }
        // The parent has gone.
        stop.stop();
        loop {
            std::thread::park();
        }
    };
    std::thread::Builder::new().name("orders".into()).stack_size(STACK_BYTES).spawn(body)?;
    Ok(told.recv()??)
}
