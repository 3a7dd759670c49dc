//! The machine around a pod: everything it is made of is opened here, before anything runs.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;

use pod::abi::CpuTemplate;
use pod::disk_space;
use pod::guest_network::GuestNetwork;
use pod::limits::{GUEST_DESCRIPTORS_SHARE, GUEST_STEP_BYTES, PodLimits};
use pod::plan::{Isolation, OpenedVolume};
use stage1::pod::Pod;

use vmm::virtio::block::BlockConfig;
use vmm::virtio::fs::FsConfig;
use vmm::virtio::net::NetConfig;
use vmm::virtio::throttle::Throttle;
use vmm::virtio::vsock::VsockConfig;
use vmm::{Kvm, Leaves, Level, MachineConfig, Shape, VcpuCount};

use crate::error::Error;
use crate::images::Images;
use crate::{kernel, writable};

/// The guest's root file system with its init, beside this program's own file: the first part of its persistent memory.
const ROOT: &str = "guest.erofs";
/// The guest's first disk.
pub const SCRATCH_DEVICE: &str = "/dev/vda";
/// What a guest has that packs a tree: its names, directory by directory, and what the kernel caches.
const READER_BYTES: u64 = 256 << 20;
/// Guests reach nobody but the host, so that all can have the same number.
const GUEST_CID: u32 = 3;

/// How the supervisor finds its file systems in the guest, what its volumes are, and what its network is to be.
pub fn isolation(network: GuestNetwork, volumes: Vec<OpenedVolume>) -> Isolation {
    Isolation::Vm { scratch: SCRATCH_DEVICE.into(), volumes, network }
}

/// The shape of a pod's machine, which has so many bytes of images mapped.
pub fn shape(kvm: &Kvm, pod: &Pod, limits: &PodLimits, mapped_bytes: u64) -> Result<Shape, Error> {
    let vcpus = limits.vcpus().map_err(Error::Limits)?;
    let vcpus = VcpuCount::new(vcpus)
        .ok_or_else(|| Error::Limits(pod::Error::Invalid(format!("a VM cannot have {vcpus} vCPUs"))))?;
    let memory_bytes = limits.guest_memory_bytes(mapped_bytes).map_err(Error::Limits)?;
    let cpuid = Leaves::from_kvm(kvm, vcpus, level(pod.arguments.cpu_template))?;
    Ok(Shape { command_line: command_line(pod.arguments.debug), ..Shape::new(cpuid, memory_bytes) })
}

/// Opens what the machine is made of, which is `nothing` yet but of a shape; its disk has the throttle. `to_guest` takes connections
/// to the guest; those from it have no ends yet.
pub fn config(
    pod: &Pod,
    nothing: MachineConfig,
    images: Images,
    throttle: Throttle,
    nets: Vec<NetConfig>,
    file_systems: Vec<FsConfig>,
    to_guest: Vec<(UnixListener, u32)>,
) -> Result<MachineConfig, Error> {
    let bare = bare(nothing, images.mapped)?;
    let disk_bytes = disk_space::of(&pod.manifest).map_err(Error::Limits)?;
    let scratch = writable::make(&pod.directory.scratch(), disk_bytes, pod.arguments.uuid)?;
    let mut blocks = vec![BlockConfig { file: scratch, read_only: false, throttle }];
    blocks.extend(images.disks.into_iter().map(read_only));
    Ok(MachineConfig {
        blocks,
        nets,
        file_systems,
        vsock: Some(VsockConfig { guest_cid: GUEST_CID, to_host: Vec::new(), to_guest }),
        console: pod.arguments.debug.then(|| Box::new(to_stderr) as vmm::console::Sink),
        ..bare
    })
}

/// The shape of a machine that looks at what a pod has left, by one image.
pub fn reader_shape(kvm: &Kvm, image: &File) -> Result<Shape, Error> {
    let image_bytes = image.metadata().map_or(0, |image| image.len());
    let memory_bytes = READER_BYTES.saturating_add(image_bytes / GUEST_DESCRIPTORS_SHARE);
    let memory_bytes = memory_bytes.next_multiple_of(GUEST_STEP_BYTES);
    let cpuid = Leaves::from_kvm(kvm, VcpuCount::ONE, None)?;
    Ok(Shape { command_line: command_line(false), ..Shape::new(cpuid, memory_bytes) })
}

/// Opens what that machine is made of: one image, and the disk, if there is one, both only to be read.
pub fn reader(nothing: MachineConfig, image: File, scratch: Option<File>) -> Result<MachineConfig, Error> {
    let blocks = scratch.into_iter().map(read_only).collect();
    let bare = bare(nothing, vec![image])?;
    Ok(MachineConfig { blocks, ..bare })
}

fn read_only(file: File) -> BlockConfig {
    BlockConfig { file, read_only: true, throttle: Throttle::default() }
}

/// A machine that has nothing but images, and connects to nobody but its parent.
fn bare(nothing: MachineConfig, images: Vec<File>) -> Result<MachineConfig, Error> {
    let mut pmem = vec![open_part(ROOT)?];
    pmem.extend(images);
    Ok(MachineConfig {
        pmem,
        vsock: Some(VsockConfig { guest_cid: GUEST_CID, to_host: Vec::new(), to_guest: Vec::new() }),
        ..nothing
    })
}

/// Opens the kernel that this processor's guests need.
pub fn kernel() -> Result<File, Error> {
    open_part(kernel::name())
}

/// What a machine has open, but for its ends of the guest's connections.
pub fn descriptors(config: &MachineConfig) -> Vec<RawFd> {
    let listeners = config.vsock.iter().flat_map(|vsock| &vsock.to_guest);
    let files = config.pmem.iter().chain([config.start.file()]);
    let files = files.chain(config.blocks.iter().map(|block| &block.file));
    let files = files.chain(config.nets.iter().flat_map(NetConfig::files)).map(AsRawFd::as_raw_fd);
    let files = files.chain(config.file_systems.iter().map(|volume| volume.server.as_raw_fd()));
    let files = files.chain(config.pmem_writes.iter().map(AsRawFd::as_raw_fd));
    let files = files.chain(config.gdb.iter().map(AsRawFd::as_raw_fd));
    files.chain(listeners.map(|(listener, _)| listener.as_raw_fd())).chain([config.kvm.as_raw_fd()]).collect()
}

fn level(template: CpuTemplate) -> Option<Level> {
    match template {
        CpuTemplate::Host => None,
        CpuTemplate::V2 => Some(Level::V2),
        CpuTemplate::V3 => Some(Level::V3),
        CpuTemplate::V4 => Some(Level::V4),
    }
}

/// Opens a file beside this program's own, wherever the link to it is that it was started by.
fn open_part(name: &str) -> Result<File, Error> {
    let own = std::env::current_exe()
        .map_err(|source| Error::System { action: "find this program's own file", source })?;
    let path = own.with_file_name(name);
    File::open(&path).map_err(|source| Error::Part { path, source })
}

/// The kernel's parameters beside those of the machine.
///
/// Each is compared with 130 names in ten passes, 0.15 virtual ms of a guest's start, so what the kernel's configuration can say is not here.
///
/// - `root=` and its like: there is no initramfs, which would have to be copied for each guest, and again by it.
/// - `percpu_alloc=page`: by default each processor gets 2 MiB at first, to give most of it back once it has been zeroed.
/// - `rcupdate.rcu_expedited=1`: mounts and cgroups wait for grace periods of RCU, by default some ticks of 10 ms each.
/// - `noreplace-smp`: a guest with one processor would patch 5,000 lock prefixes away.
/// - `quiet`: kernel messages cost more time than the whole boot. The last of them are wanted when something goes
///   wrong, and those are not kept quiet. Who wants to see them sees those, too, that come before there is a console.
fn command_line(debug: bool) -> String {
    let root = "root=/dev/pmem0p1 rootfstype=erofs rootflags=dax=always";
    format!(
        "{root} percpu_alloc=page rcupdate.rcu_expedited=1 noreplace-smp{}",
        if debug { " earlyprintk=serial" } else { " quiet" }
    )
}

fn to_stderr(bytes: &[u8]) {
    // Nobody is told if the console cannot be shown.
    let _ = std::io::stderr().write_all(bytes);
}
