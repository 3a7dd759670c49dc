//! What a machine is for: its devices, and a seed of its own. The kernel learns it once it has booted, from a second command line
//! (`kernel-config/patches`), so that all that comes before is the same for every machine of a shape.
//!
//! The kernel writes the address of its `struct purpose` to a port ([`PURPOSE_PORT`](crate::layout::PURPOSE_PORT)): a seed of 32 bytes, then the command line.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::boot::{self, BootError};
use crate::console::ConsoleLog;
use crate::error::Error;
use crate::layout::COMMAND_LINE_MAX;
use crate::memory::DeviceMemory;

const SEED_BYTES: usize = 32;

/// What one machine is for.
pub struct Purpose {
    seed: [u8; SEED_BYTES],
    command_line: String,
}

impl Purpose {
    /// That of a machine with these parameters for its kernel, with a seed of its own.
    pub fn new(command_line: String) -> Result<Self, Error> {
        boot::check_command_line(&command_line)?;
        let mut seed = [0; SEED_BYTES];
        // SAFETY: the buffer is of this size.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got == SEED_BYTES as isize {
            return Ok(Self { seed, command_line });
        }
        Err(Error::host("get a seed for the guest")(io::Error::last_os_error()))
    }

    /// Writes it where the kernel has said that it looks for it.
    pub fn write(&self, memory: &DeviceMemory, address: u32) -> Result<(), BootError> {
        let line = self.command_line.as_bytes();
        let mut bytes = Vec::with_capacity(SEED_BYTES + COMMAND_LINE_MAX);
        bytes.extend(self.seed);
        bytes.extend(line);
        bytes.push(0);
        boot::write(memory, "what the machine is for", address.into(), &bytes)
    }
}

/// Who answers at the port.
pub enum Answer {
    /// Nobody: the machine knows already.
    None,
    /// A machine that is told, once.
    Tell(Mutex<Option<Box<Told>>>),
    /// One that is to be kept as it is then.
    Hold(Arc<Hold>),
}

/// What a machine is told, and where it has its memory.
pub struct Told {
    /// What.
    pub purpose: Purpose,
    /// Its memory.
    pub memory: DeviceMemory,
}

/// A machine that stops when it asks what it is for.
#[derive(Debug, Default)]
pub struct Hold {
    /// Its processors are to stop.
    pub stopping: AtomicBool,
    address: Mutex<Option<u32>>,
}

impl Hold {
    /// Where the kernel looks for its purpose, once it has asked.
    pub fn address(&self) -> Option<u32> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// That to a machine that is told `purpose`.
    pub fn tell(purpose: Purpose, memory: DeviceMemory) -> Self {
        Self::Tell(Mutex::new(Some(Box::new(Told { purpose, memory }))))
    }

    /// The guest writes `data` to the port. Whatever it writes there later means nothing.
    pub fn asked(&self, data: &[u8], console: &ConsoleLog) {
        let Ok(address) = <[u8; 4]>::try_from(data) else { return };
        let address = u32::from_le_bytes(address);
        match self {
            Self::None => {}
            Self::Tell(told) => {
                let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(Err(error)) = told.map(|told| told.purpose.write(&told.memory, address)) {
                    console.note(&format!("{error}: the guest's kernel is not this machine's"));
                }
            }
            Self::Hold(hold) => {
                *hold.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                hold.stopping.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    fn memory() -> DeviceMemory {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap().into()
    }

    #[test]
    fn a_machine_is_told_once_and_where_it_asks() {
        let (memory, console) = (memory(), ConsoleLog::new(None));
        let answer = Answer::tell(Purpose::new(" a=1".into()).unwrap(), memory.clone());
        answer.asked(&[0, 0x10], &console);
        answer.asked(&0x2000_u32.to_le_bytes(), &console);
        answer.asked(&0x3000_u32.to_le_bytes(), &console);
        let at = |address| {
            let mut bytes = [0xee; 6];
            memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            bytes
        };
        assert_eq!(&at(0x2020), b" a=1\0\0");
        assert_ne!(at(0x2000), [0; 6], "a seed");
        assert_eq!(at(0x3020), [0; 6]);
        assert_eq!(console.last_lines(), "");
    }

    #[test]
    fn an_address_outside_of_memory_is_noted() {
        let console = ConsoleLog::new(None);
        let answer = Answer::tell(Purpose::new("a".into()).unwrap(), memory());
        answer.asked(&[0xff; 4], &console);
        assert!(console.last_lines().contains("what the machine is for"), "{}", console.last_lines());
    }

    #[test]
    fn seeds_differ_and_lines_are_checked() {
        let seed = || Purpose::new(String::new()).unwrap().seed;
        assert_ne!(seed(), seed());
        assert!(Purpose::new("a\0b".into()).is_err());
        assert!(Purpose::new("a".repeat(COMMAND_LINE_MAX)).is_err());
    }

    #[test]
    fn a_machine_that_is_held_stops_when_it_asks() {
        let hold = Arc::new(Hold::default());
        Answer::Hold(Arc::clone(&hold)).asked(&7_u32.to_le_bytes(), &ConsoleLog::new(None));
        assert_eq!((hold.address(), hold.stopping.load(Ordering::SeqCst)), (Some(7), true));
    }
}
