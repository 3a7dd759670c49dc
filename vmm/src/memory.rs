//! Guest-physical memory: the mappings behind it, and the view of it that devices get.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use vm_memory::guest_memory::{Error as GuestMemoryError, GuestMemorySliceIterator};
use vm_memory::mmap::MmapRegion;
use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, Permissions, VolatileSlice,
};

/// The size of a page, and the granularity of every mapping.
pub const PAGE_SIZE: u64 = 4096;
/// The size of a transparent huge page. Guest memory is aligned to it on the host as it is in the guest, so that one
/// entry of the nested page table can cover it.
pub const HUGE_PAGE_SIZE: u64 = 2 << 20;

/// Why guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused a mapping.
    #[error("cannot map {bytes} bytes of {what}")]
    Map {
        /// What was to be mapped.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The system's answer.
        #[source]
        source: nix::Error,
    },
    /// A size or an address is not one that this machine can have.
    #[error("{what} of {bytes} bytes does not fit this machine's address space")]
    Size {
        /// What is too large, or empty.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The regions do not form an address space.
    #[error("the guest's memory regions overlap")]
    Regions,
}

/// Whether what is written to a file's pages is seen by all who map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No: a page is copied when it is written first.
    Private,
    /// Yes.
    Shared,
}

/// A range of this process's addresses, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
    protection: ProtFlags,
}

// SAFETY: a mapping is plain memory that no thread owns; access goes through vm-memory's volatile slices.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out nothing but the address and the size.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `bytes` (whole pages) of zeroed private memory, aligned to [`HUGE_PAGE_SIZE`]. Nothing is allocated
    /// before it is touched, and swap space is not set aside for it.
    pub fn anonymous(bytes: u64, protection: ProtFlags) -> Result<Self, MemoryError> {
        let failed = |source| MemoryError::Map { what: "guest memory", bytes, source };
        let size = whole_pages("guest memory", bytes)?;
        let slack = HUGE_PAGE_SIZE as usize;
        let reserved = size.checked_add(slack).ok_or(MemoryError::Size { what: "guest memory", bytes })?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let raw =
            unsafe { nix::sys::mman::mmap_anonymous(None, reserved, protection, flags) }.map_err(failed)?;
        let lead = (raw.as_ptr() as usize).wrapping_neg() & (slack - 1);
        // SAFETY: `lead` is below `slack`, so all three parts lie within the mapping just made, which nobody uses yet.
        unsafe {
            let start = raw.byte_add(lead);
            let mapping = Self { start, bytes: size.get(), protection };
            if lead > 0 {
                nix::sys::mman::munmap(raw, lead).map_err(failed)?;
            }
            if slack > lead {
                nix::sys::mman::munmap(start.byte_add(size.get()), slack - lead).map_err(failed)?;
            }
            Ok(mapping)
        }
    }

    /// Maps `bytes` (whole pages) of `file` from `file_offset` over this mapping at `offset`. What the last page holds past
    /// the file's end reads as zeros.
    pub fn overlay(
        &mut self,
        offset: u64,
        file: &File,
        file_offset: u64,
        bytes: u64,
        sharing: Sharing,
    ) -> Result<(), MemoryError> {
        let what = "a file in guest memory";
        let size = whole_pages(what, bytes)?;
        let failed = |source| MemoryError::Map { what, bytes, source };
        let does_not_fit = || MemoryError::Size { what, bytes };
        let end = offset.checked_add(bytes).ok_or_else(does_not_fit)?;
        let at = usize::try_from(offset).map_err(|_| does_not_fit())?;
        if end > self.bytes as u64 || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(does_not_fit());
        }
        let sharing = match sharing {
            Sharing::Private => MapFlags::MAP_PRIVATE,
            Sharing::Shared => MapFlags::MAP_SHARED,
        };
        let file_offset = i64::try_from(file_offset).map_err(|_| does_not_fit())?;
        let target = NonZeroUsize::new(self.start.as_ptr() as usize + at);
        // SAFETY: the range was just checked to lie within this mapping, which `&mut self` says nobody else uses.
        unsafe {
            nix::sys::mman::mmap(
                target,
                size,
                self.protection,
                sharing | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE,
                file.as_fd(),
                file_offset,
            )
        }
        .map_err(failed)?;
        Ok(())
    }

    /// Asks for huge pages, or for none, where pages of `range` are touched from now on; nothing is asked for what is
    /// outside of this mapping. A kernel without them says no, which costs speed and nothing else.
    pub fn advise_huge_pages(&self, range: Range<u64>, wanted: bool) {
        let advice = if wanted { MmapAdvise::MADV_HUGEPAGE } else { MmapAdvise::MADV_NOHUGEPAGE };
        let end = range.end.min(self.bytes());
        let Some(bytes) = end.checked_sub(range.start) else { return };
        // SAFETY: the range lies within this mapping, and advice changes no contents.
        let _refusal_is_fine = unsafe {
            nix::sys::mman::madvise(self.start.byte_add(range.start as usize), bytes as usize, advice)
        };
    }

    /// Where the range starts in this process.
    pub fn host_address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and whoever holds an address of it also holds the mapping.
        let _cannot_fail_on_own_range = unsafe { nix::sys::mman::munmap(self.start, self.bytes) };
    }
}

fn whole_pages(what: &'static str, bytes: u64) -> Result<NonZeroUsize, MemoryError> {
    usize::try_from(bytes)
        .ok()
        .filter(|_| bytes.is_multiple_of(PAGE_SIZE))
        .and_then(NonZeroUsize::new)
        .ok_or(MemoryError::Size { what, bytes })
}

/// A range of guest-physical addresses and what is behind it.
#[derive(Clone, Debug)]
pub struct Region {
    /// The first guest-physical address.
    pub start: GuestAddress,
    /// The host memory behind it.
    pub mapping: Arc<Mapping>,
}

/// Guest memory as devices may touch it: RAM, which they read and write, and above it the read-only memory of the
/// pmem devices, which they only read.
///
/// A guest that does direct I/O from a file on a DAX file system hands a device buffers in pmem, so devices must be
/// able to read there; a write to it must be an error of the request, not a fault of this process. vm-memory
/// asks for the permission at every access ([`GuestMemory::get_slices`]), and this type is what answers. It
/// does not give out vm-memory's own collection of regions, which would let every access pass.
#[derive(Clone, Debug)]
pub struct DeviceMemory {
    regions: GuestMemoryMmap,
    read_only_from: GuestAddress,
    _mappings: Arc<Vec<Region>>,
}

impl DeviceMemory {
    /// The memory made of `ram` and, above all of it, `read_only` regions; both in ascending order.
    pub fn new(ram: Vec<Region>, read_only: Vec<Region>) -> Result<Self, MemoryError> {
        let read_only_from = ram
            .last()
            .and_then(|last| last.start.checked_add(last.mapping.bytes()))
            .ok_or(MemoryError::Regions)?;
        let mappings: Vec<Region> = ram.into_iter().chain(read_only).collect();
        let regions = mappings.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        let regions = GuestMemoryMmap::from_regions(regions).map_err(|_| MemoryError::Regions)?;
        Ok(Self { regions, read_only_from, _mappings: Arc::new(mappings) })
    }
}

/// A region as vm-memory sees it: it does not own the mapping, [`DeviceMemory`] does.
fn view(region: &Region) -> Result<GuestRegionMmap, MemoryError> {
    let Region { start, mapping } = region;
    let address = mapping.start.as_ptr().cast::<u8>();
    // SAFETY: the mapping is of this size, and DeviceMemory keeps it for as long as it keeps this view.
    let raw = unsafe {
        MmapRegion::build_raw(address, mapping.bytes, mapping.protection.bits(), libc::MAP_NORESERVE)
    };
    raw.ok().and_then(|raw| GuestRegionMmap::new(raw, *start)).ok_or(MemoryError::Regions)
}

/// Plain writable memory, as tests make it.
impl From<GuestMemoryMmap> for DeviceMemory {
    fn from(regions: GuestMemoryMmap) -> Self {
        Self { regions, read_only_from: GuestAddress(u64::MAX), _mappings: Arc::default() }
    }
}

impl GuestMemory for DeviceMemory {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = <GuestRegionMmap as GuestMemoryRegion>::B;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.permits(addr, count, access) && GuestMemoryBackend::check_range(&self.regions, addr, count)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> vm_memory::guest_memory::Result<
        impl GuestMemorySliceIterator<'a, vm_memory::bitmap::BS<'a, Self::Bitmap>>,
    > {
        if !self.permits(addr, count, access) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        Ok(GuestMemoryBackend::get_slices(&self.regions, addr, count))
    }
}

impl DeviceMemory {
    /// The regions: their first guest-physical addresses, their sizes, and where they are in this process.
    pub fn layout(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.regions.iter().map(|region| (region.start_addr().0, region.len(), region.as_ptr() as u64))
    }

    /// `count` bytes that lie in one region.
    pub fn slice(
        &self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> vm_memory::guest_memory::Result<VolatileSlice<'_>> {
        if !self.permits(addr, count, access) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        self.regions.get_slice(addr, count)
    }

    /// Gives the whole pages among `count` bytes of RAM back to the host: they read as zeros, or as the template has them
    /// ([`crate::template`]), until they are written again. A range that is not all RAM is an error, and stays as it is.
    pub fn discard(&self, addr: GuestAddress, count: usize) -> vm_memory::guest_memory::Result<()> {
        if !self.check_range(addr, count, Permissions::Write) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        for slice in self.get_slices(addr, count, Permissions::Write)? {
            let slice = slice?;
            let (start, page) = (slice.ptr_guard_mut().as_ptr(), PAGE_SIZE as usize);
            let lead = start.align_offset(page);
            let Some(bytes) = slice.len().checked_sub(lead).map(|bytes| bytes / page * page) else {
                continue;
            };
            if let Some(start) = NonNull::new(start.wrapping_add(lead)).filter(|_| bytes > 0) {
                // SAFETY: the pages lie within the slice, which is the guest's RAM: its contents are anybody's at any time.
                let _refusal_costs_memory =
                    unsafe { nix::sys::mman::madvise(start.cast(), bytes, MmapAdvise::MADV_DONTNEED) };
            }
        }
        Ok(())
    }

    fn permits(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        !access.has_write() || addr.checked_add(count as u64).is_some_and(|end| end <= self.read_only_from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::mock::MockSplitQueue;
    use virtio_queue::{Queue, QueueOwnedT};
    use vm_memory::Bytes;
    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    const ROM: GuestAddress = GuestAddress(0x100_0000);
    const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

    fn file_of(contents: &[u8]) -> File {
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(contents).unwrap();
        file
    }

    fn memory_with_rom() -> DeviceMemory {
        let ram = Mapping::anonymous(HUGE_PAGE_SIZE, READ_WRITE).unwrap();
        let mut rom = Mapping::anonymous(HUGE_PAGE_SIZE, ProtFlags::PROT_READ).unwrap();
        rom.overlay(0, &file_of(b"read only"), 0, PAGE_SIZE, Sharing::Shared).unwrap();
        let region = |start, mapping| Region { start, mapping: Arc::new(mapping) };
        DeviceMemory::new(vec![region(GuestAddress(0), ram)], vec![region(ROM, rom)]).unwrap()
    }

    #[test]
    fn mappings_are_aligned_to_huge_pages() {
        for _ in 0..4 {
            let mapping = Mapping::anonymous(3 * PAGE_SIZE, READ_WRITE).unwrap();
            assert_eq!(mapping.host_address() % HUGE_PAGE_SIZE, 0);
        }
    }

    #[test]
    fn a_file_laid_over_memory_can_be_private() {
        let file = file_of(b"kernel");
        let mut ram = Mapping::anonymous(HUGE_PAGE_SIZE, READ_WRITE).unwrap();
        ram.overlay(PAGE_SIZE, &file, 0, PAGE_SIZE, Sharing::Private).unwrap();
        let region = Region { start: GuestAddress(0), mapping: Arc::new(ram) };
        let memory = DeviceMemory::new(vec![region], Vec::new()).unwrap();
        memory.write_slice(b"K", GuestAddress(PAGE_SIZE)).unwrap();
        let mut seen = [0; 8];
        memory.read_slice(&mut seen, GuestAddress(PAGE_SIZE)).unwrap();
        assert_eq!(&seen, b"Kernel\0\0");
        let mut kept = [0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut kept, 0).unwrap();
        assert_eq!(&kept, b"kernel");
    }

    #[test]
    fn an_overlay_stays_within_its_mapping() {
        let mut ram = Mapping::anonymous(2 * PAGE_SIZE, READ_WRITE).unwrap();
        let file = file_of(b"x");
        let mut overlay = |offset, bytes| ram.overlay(offset, &file, 0, bytes, Sharing::Private);
        assert!(overlay(PAGE_SIZE, 2 * PAGE_SIZE).is_err());
        assert!(overlay(u64::MAX - 4095, PAGE_SIZE).is_err());
        assert!(overlay(1, PAGE_SIZE).is_err());
        assert!(overlay(0, 0).is_err());
    }

    #[test]
    fn devices_read_but_never_write_read_only_memory() {
        let memory = memory_with_rom();
        let mut seen = [0; 9];
        memory.read_slice(&mut seen, ROM).unwrap();
        assert_eq!(&seen, b"read only");
        assert!(memory.write_slice(b"X", ROM).is_err());
        assert!(memory.store(1_u32, ROM, std::sync::atomic::Ordering::SeqCst).is_err());
        assert!(!memory.check_range(ROM, 1, Permissions::Write));
        assert!(memory.check_range(ROM, 1, Permissions::Read));
        assert!(!memory.check_range(GuestAddress(u64::MAX), 2, Permissions::Write));
    }

    #[test]
    fn a_chain_may_be_read_from_read_only_memory_but_not_written() {
        let memory = memory_with_rom();
        let driver = MockSplitQueue::new(&memory, 16);
        let descriptor = |flags| RawDescriptor::from(Descriptor::new(ROM.0, 9, flags, 0));
        driver.add_desc_chains(&[descriptor(0), descriptor(2)], 0).unwrap();
        let mut queue: Queue = driver.create_queue().unwrap();
        let mut chains = queue.iter(&memory).unwrap();
        let mut text = [0; 9];
        let mut reader = chains.next().unwrap().reader(&memory).unwrap();
        std::io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert_eq!(&text, b"read only");
        assert!(chains.next().unwrap().writer(&memory).is_err());
    }
}
