//! The I/O interrupt controller (Intel 82093AA), as far as devices need it whose interrupts are all edges: a register to choose another by, a
//! register that is that one, and for each pin where its interrupt goes.
//!
//! KVM has such a controller, too, but takes each interrupt of an eventfd through a thread of its own to it, and to two of the PC of old
//! beside it. Here the guest's registers become KVM's routes, of the kind by which an interrupt reaches a processor at once (MSI). What the
//! guest reads is memory that it cannot write, as are devices' registers.

use crate::console::ConsoleLog;
use crate::error::Error;
use crate::layout::{IOAPIC_PINS, IOAPIC_START};
use crate::virtio::window::{Window, Windows};
use crate::vm::{Access, Vm};

const PINS: usize = IOAPIC_PINS as usize;

/// Which register is [`DATA`].
const SELECT: u64 = 0;
const DATA: u64 = 0x10;

/// Registers.
const ID: u32 = 0;
const VERSION: u32 = 1;
const ARBITRATION: u32 = 2;
/// Two words for each pin.
const REDIRECTIONS: u32 = 0x10;

const ID_BITS: u32 = 0x0f00_0000;
/// What the MP table says, too.
pub const IOAPIC_VERSION: u8 = 0x11;
const VERSION_AND_PINS: u32 = IOAPIC_VERSION as u32 | (IOAPIC_PINS - 1) << 16;

/// Of a redirection entry (section 3.2.4).
mod entry {
    pub const VECTOR: u64 = 0xff;
    pub const DELIVERY: u64 = 7 << 8;
    pub const LOWEST_PRIORITY: u64 = 1 << 8;
    pub const LOGICAL: u64 = 1 << 11;
    /// Delivery status, and the remote IRR of levels.
    pub const READ_ONLY: u64 = 1 << 12 | 1 << 14;
    pub const MASKED: u64 = 1 << 16;
    pub const DESTINATION_SHIFT: u32 = 56;
}

/// Where processors take messages for interrupts, and what an address says of whom one is for (Intel SDM, volume 3, 11.11.1).
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
const MESSAGE_DESTINATION_SHIFT: u32 = 12;
const MESSAGE_LOGICAL: u32 = 1 << 2;

/// The message that a pin's interrupt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interrupt's number.
    pub gsi: u32,
    /// The message's address.
    pub address: u32,
    /// What it says.
    pub data: u32,
}

/// Who takes interrupts where they are to go.
pub trait Router: Send + Sync {
    /// These, and no others.
    fn route(&self, routes: &[Route]) -> Result<(), Error>;
}

/// Where there are no interrupts.
impl Router for () {
    fn route(&self, _: &[Route]) -> Result<(), Error> {
        Ok(())
    }
}

/// What there is to keep of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    selected: u32,
    id: u32,
    redirections: [u64; PINS],
}

impl Default for Registers {
    /// As after a reset: nothing goes anywhere.
    fn default() -> Self {
        Self { selected: 0, id: 0, redirections: [entry::MASKED; PINS] }
    }
}

impl Registers {
    /// How many words they are.
    pub const WORDS: usize = 2 + PINS;

    /// As words.
    pub fn to_words(&self) -> impl Iterator<Item = u64> {
        [self.selected.into(), self.id.into()].into_iter().chain(self.redirections)
    }

    /// From as many words.
    pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let [selected, id, redirections @ ..] = words;
        Self { selected: *selected as u32, id: *id as u32, redirections: *redirections }
    }

    fn read(&self, register: u32) -> u32 {
        match register {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_AND_PINS,
            _ => place(register).map_or(0, |(pin, shift)| {
                self.redirections.get(pin).map_or(0, |redirection| (redirection >> shift) as u32)
            }),
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        if register == ID {
            self.id = value & ID_BITS;
        }
        let Some((pin, shift)) = place(register) else { return };
        if let Some(redirection) = self.redirections.get_mut(pin) {
            let others = *redirection & !(u64::from(u32::MAX) << shift);
            *redirection = (others | u64::from(value) << shift) & !entry::READ_ONLY;
        }
    }

    /// Those of pins that are not masked, to vectors of processors.
    fn routes(&self) -> Vec<Route> {
        let routes = (0..).zip(&self.redirections).filter_map(|(gsi, redirection)| route(gsi, *redirection));
        routes.collect()
    }
}

/// The pin of a register, and where in its entry that is.
fn place(register: u32) -> Option<(usize, u32)> {
    let index = register.checked_sub(REDIRECTIONS)?;
    Some(((index / 2) as usize, 32 * (index % 2)))
}

/// Levels are taken for edges, for that is what devices make.
fn route(gsi: u32, redirection: u64) -> Option<Route> {
    let delivery = redirection & entry::DELIVERY;
    if redirection & entry::MASKED != 0 || ![0, entry::LOWEST_PRIORITY].contains(&delivery) {
        return None;
    }
    let destination = (redirection >> entry::DESTINATION_SHIFT) as u32;
    let logical = if redirection & entry::LOGICAL == 0 { 0 } else { MESSAGE_LOGICAL };
    let address = MESSAGE_ADDRESS | destination << MESSAGE_DESTINATION_SHIFT | logical;
    Some(Route { gsi, address, data: (redirection & entry::VECTOR | delivery) as u32 })
}

/// The controller.
pub struct Ioapic {
    window: Window,
    router: Box<dyn Router>,
    registers: Registers,
    routes: Vec<Route>,
}

impl Ioapic {
    /// One with these registers, which the guest reads in `window`.
    pub fn new(window: Window, router: Box<dyn Router>, registers: Registers) -> Result<Self, Error> {
        let routes = registers.routes();
        router.route(&routes)?;
        let ioapic = Self { window, router, registers, routes };
        ioapic.show();
        Ok(ioapic)
    }

    /// One of `vm`, where every PC has it.
    pub fn attach(vm: &mut Vm, registers: Registers) -> Result<Self, Error> {
        let windows = Windows::at(IOAPIC_START.into(), 1)?;
        vm.add_memory(windows.region(), Access::ReadOnly)?;
        Self::new(windows.window(0), Box::new(vm.router()), registers)
    }

    /// What is to be kept of it.
    pub fn registers(&self) -> Registers {
        self.registers.clone()
    }

    /// The guest writes `data` at `offset` of the window. What is not a word is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8], console: &ConsoleLog) {
        let Ok(word) = data.try_into().map(u32::from_le_bytes) else { return };
        match offset {
            SELECT => self.registers.selected = word & 0xff,
            DATA => self.registers.write(self.registers.selected, word),
            _ => return,
        }
        self.show();
        let routes = self.registers.routes();
        // KVM waits for its readers at each change, and most writes are none.
        if routes != self.routes {
            if let Err(error) = self.router.route(&routes) {
                console.note(&format!("interrupts go where they went: {error}"));
            }
            self.routes = routes;
        }
    }

    fn show(&self) {
        self.window.set(SELECT, self.registers.selected);
        self.window.set(DATA, self.registers.read(self.registers.selected));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Each time that interrupts were routed.
    #[derive(Clone, Default)]
    struct Routed(Arc<Mutex<Vec<Vec<Route>>>>);

    impl Router for Routed {
        fn route(&self, routes: &[Route]) -> Result<(), Error> {
            self.0.lock().unwrap().push(routes.to_vec());
            Ok(())
        }
    }

    struct Guest {
        ioapic: Ioapic,
        window: Window,
        routed: Routed,
    }

    impl Guest {
        fn new() -> Self {
            let window = Windows::at(IOAPIC_START.into(), 1).unwrap().window(0);
            let routed = Routed::default();
            let ioapic = Ioapic::new(window.clone(), Box::new(routed.clone()), Registers::default()).unwrap();
            Self { ioapic, window, routed }
        }

        fn put(&mut self, offset: u64, value: u32) {
            self.ioapic.write(offset, &value.to_le_bytes(), &ConsoleLog::new(None));
        }

        fn write(&mut self, register: u32, value: u32) {
            self.put(SELECT, register);
            self.put(DATA, value);
        }

        fn read(&mut self, register: u32) -> u32 {
            self.put(SELECT, register);
            let mut word = [0; 4];
            self.window.read(DATA, &mut word);
            u32::from_le_bytes(word)
        }

        fn routes(&self) -> Vec<Route> {
            self.routed.0.lock().unwrap().last().unwrap().clone()
        }
    }

    #[test]
    fn registers_are_read_where_they_are_chosen() {
        let mut guest = Guest::new();
        assert_eq!(guest.read(VERSION), 0x0017_0011);
        assert_eq!(guest.read(REDIRECTIONS + 10), 0x1_0000, "masked");
        guest.write(ID, u32::MAX);
        assert_eq!([guest.read(ID), guest.read(ARBITRATION)], [0x0f00_0000; 2]);
        guest.write(REDIRECTIONS + 11, 0x0300_0000);
        guest.write(REDIRECTIONS + 10, 0x1_5023);
        assert_eq!([10, 11].map(|at| guest.read(REDIRECTIONS + at)), [0x1_0023, 0x0300_0000]);
        for nothing in [3, 0xf, REDIRECTIONS + 2 * IOAPIC_PINS, 0xff, u32::MAX] {
            guest.write(nothing, u32::MAX);
            assert_eq!(guest.read(nothing), 0);
        }
    }

    #[test]
    fn a_pins_interrupt_goes_where_its_entry_says_unless_that_is_masked() {
        let mut guest = Guest::new();
        guest.write(REDIRECTIONS + 11, 0x0200_0000);
        guest.write(REDIRECTIONS + 10, 0x23);
        guest.write(REDIRECTIONS + 13, 0x0300_0000);
        guest.write(REDIRECTIONS + 12, 0x924);
        let physical = Route { gsi: 5, address: 0xfee0_2000, data: 0x23 };
        let logical = Route { gsi: 6, address: 0xfee0_3004, data: 0x124 };
        assert_eq!(guest.routes(), [physical, logical]);
        guest.write(REDIRECTIONS + 10, 0x1_0023);
        assert_eq!(guest.routes(), [logical]);
        // An NMI for the guest is the guest's own business.
        guest.write(REDIRECTIONS + 12, 0x400);
        assert_eq!(guest.routes(), []);
    }

    #[test]
    fn kvm_is_only_told_of_changes() {
        let mut guest = Guest::new();
        let told = |guest: &Guest| guest.routed.0.lock().unwrap().len();
        assert_eq!(told(&guest), 1, "of none, at the beginning");
        guest.write(REDIRECTIONS + 1, 0x0100_0000);
        guest.write(REDIRECTIONS, 0x1_0030);
        guest.write(ID, 0x0100_0000);
        assert_eq!(told(&guest), 1);
        guest.write(REDIRECTIONS, 0x30);
        guest.write(REDIRECTIONS, 0x30);
        assert_eq!(told(&guest), 2);
    }

    #[test]
    fn only_words_are_written() {
        let mut guest = Guest::new();
        guest.put(SELECT, ID);
        for (offset, data) in
            [(DATA, &[1; 8][..]), (DATA, &[1]), (DATA + 1, &[1; 4]), (0x20, &[1; 4]), (DATA, &[])]
        {
            guest.ioapic.write(offset, data, &ConsoleLog::new(None));
        }
        assert_eq!(guest.read(ID), 0);
    }

    #[test]
    fn what_was_kept_goes_on() {
        let mut guest = Guest::new();
        guest.write(ID, 0x0100_0000);
        guest.write(REDIRECTIONS + 10, 0x23);
        let registers = guest.ioapic.registers();
        let words: Vec<u64> = registers.to_words().collect();
        let again = Registers::from_words(&words.try_into().unwrap());
        assert_eq!(again, registers);
        let routed = Routed::default();
        let ioapic = Ioapic::new(guest.window.clone(), Box::new(routed.clone()), again).unwrap();
        assert_eq!(ioapic.registers(), registers);
        assert_eq!(routed.0.lock().unwrap().concat(), guest.routes());
    }
}
