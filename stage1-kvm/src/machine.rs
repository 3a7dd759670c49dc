//! The machine around a pod: everything it is made of is opened here, before anything runs.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use pod::guest_network::GuestNetwork;
use pod::limits::PodLimits;
use pod::plan::{ImageSource, Isolation, Layers, OpenedVolume, VM_SCRATCH};
use pod::rates::MachineRates;
use stage1::pod::Pod;
use vmm::virtio::block::BlockConfig;
use vmm::virtio::fs::FsConfig;
use vmm::virtio::net::NetConfig;
use vmm::virtio::vsock::VsockConfig;
use vmm::{Kvm, MachineConfig, VcpuCount};

use crate::error::Error;
use crate::{kernel, throttles, writable};

/// The guest's root file system with its init, beside this program's own file: the first of the persistent memory devices.
const ROOT: &str = "guest.erofs";
/// The guest's only disk.
const SCRATCH_DEVICE: &str = "/dev/vda";
/// Guests reach nobody but the host, so that all can have the same number.
const GUEST_CID: u32 = 3;

/// How the supervisor finds its file systems in the guest, what its volumes are, and what its network is to be.
pub fn isolation(network: GuestNetwork, volumes: Vec<OpenedVolume>) -> Isolation {
    Isolation::Vm { scratch: SCRATCH_DEVICE.into(), volumes, network }
}

/// Where each app's root comes from in the guest: the images are its persistent memory devices, in order, after its own root.
pub fn layers(pod: &Pod) -> Vec<Layers> {
    let apps = (1..).zip(&pod.manifest.apps);
    apps.map(|(index, app)| Layers {
        image: ImageSource::Pmem(format!("/dev/pmem{index}").into()),
        writable: Path::new(VM_SCRATCH).join(app.name.as_str()),
    })
    .collect()
}

/// Opens what the machine is made of. `to_guest` takes connections to the guest; those from it have no ends yet.
pub fn config(
    pod: &Pod,
    limits: &PodLimits,
    rates: &MachineRates,
    kvm: Kvm,
    nets: Vec<NetConfig>,
    file_systems: Vec<FsConfig>,
    to_guest: Vec<(UnixListener, u32)>,
) -> Result<MachineConfig, Error> {
    let vcpus = limits.vcpus().map_err(Error::Limits)?;
    let vcpus = VcpuCount::new(vcpus)
        .ok_or_else(|| Error::Limits(pod::Error::Invalid(format!("a VM cannot have {vcpus} vCPUs"))))?;
    let memory_bytes = limits.guest_memory_bytes().map_err(Error::Limits)?;
    let mut pmems = vec![open_part(ROOT)?];
    pmems.extend(images(pod)?);
    let kernel = open_part(kernel::name())?;
    let scratch = writable::make(&pod.directory.scratch(), pod.arguments.uuid)?;
    Ok(MachineConfig {
        kvm,
        vcpus,
        memory_bytes,
        kernel,
        command_line: command_line(pod.arguments.debug),
        pmems,
        blocks: vec![BlockConfig { file: scratch, read_only: false, throttle: throttles::of_disk(rates) }],
        nets,
        file_systems,
        vsock: Some(VsockConfig { guest_cid: GUEST_CID, to_host: Vec::new(), to_guest }),
        confined: true,
        console: pod.arguments.debug.then(|| Box::new(to_stderr) as vmm::console::Sink),
    })
}

/// What a machine has open, but for its ends of the guest's connections.
pub fn descriptors(config: &MachineConfig) -> Vec<RawFd> {
    let listeners = config.vsock.iter().flat_map(|vsock| &vsock.to_guest);
    let files = config.pmems.iter().chain([&config.kernel]);
    let files = files.chain(config.blocks.iter().map(|block| &block.file));
    let files = files.chain(config.nets.iter().map(|net| &net.tap)).map(AsRawFd::as_raw_fd);
    let files = files.chain(config.file_systems.iter().map(|volume| volume.server.as_raw_fd()));
    files.chain(listeners.map(|(listener, _)| listener.as_raw_fd())).chain([config.kvm.as_raw_fd()]).collect()
}

fn images(pod: &Pod) -> Result<Vec<File>, Error> {
    let open = |app: &pod::pod_manifest::RuntimeApp| {
        let path = pod.directory.app_image(&app.name);
        File::open(&path).map_err(|source| Error::NoImage { app: app.name.clone(), path, source })
    };
    pod.manifest.apps.iter().map(open).collect()
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
///   wrong, and those are not kept quiet.
fn command_line(debug: bool) -> String {
    let root = "root=/dev/pmem0 rootfstype=erofs rootflags=dax=always";
    format!(
        "{root} percpu_alloc=page rcupdate.rcu_expedited=1 noreplace-smp{}",
        if debug { "" } else { " quiet" }
    )
}

fn to_stderr(bytes: &[u8]) {
    // Nobody is told if the console cannot be shown.
    let _ = std::io::stderr().write_all(bytes);
}
