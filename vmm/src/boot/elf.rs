//! The kernel: an ELF file that is copied into guest memory.
//!
//! Mapping the file there would share the pages that the guest never writes, but those are few: a booting kernel patches
//! its text almost everywhere. And a file's pages are small ones: the guest would leave for the host at the first touch of
//! each, some 2,600 times before init. Copies lie in huge pages.
//!
//! The kernel is a file of the administrator's, not of an image's; it is checked nevertheless.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::sys::mman::ProtFlags;
use vm_memory::{Bytes, GuestAddress, Permissions, VolatileSlice};

use super::BootError;
use crate::layout::HIGH_RAM_START;
use crate::memory::{DeviceMemory, HUGE_PAGE_SIZE, Mapping, PAGE_SIZE, Region, Sharing};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// More program headers than any kernel has.
const PROGRAM_HEADERS_MAX: u16 = 64;
/// More bytes of notes than any kernel has.
const NOTES_MAX: u64 = 64 << 10;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01\x01";
const MACHINE_X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: where a PVH loader enters, in 32-bit protected mode without paging.
const NOTE_PHYS32_ENTRY: u32 = 18;

/// A part of the kernel and where in guest memory it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

/// A kernel that can be started.
#[derive(Debug)]
pub struct Kernel {
    segments: Vec<Segment>,
    /// The guest-physical address of the PVH entry point.
    pub entry: u32,
}

impl Kernel {
    /// Reads the headers of the kernel in `file`.
    pub fn parse(file: &File) -> Result<Self, BootError> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(BootError::Read)?;
        let header = Fields(&header);
        if !header.0.starts_with(ELF64_LITTLE_ENDIAN) || header.u16(18)? != MACHINE_X86_64 {
            return Err(BootError::Kernel("it is not a 64-bit x86 ELF file"));
        }
        let (table, entry_bytes, count) = (header.u64(32)?, header.u16(54)?, header.u16(56)?);
        if usize::from(entry_bytes) != PROGRAM_HEADER_BYTES || count > PROGRAM_HEADERS_MAX {
            return Err(BootError::Kernel("its program headers are malformed"));
        }
        let mut headers = vec![0; PROGRAM_HEADER_BYTES * usize::from(count)];
        file.read_exact_at(&mut headers, table).map_err(BootError::Read)?;

        let (mut segments, mut entry) = (Vec::new(), None);
        for header in headers.chunks_exact(PROGRAM_HEADER_BYTES).map(Fields) {
            let segment = Segment {
                file_offset: header.u64(8)?,
                address: header.u64(24)?,
                file_bytes: header.u64(32)?,
                memory_bytes: header.u64(40)?,
            };
            match header.u32(0)? {
                SEGMENT_LOAD if segment.memory_bytes > 0 => segments.push(segment),
                SEGMENT_NOTE => entry = entry.or(pvh_entry(file, segment)?),
                _ => {}
            }
        }
        let file_bytes = file.metadata().map_err(BootError::Read)?.len();
        if segments.iter().any(|segment| !segment.lies_within(file_bytes)) {
            return Err(BootError::Kernel("it is cut short"));
        }
        if segments.is_empty() {
            return Err(BootError::Kernel("it has nothing to load"));
        }
        let entry = entry.ok_or(BootError::Kernel("it has no PVH entry point"))?;
        Ok(Self { segments, entry })
    }

    /// Where the kernel ends in guest memory.
    pub fn end(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.address.saturating_add(segment.memory_bytes))
            .max()
            .unwrap_or(0)
    }

    /// That every segment lies in `memory_bytes` of RAM.
    pub fn check(&self, memory_bytes: u64) -> Result<(), BootError> {
        self.segments.iter().try_for_each(|segment| segment.check(memory_bytes))
    }
}

/// The kernel's file, mapped to be read, and what of it goes to guest memory.
pub struct Image {
    file: DeviceMemory,
    /// The segments without the pages that are all zeros: these are there already, and take no memory before the guest
    /// writes there.
    runs: Vec<Segment>,
}

impl Image {
    /// Maps the file of `kernel`; it must not shrink while this lives.
    pub fn open(file: &File, kernel: &Kernel) -> Result<Self, BootError> {
        let bytes = file.metadata().map_err(BootError::Read)?.len().next_multiple_of(PAGE_SIZE);
        let mut mapping = Mapping::anonymous(bytes, ProtFlags::PROT_READ)?;
        mapping.overlay(0, file, 0, bytes, Sharing::Shared)?;
        let region = Region { start: GuestAddress(0), mapping: Arc::new(mapping) };
        let mut image = Self { file: DeviceMemory::new(vec![region], Vec::new())?, runs: Vec::new() };
        let mut runs = Vec::new();
        for segment in &kernel.segments {
            let bytes = image.bytes(*segment)?;
            for page in segment.pages() {
                let offset = (page.file_offset - segment.file_offset) as usize;
                let bytes = bytes.subslice(offset, page.file_bytes as usize).map_err(unreadable)?;
                if !is_zero(bytes)? {
                    add(&mut runs, page);
                }
            }
        }
        image.runs = runs;
        Ok(image)
    }

    /// The huge pages of guest memory that the kernel fills by a quarter at least, by their first addresses. What the linker
    /// has aligned to 2 MiB leaves others that hold next to nothing.
    pub fn dense_huge_pages(&self) -> Vec<u64> {
        let mut pages = BTreeMap::new();
        for page in self.runs.iter().flat_map(Segment::pages) {
            *pages.entry(page.address - page.address % HUGE_PAGE_SIZE).or_insert(0) += page.file_bytes;
        }
        pages.retain(|_, filled| *filled * 4 >= HUGE_PAGE_SIZE);
        pages.into_keys().collect()
    }

    /// Copies the kernel to where it belongs; `memory` is still all zeros.
    pub fn load(&self, memory: &DeviceMemory) -> Result<(), BootError> {
        for run in &self.runs {
            let source = self.bytes(*run)?;
            let target = memory
                .slice(GuestAddress(run.address), run.file_bytes as usize, Permissions::Write)
                .map_err(|source| BootError::Write { what: "the kernel", source })?;
            // In pages, for longer copies are made by string instructions, which are slow where they are emulated.
            for page in run.pages() {
                let (offset, bytes) = ((page.address - run.address) as usize, page.file_bytes as usize);
                let source = source.subslice(offset, bytes).map_err(unreadable)?;
                source.copy_to_volatile_slice(target.subslice(offset, bytes).map_err(unreadable)?);
            }
        }
        Ok(())
    }

    fn bytes(&self, part: Segment) -> Result<VolatileSlice<'_>, BootError> {
        self.file
            .slice(GuestAddress(part.file_offset), part.file_bytes as usize, Permissions::Read)
            .map_err(unreadable)
    }
}

/// Adds a page to the last run, or begins another.
fn add(runs: &mut Vec<Segment>, page: Segment) {
    match runs.last_mut() {
        Some(run)
            if run.address + run.file_bytes == page.address
                && run.file_offset + run.file_bytes == page.file_offset =>
        {
            run.file_bytes += page.file_bytes;
        }
        _ => runs.push(page),
    }
}

/// A look at the first bytes answers for most pages.
fn is_zero(mut bytes: VolatileSlice<'_>) -> Result<bool, BootError> {
    static ZEROS: [u8; 1024] = [0; 1024];
    if bytes.read_obj::<u64>(0).is_ok_and(|first| first != 0) {
        return Ok(false);
    }
    let mut buffer = [0; ZEROS.len()];
    while !bytes.is_empty() {
        let read = bytes.copy_to(&mut buffer);
        if !buffer.get(..read).is_some_and(|read| ZEROS.starts_with(read)) {
            return Ok(false);
        }
        bytes = bytes.offset(read).map_err(unreadable)?;
    }
    Ok(true)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> BootError {
    BootError::Read(io::Error::other(error))
}

impl Segment {
    /// What the file has of it, by pages of guest memory; the first and the last may be part of one.
    fn pages(&self) -> impl Iterator<Item = Self> + use<> {
        let Self { file_offset, address, file_bytes, .. } = *self;
        let mut done = 0;
        std::iter::from_fn(move || {
            let bytes = (PAGE_SIZE - (address + done) % PAGE_SIZE).min(file_bytes - done);
            let page = Self {
                address: address + done,
                file_offset: file_offset + done,
                file_bytes: bytes,
                memory_bytes: bytes,
            };
            done += bytes;
            (bytes > 0).then_some(page)
        })
    }

    /// Whether the file has all of the segment: a page mapped past its end would be a fault of this process.
    fn lies_within(&self, file_bytes: u64) -> bool {
        self.file_offset.checked_add(self.file_bytes).is_some_and(|end| end <= file_bytes)
    }

    /// That the segment lies in `memory_bytes` of RAM, above what the machine itself puts there, and does not overflow.
    fn check(&self, memory_bytes: u64) -> Result<(), BootError> {
        let malformed = BootError::Kernel("a segment is malformed");
        if self.file_bytes > self.memory_bytes {
            return Err(malformed);
        }
        if self.address < HIGH_RAM_START {
            return Err(BootError::Kernel("a segment lies below 1 MiB"));
        }
        let end = self.address.checked_add(self.memory_bytes).ok_or(malformed)?;
        if end > memory_bytes {
            return Err(BootError::Memory { what: "the kernel", bytes: end, memory_bytes });
        }
        Ok(())
    }
}

/// Looks for the PVH entry point in a segment of notes.
fn pvh_entry(file: &File, notes: Segment) -> Result<Option<u32>, BootError> {
    if notes.file_bytes > NOTES_MAX {
        return Err(BootError::Kernel("its notes are malformed"));
    }
    let mut bytes = vec![0; notes.file_bytes as usize];
    file.read_exact_at(&mut bytes, notes.file_offset).map_err(BootError::Read)?;
    let mut rest = bytes.as_slice();
    while rest.len() >= 12 {
        let note = Fields(rest);
        let (name_bytes, value_bytes) = (note.u32(0)? as usize, note.u32(4)? as usize);
        let value_start = 12 + name_bytes.next_multiple_of(4);
        if note.u32(8)? == NOTE_PHYS32_ENTRY && rest.get(12..16) == Some(b"Xen\0") {
            // The value is as wide as the kernel's addresses, the entry point itself lies below 4 GiB.
            return Fields(rest).u32(value_start).map(Some);
        }
        let next = value_start + value_bytes.next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(None)
}

/// Little-endian fields at offsets of a byte string.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], BootError> {
        self.0
            .get(offset..)
            .and_then(|rest| rest.first_chunk().copied())
            .ok_or(BootError::Kernel("it is cut short"))
    }

    fn u16(&self, offset: usize) -> Result<u16, BootError> {
        self.array(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, BootError> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, BootError> {
        self.array(offset).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    const BASE: u64 = 0x10_0000;
    const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

    fn program_header(kind: u32, offset: u64, address: u64, file_bytes: u64, memory_bytes: u64) -> Vec<u8> {
        let words = [offset, 0, address, file_bytes, memory_bytes, 0x1000];
        let mut header = [kind.to_le_bytes(), [0; 4]].concat();
        words.iter().for_each(|word| header.extend(word.to_le_bytes()));
        header
    }

    /// A file with a note at 0x200 and text at 0x1000: one page and 16 bytes of 'k'.
    fn kernel_file(headers: &[Vec<u8>]) -> File {
        let mut image = vec![0; 0x1000];
        image[..7].copy_from_slice(ELF64_LITTLE_ENDIAN);
        image[18] = 62;
        image[32] = 64;
        image[54] = 56;
        image[56] = headers.len() as u8;
        let table = headers.concat();
        image[64..64 + table.len()].copy_from_slice(&table);
        let other_note = [3_u32, 1, 1].map(u32::to_le_bytes).concat();
        let note = [4_u32, 8, 18].map(u32::to_le_bytes).concat();
        let notes =
            [&other_note[..], b"GNU\0\x01\0\0\0", &note, b"Xen\0", &(BASE + 0x40).to_le_bytes()].concat();
        image[0x200..0x200 + notes.len()].copy_from_slice(&notes);
        image.extend([b'k'; 0x1010]);
        image.extend([b'!'; 0x100]);
        let mut file = TempFile::new().unwrap().into_file();
        file.write_all(&image).unwrap();
        file
    }

    fn note() -> Vec<u8> {
        program_header(SEGMENT_NOTE, 0x200, 0, 44, 44)
    }

    fn load(address: u64, file_bytes: u64, memory_bytes: u64) -> Vec<u8> {
        program_header(SEGMENT_LOAD, 0x1000, address, file_bytes, memory_bytes)
    }

    fn place(file: &File) -> Result<Vec<u8>, BootError> {
        let kernel = Kernel::parse(file)?;
        kernel.check(2 << 20)?;
        let ram = Mapping::anonymous(2 << 20, READ_WRITE).unwrap();
        let region = Region { start: GuestAddress(0), mapping: Arc::new(ram) };
        let memory = DeviceMemory::new(vec![region], Vec::new()).unwrap();
        Image::open(file, &kernel)?.load(&memory)?;
        let mut all = vec![0; 1 << 20];
        memory.read_slice(&mut all, GuestAddress(BASE)).unwrap();
        Ok(all)
    }

    #[test]
    fn segments_are_placed_and_what_follows_them_is_zero() {
        let file = kernel_file(&[note(), load(BASE, 0x1010, 0x3000)]);
        assert_eq!(Kernel::parse(&file).unwrap().entry, BASE as u32 + 0x40);
        assert_eq!(Kernel::parse(&file).unwrap().end(), BASE + 0x3000);
        let memory = place(&file).unwrap();
        assert!(memory[..0x1010].iter().all(|byte| *byte == b'k'));
        assert!(memory[0x1010..].iter().all(|byte| *byte == 0), "bytes of the file's next part got in");
    }

    #[test]
    fn huge_pages_that_are_mostly_empty_are_not_dense() {
        let quarter = HUGE_PAGE_SIZE / 4;
        let file = kernel_file(&[note(), load(BASE, quarter, quarter)]);
        let dense = || Image::open(&file, &Kernel::parse(&file).unwrap()).unwrap().dense_huge_pages();
        file.set_len(0x1000 + quarter).unwrap();
        assert!(dense().is_empty(), "zeros are not there");
        file.write_all_at(&vec![b'k'; quarter as usize], 0x1000).unwrap();
        assert_eq!(dense(), [0]);
    }

    #[test]
    fn an_unaligned_segment_is_copied() {
        let memory = place(&kernel_file(&[note(), load(BASE + 8, 0x1010, 0x1010)])).unwrap();
        assert_eq!(memory[7], 0);
        assert!(memory[8..0x1018].iter().all(|byte| *byte == b'k'));
        assert_eq!(memory[0x1018], 0);
    }

    #[test]
    fn bad_kernels_are_refused() {
        let bad = [
            vec![load(BASE, 16, 16)],
            vec![note()],
            vec![note(), load(BASE, 32, 16)],
            vec![note(), load(0x8000, 16, 16)],
            vec![note(), load(BASE, 16, 2 << 20)],
            vec![note(), load(u64::MAX - 8, 16, 16)],
            vec![note(), load(BASE, 1 << 19, 1 << 19)],
            vec![program_header(SEGMENT_NOTE, 0x200, 0, NOTES_MAX + 1, 0), load(BASE, 16, 16)],
            vec![program_header(SEGMENT_LOAD, u64::MAX, BASE, 16, 16), note()],
        ];
        for headers in bad {
            assert!(place(&kernel_file(&headers)).is_err(), "{headers:x?}");
        }
        let empty = TempFile::new().unwrap().into_file();
        assert!(matches!(Kernel::parse(&empty), Err(BootError::Read(_))));
    }
}
