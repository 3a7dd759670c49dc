//! A machine that has booted and does not know yet what it is for, kept in a file, from which any number of machines go on.
//!
//! It holds nothing of anybody's: the machine has had no devices, no file systems and no caller. A machine that goes on
//! from it maps the file's memory privately, so that all share what none of them writes.
//!
//! The file begins with guest memory, each address at its own offset, with holes where the guest has touched nothing. What KVM has
//! of the machine comes after it, and a header of one page at the end says where. It is of use to the build that has made it, on
//! the host that was booted then; the caller's key says which that is.

mod bytes;
mod make;
mod state;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kvm_bindings::KVM_CAP_VCPU_ATTRIBUTES;
use kvm_ioctls::{Kvm, VcpuFd};
use nix::sys::mman::ProtFlags;
use nix::unistd::{Whence, lseek};

pub use make::make;

use crate::error::Error;
use crate::ioapic::Registers;
use crate::layout;
use crate::memory::{DeviceMemory, Mapping, PAGE_SIZE, Region, Sharing};
use crate::purpose::Purpose;
use crate::shape::Shape;
use crate::vm::Vm;
use state::MachineState;

/// What two templates have to have in common to be the same.
pub type Key = [u8; 32];

const MAGIC: &[u8; 16] = b"rkt template 01\n";
/// Holes up to this size are filled: the memory is mapped piece by piece, and each piece costs.
const GAP_BYTES: u64 = 64 << 10;
/// More than 32 processors' state is.
const STATE_MAX: u64 = 4 << 20;

/// Whether this KVM lets a machine's clocks go on from where others were kept: as of Linux 5.16.
pub fn is_possible(kvm: &Kvm) -> bool {
    kvm.check_extension_raw(KVM_CAP_VCPU_ATTRIBUTES.into()) > 0
}

/// A machine to go on from.
pub struct Template {
    file: File,
    state: MachineState,
    /// Where the kernel looks for what the machine is for.
    purpose_address: u32,
    /// The parts of the file that hold memory.
    pieces: Vec<Range<u64>>,
}

/// The last page of the file.
struct Header {
    key: Key,
    state_bytes: u64,
    purpose_address: u32,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.key);
        bytes.extend(self.state_bytes.to_le_bytes());
        bytes.extend(self.purpose_address.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.strip_prefix(MAGIC.as_slice())?.split_first_chunk()?;
        let (state_bytes, rest) = rest.split_first_chunk()?;
        let purpose_address = u32::from_le_bytes(*rest.first_chunk()?);
        let state_bytes = u64::from_le_bytes(*state_bytes);
        (state_bytes <= STATE_MAX).then_some(Self { key: *key, state_bytes, purpose_address })
    }
}

impl Template {
    /// Opens the template in `file` if it is of this `key`; `None` if it is another's, or none. It must not change as long as a
    /// machine goes on from it.
    pub fn open(file: File, key: &Key, shape: &Shape) -> std::io::Result<Option<Self>> {
        let memory_end = shape.memory_bytes;
        let Some(header_at) = file.metadata()?.len().checked_sub(PAGE_SIZE) else { return Ok(None) };
        let mut header = [0; PAGE_SIZE as usize];
        file.read_exact_at(&mut header, header_at)?;
        let header = Header::from_bytes(&header).filter(|header| {
            header.key == *key && memory_end.saturating_add(header.state_bytes) <= header_at
        });
        let Some(Header { state_bytes, purpose_address, .. }) = header else { return Ok(None) };
        let mut state = vec![0; state_bytes as usize];
        file.read_exact_at(&mut state, memory_end)?;
        let state = MachineState::from_bytes(&state);
        let Some(state) = state.filter(|state| state.vcpus() == usize::from(shape.cpuid.vcpus().get()))
        else {
            return Ok(None);
        };
        let pieces = pieces(&file, memory_end)?;
        Ok(Some(Self { file, state, purpose_address, pieces }))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Maps the memory of a machine of this shape, as the template has left it.
    pub(crate) fn map_ram(&self, shape: &Shape) -> Result<Vec<Region>, Error> {
        shape.map_ram(|start, bytes| {
            let mut mapping = Mapping::anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
            let first = offset_in_file(start);
            for piece in &self.pieces {
                let (from, to) = (piece.start.max(first), piece.end.min(first + bytes));
                if from < to {
                    mapping.overlay(from - first, &self.file, from, to - from, Sharing::Private)?;
                }
            }
            Ok(mapping)
        })
    }

    /// What the interrupt controller of a new machine goes on from.
    pub(crate) fn ioapic(&self) -> Registers {
        self.state.ioapic()
    }

    /// Tells a new machine what it is for, and puts its processors where they go on from.
    pub(crate) fn go_on(
        &self,
        vm: &Vm,
        vcpus: &[VcpuFd],
        memory: &DeviceMemory,
        purpose: &Purpose,
    ) -> Result<(), Error> {
        purpose.write(memory, self.purpose_address)?;
        self.state.restore_vcpus(vm, vcpus)
    }
}

/// Where memory at a guest's address is in the file: the gap below 4 GiB is not there.
fn offset_in_file(address: u64) -> u64 {
    if address < layout::GAP_END { address } else { address - (layout::GAP_END - layout::GAP_START) }
}

/// The parts of `file` below `end` that hold data.
fn pieces(file: &File, end: u64) -> std::io::Result<Vec<Range<u64>>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < end {
        let seek = |from: u64, whence| match lseek(file, from as i64, whence) {
            Ok(offset) => Ok(offset as u64),
            // No more data.
            Err(nix::Error::ENXIO) => Ok(end),
            Err(error) => Err(error),
        };
        let start = seek(at, Whence::SeekData)?.min(end);
        at = if start < end { seek(start, Whence::SeekHole)?.min(end) } else { end };
        let piece = start / PAGE_SIZE * PAGE_SIZE..at;
        match pieces.last_mut() {
            Some(last) if piece.start - last.end < GAP_BYTES => last.end = piece.end,
            _ if !piece.is_empty() => pieces.push(piece),
            _ => {}
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::tempfile::TempFile;

    use super::*;
    use crate::cpu::{Leaves, VcpuCount};

    const KEY: Key = [7; 32];
    const MIB: u64 = 1 << 20;

    fn processors(count: u8) -> Shape {
        Shape::new(Leaves::new(VcpuCount::new(count).unwrap(), Vec::new()), 64 * MIB)
    }

    /// A file with a page of data at each of these places.
    fn file_with(places: &[u64], length: u64) -> File {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(length).unwrap();
        places.iter().for_each(|at| file.write_all_at(&[b'x'; PAGE_SIZE as usize], *at).unwrap());
        file
    }

    /// A template of two processors with a page of data at 1 MiB.
    fn template_file() -> File {
        let state = state::testing::state().to_bytes();
        let file = file_with(&[MIB], 64 * MIB);
        let header = Header { key: KEY, state_bytes: state.len() as u64, purpose_address: 0x2000 };
        make::finish(&file, 64 * MIB, &state, header).unwrap();
        file
    }

    #[test]
    fn a_files_data_is_found_and_small_holes_are_not() {
        let file = file_with(&[0, 2 * PAGE_SIZE, 2 * MIB], 4 * MIB);
        let found = |end| pieces(&file, end).unwrap();
        assert_eq!(found(4 * MIB), [0..3 * PAGE_SIZE, 2 * MIB..2 * MIB + PAGE_SIZE]);
        assert_eq!(found(MIB).len(), 1);
        assert!(pieces(&file_with(&[], MIB), MIB).unwrap().is_empty());
    }

    #[test]
    fn a_machine_has_the_memory_of_its_template_for_itself() {
        let template = Template::open(template_file(), &KEY, &processors(2)).unwrap().unwrap();
        assert_eq!(template.purpose_address, 0x2000);
        let map = || DeviceMemory::new(template.map_ram(&processors(2)).unwrap(), Vec::new()).unwrap();
        let read = |memory: &DeviceMemory, at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        let (first, second) = (map(), map());
        first.write_obj(b'y', GuestAddress(MIB)).unwrap();
        assert_eq!([read(&first, MIB), read(&second, MIB)], *b"yx");
        assert_eq!([read(&first, 0), read(&first, 64 * MIB - 1)], [0, 0]);
    }

    #[test]
    fn what_is_not_this_template_is_none() {
        let open = |file, key, shape: &Shape| Template::open(file, key, shape).unwrap().is_some();
        let shape = processors(2);
        assert!(open(template_file(), &KEY, &shape));
        assert!(!open(template_file(), &[8; 32], &shape), "another key");
        assert!(!open(template_file(), &KEY, &processors(1)), "another shape");
        assert!(!open(file_with(&[], 0), &KEY, &shape));
        assert!(!open(file_with(&[0, PAGE_SIZE], 2 * PAGE_SIZE), &KEY, &shape));
        let cut = template_file();
        cut.set_len(64 * MIB).unwrap();
        assert!(!open(cut, &KEY, &shape));
    }

    #[test]
    fn a_header_with_more_state_than_there_can_be_is_none() {
        let header = |state_bytes| Header { key: KEY, state_bytes, purpose_address: 1 }.to_bytes();
        assert!(Header::from_bytes(&header(STATE_MAX)).is_some());
        assert!(Header::from_bytes(&header(STATE_MAX + 1)).is_none());
        assert!(Header::from_bytes(&header(0)[..50]).is_none());
    }

    #[test]
    fn the_gap_is_not_in_the_file() {
        assert_eq!(offset_in_file(MIB), MIB);
        assert_eq!(offset_in_file(layout::GAP_END), layout::GAP_START);
    }
}
