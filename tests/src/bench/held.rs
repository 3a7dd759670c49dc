//! A VM that is never run, held while others are measured. The kernel patches its own code when the first VM comes and when the last one
//! goes, and when the first vCPU with an idle interrupt controller does, which processors that are emulated in parallel do not survive
//! (`tests/kvm-host`). So that is done once, while there is only one processor.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};

use nix::errno::Errno;

use crate::Error;

/// linux/kvm.h: `KVM_CREATE_VM`, of the device; `KVM_CREATE_IRQCHIP` and `KVM_CREATE_VCPU`, of a VM.
const CREATE_VM: u64 = 0xae01;
const CREATE_IRQCHIP: u64 = 0xae60;
const CREATE_VCPU: u64 = 0xae41;
/// All processors but the first, which cannot go.
const PROCESSORS: &str = "/sys/devices/system/cpu";

/// The VM and its vCPU.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "they are gone when they are closed")] [File; 2]);

impl Held {
    /// Makes it, with only one processor at work.
    pub fn make() -> Result<Self, Error> {
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
        switch_others("0")?;
        let made = create(&kvm);
        switch_others("1")?;
        Ok(Self(made?))
    }
}

fn create(kvm: &File) -> Result<[File; 2], Errno> {
    let vm = opened(request(kvm, CREATE_VM)?);
    request(&vm, CREATE_IRQCHIP)?;
    let vcpu = opened(request(&vm, CREATE_VCPU)?);
    Ok([vm, vcpu])
}

fn request(file: &File, number: u64) -> Result<i32, Errno> {
    // SAFETY: these requests take a number, here 0, and no memory of this process.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), number, 0) })
}

fn opened(descriptor: i32) -> File {
    // SAFETY: the kernel has just made it, and nobody else knows it.
    unsafe { File::from_raw_fd(descriptor) }
}

fn switch_others(to: &str) -> Result<(), Error> {
    for entry in fs::read_dir(PROCESSORS)? {
        let online = entry?.path().join("online");
        // That of all together lies beside the processors, and the first one has none.
        if online.exists() {
            fs::write(online, to)?;
        }
    }
    Ok(())
}
