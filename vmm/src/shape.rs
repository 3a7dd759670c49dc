//! What a kernel finds as it boots: the same for all machines of a shape, whatever each is for.

use std::fs::File;

use nix::sys::mman::ProtFlags;
use vm_memory::GuestAddress;

use crate::boot;
use crate::boot::elf::{Image, Kernel};
use crate::cpu::Leaves;
use crate::error::Error;
use crate::layout::{self, MEMORY_MAX, MEMORY_MIN};
use crate::memory::{DeviceMemory, Mapping, PAGE_SIZE, Region};

/// What the machine needs the kernel to do, before what the caller wants of it: end by a triple fault, use the machine's
/// console, and trust the clock that KVM vouches for. That a panic ends it, too, is the kernel's configuration.
const KERNEL_PARAMETERS: &str = "reboot=t console=hvc0 tsc=reliable";
/// With RAM above 4 GiB: to set no memory aside for devices that reach less than all of it.
const NO_BOUNCE_BUFFERS: &str = " swiotlb=noforce";

/// A machine's processors, memory, and the kernel's parameters that are not about devices.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the guest sees of the processors, and how many there are.
    pub cpuid: Leaves,
    /// How much memory, in whole pages.
    pub memory_bytes: u64,
    /// The caller's kernel parameters; they come after the machine's own, so that what follows a `--` reaches init.
    pub command_line: String,
}

impl Shape {
    /// These processors and so much memory, and nothing else that is wanted.
    pub fn new(cpuid: Leaves, memory_bytes: u64) -> Self {
        Self { cpuid, memory_bytes, command_line: String::new() }
    }

    /// The first command line of the kernel.
    fn kernel_command_line(&self) -> String {
        let bounce = if self.memory_bytes > layout::GAP_START { NO_BOUNCE_BUFFERS } else { "" };
        format!("{KERNEL_PARAMETERS}{bounce} {}", self.command_line)
    }

    /// All of it as bytes: a machine that has booted in another shape has not the same.
    pub fn describe(&self) -> Vec<u8> {
        let mut bytes = self.cpuid.describe();
        bytes.extend(self.memory_bytes.to_le_bytes());
        bytes.extend(self.kernel_command_line().into_bytes());
        bytes
    }

    /// Maps RAM without anything in it, each of its ranges by `map`. A little is touched in many places, so that there
    /// are no huge pages unless somebody allows them.
    pub(crate) fn map_ram(
        &self,
        map: impl Fn(u64, u64) -> Result<Mapping, Error>,
    ) -> Result<Vec<Region>, Error> {
        let wanted = self.memory_bytes;
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&wanted) || !wanted.is_multiple_of(PAGE_SIZE) {
            return Err(Error::MemorySize { wanted, min: MEMORY_MIN, max: MEMORY_MAX });
        }
        let ranges = layout::ram_ranges(wanted).into_iter();
        let regions = ranges.map(|(start, bytes)| {
            let mapping = map(start, bytes)?;
            mapping.advise_huge_pages(0..bytes, false);
            Ok(Region { start: GuestAddress(start), mapping: mapping.into() })
        });
        regions.collect()
    }

    /// [`Shape::map_ram`] of memory that is nobody's else.
    pub(crate) fn map_private_ram(&self) -> Result<Vec<Region>, Error> {
        self.map_ram(|_, bytes| Ok(Mapping::anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?))
    }

    /// Opens the kernel in `file`, which must fit in the part of RAM below the gap.
    pub(crate) fn open_kernel(&self, file: &File) -> Result<(Kernel, Image), Error> {
        let kernel = Kernel::parse(file)?;
        let image = Image::open(file, &kernel)?;
        kernel.check(self.memory_bytes.min(layout::GAP_START))?;
        Ok((kernel, image))
    }

    /// Fills memory, which is all zeros, with what a kernel finds there as it is entered: itself, and what describes the machine.
    pub(crate) fn fill(&self, memory: &DeviceMemory, image: &Image) -> Result<(), Error> {
        image.load(memory)?;
        boot::write_command_line(memory, &self.kernel_command_line())?;
        boot::pvh::write_start_info(memory, self.memory_bytes)?;
        boot::mp_table::write_mp_table(memory, self.cpuid.vcpus().get())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::VcpuCount;

    fn shape(memory_bytes: u64) -> Shape {
        Shape::new(Leaves::new(VcpuCount::ONE, Vec::new()), memory_bytes)
    }

    #[test]
    fn callers_parameters_come_last() {
        let mut shape = shape(4 << 30);
        shape.command_line = "root=/dev/pmem0p1 -- arg".into();
        let line = shape.kernel_command_line();
        assert!(line.ends_with(" root=/dev/pmem0p1 -- arg") && line.contains(NO_BOUNCE_BUFFERS), "{line}");
        shape.memory_bytes = 128 << 20;
        assert!(!shape.kernel_command_line().contains(NO_BOUNCE_BUFFERS));
    }

    #[test]
    fn memory_is_of_a_size_that_a_machine_can_have() {
        let map = |bytes| shape(bytes).map_private_ram();
        assert!(map(MEMORY_MIN - PAGE_SIZE).is_err() && map(MEMORY_MIN + 1).is_err());
        assert!(map(MEMORY_MAX + PAGE_SIZE).is_err());
        let regions = map(4 << 30).unwrap();
        let starts: Vec<u64> = regions.iter().map(|region| region.start.0).collect();
        assert_eq!(starts, [0, layout::GAP_END]);
    }
}
