//! A device's registers as a driver reads them: a page of memory that the guest cannot write.
//!
//! So to read is no exit, neither of the many registers by which a driver finds its device, nor of InterruptStatus at each
//! interrupt. To write is one, as with any read-only memory (KVM API, KVM_MEM_READONLY).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::ProtFlags;
use vm_memory::{Address, Bytes, GuestAddress, Permissions, VolatileMemory};

use crate::layout::{MAX_DEVICES, MMIO_START, MMIO_WINDOW};
use crate::memory::{DeviceMemory, Mapping, MemoryError, Region};

/// Windows that the guest finds one after the other.
#[derive(Debug)]
pub struct Windows {
    region: Region,
    memory: DeviceMemory,
}

impl Windows {
    /// Those of all virtio devices that a machine can have.
    pub fn new() -> Result<Self, MemoryError> {
        Self::at(MMIO_START, MAX_DEVICES)
    }

    /// So many windows, in which everything reads as zeros.
    pub fn at(start: u64, count: usize) -> Result<Self, MemoryError> {
        let bytes = count as u64 * MMIO_WINDOW;
        let mapping = Mapping::anonymous(bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let region = Region { start: GuestAddress(start), mapping: Arc::new(mapping) };
        Ok(Self { memory: DeviceMemory::new(vec![region.clone()], Vec::new())?, region })
    }

    /// What the guest gets, to read it.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Number `index` of them.
    pub fn window(&self, index: usize) -> Window {
        let start = self.region.start.unchecked_add(index as u64 * MMIO_WINDOW);
        Window { memory: self.memory.clone(), start }
    }
}

/// One device's window.
#[derive(Clone, Debug)]
pub struct Window {
    memory: DeviceMemory,
    start: GuestAddress,
}

impl Window {
    /// Sets a register, whose offset is a multiple of four.
    pub fn set(&self, register: u64, value: u32) {
        self.change(register, |word| word.store(value, Ordering::SeqCst));
    }

    /// Sets a register but for bits that others set.
    pub fn set_except(&self, register: u64, others: u32, value: u32) {
        let merge = |old| Some(old & others | value & !others);
        self.change(register, |word| word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, merge));
    }

    /// Sets bits of a register, of which others set others.
    pub fn add(&self, register: u64, bits: u32) {
        self.change(register, |word| word.fetch_or(bits, Ordering::SeqCst));
    }

    /// Clears bits of a register.
    pub fn remove(&self, register: u64, bits: u32) {
        self.change(register, |word| word.fetch_and(!bits, Ordering::SeqCst));
    }

    /// Fills a part of the window; what does not fit is left out.
    pub fn fill(&self, offset: u64, bytes: &[u8]) {
        if let Some((address, rest)) = self.rest(offset) {
            // The window is memory of its own.
            let _cannot_fail = self.memory.write_slice(bytes.get(..rest).unwrap_or(bytes), address);
        }
    }

    /// What a driver reads; zeros past the window's end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((address, rest)) = self.rest(offset) {
            let length = data.len().min(rest);
            let _cannot_fail = self.memory.read_slice(data.get_mut(..length).unwrap_or_default(), address);
        }
    }

    /// Where this is, and how many bytes there are from here to the window's end.
    fn rest(&self, offset: u64) -> Option<(GuestAddress, usize)> {
        let rest = MMIO_WINDOW.checked_sub(offset)?;
        Some((self.start.checked_add(offset)?, usize::try_from(rest).ok()?))
    }

    fn change<T>(&self, register: u64, change: impl FnOnce(&AtomicU32) -> T) {
        let address = self.start.unchecked_add(register);
        let slice = self.memory.slice(address, size_of::<AtomicU32>(), Permissions::ReadWrite);
        if let Ok(word) = slice.as_ref().map_err(drop).and_then(|slice| slice.get_atomic_ref(0).map_err(drop))
        {
            change(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(window: &Window, offset: u64) -> u32 {
        let mut word = [0xaa; 4];
        window.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    #[test]
    fn registers_are_words_of_one_device() {
        let windows = Windows::new().unwrap();
        let [one, two] = [3, 4].map(|index| windows.window(index));
        one.set(0x60, 1);
        one.add(0x60, 2);
        one.remove(0x60, 1);
        assert_eq!([word(&one, 0x60), word(&one, 0x64), word(&two, 0x60)], [2, 0, 0]);
        one.set_except(0x60, 2, 5);
        assert_eq!(word(&one, 0x60), 7);
        one.set_except(0x60, 2, 2);
        assert_eq!(word(&one, 0x60), 2);
        windows.window(MAX_DEVICES - 1).set(MMIO_WINDOW - 4, 7);
        assert_eq!(word(&windows.window(MAX_DEVICES - 1), MMIO_WINDOW - 4), 7);
    }

    #[test]
    fn nothing_goes_past_a_windows_end() {
        let windows = Windows::new().unwrap();
        let [one, two] = [0, 1].map(|index| windows.window(index));
        one.fill(MMIO_WINDOW - 2, &[1, 2, 3, 4]);
        one.fill(MMIO_WINDOW, &[5]);
        one.fill(u64::MAX, &[5]);
        assert_eq!([word(&one, MMIO_WINDOW - 2), word(&two, 0)], [0x0201, 0]);
        assert_eq!([word(&one, MMIO_WINDOW), word(&one, u64::MAX)], [0, 0]);
        one.read(0, &mut []);
    }
}
