//! Hostile accesses made by a real processor: a bare-metal guest in ring 3, without a kernel, in front of the bus.
//!
//! Code in ring 3 runs alike on KVM that is one and on KVM that interprets in software, so this runs wherever there is a
//! `/dev/kvm`.
#![allow(clippy::unwrap_used, clippy::panic)] // as in every test

use std::os::fd::AsFd;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::sys::mman::ProtFlags;
use vm_memory::{Bytes, GuestAddress};
use vmm::bus::{Bus, Rom};
use vmm::console::ConsoleLog;
use vmm::event_loop::EventLoop;
use vmm::ioapic::{Ioapic, Registers};
use vmm::layout::{IOAPIC_START, MMIO_START, MMIO_WINDOW};
use vmm::memory::{DeviceMemory, Mapping, Region};
use vmm::purpose::Answer;
use vmm::virtio::mmio::MmioTransport;
use vmm::virtio::rng::Rng;
use vmm::virtio::window::Windows;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const RAM_BYTES: u64 = 4 << 20;
const ROM_START: u64 = 1 << 30;
const ROM_BYTES: u64 = 2 << 20;
const TABLES: u64 = 0x1000;
const CODE: u64 = 0x10_0000;
/// Where the queue of the driver is, and what it asks to have filled.
const RINGS: u64 = 0x20_0000;
const BUFFER: u64 = 0x30_0000;
/// The guest reports what it has read, and that it is done.
const VALUE_PORT: u16 = 0x10;
const DONE_PORT: u16 = 0x11;
const EXITS_MAX: usize = 100_000;

const STATUS: u64 = MMIO_START + 0x70;
const WIDTHS: [u64; 4] = [1, 2, 4, 8];

/// The guest's program, in machine code.
#[derive(Default)]
struct Program(Vec<u8>);

impl Program {
    /// `movabs rcx, address`.
    fn point(&mut self, address: u64) {
        self.0.extend([0x48, 0xb9]);
        self.0.extend(address.to_le_bytes());
    }

    /// `movabs rax, value; mov [rcx], al|ax|eax|rax`.
    fn write(&mut self, address: u64, width: u64, value: u64) -> &mut Self {
        self.point(address);
        self.0.extend([0x48, 0xb8]);
        self.0.extend(value.to_le_bytes());
        self.0.extend(match width {
            1 => &[0x88, 0x01][..],
            2 => &[0x66, 0x89, 0x01],
            4 => &[0x89, 0x01],
            _ => &[0x48, 0x89, 0x01],
        });
        self
    }

    /// `xor eax, eax; mov al|ax|eax|rax, [rcx]; out VALUE_PORT, eax`.
    fn read(&mut self, address: u64, width: u64) -> &mut Self {
        self.point(address);
        self.0.extend([0x31, 0xc0]);
        self.0.extend(match width {
            1 => &[0x8a, 0x01][..],
            2 => &[0x66, 0x8b, 0x01],
            4 => &[0x8b, 0x01],
            _ => &[0x48, 0x8b, 0x01],
        });
        self.0.extend([0xe7, VALUE_PORT as u8]);
        self
    }

    fn register(&mut self, offset: u64, value: u64) -> &mut Self {
        self.write(MMIO_START + offset, 4, value)
    }

    /// From the reset to DRIVER_OK, with the queue at [`RINGS`].
    fn start(&mut self) -> &mut Self {
        for (offset, value) in [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x38, 16)]
        {
            self.register(offset, value);
        }
        for (offset, address) in [(0x80, RINGS), (0x90, RINGS + 0x1000), (0xa0, RINGS + 0x2000)] {
            self.register(offset, address).register(offset + 4, 0);
        }
        self.register(0x44, 1).register(0x70, 15)
    }

    /// Asks for `len` random bytes at `address`, `count` times, and notifies.
    fn request(&mut self, address: u64, len: u64, count: u64) -> &mut Self {
        self.write(RINGS, 8, address).write(RINGS + 8, 8, len | 2 << 32);
        self.write(RINGS + 0x1002, 2, count).register(0x50, 0)
    }
}

struct Guest {
    vcpu: VcpuFd,
    bus: Bus,
    memory: DeviceMemory,
    /// Counts what the guest writes to read-only memory.
    rom_writes: nix::sys::eventfd::EventFd,
    _vm: VmFd,
}

impl Guest {
    /// `None` where there is no KVM at all.
    fn new(program: &Program, events: &EventLoop<()>) -> Option<Self> {
        if !std::path::Path::new("/dev/kvm").exists() {
            eprintln!("SKIPPED: this machine has no /dev/kvm");
            return None;
        }
        let vm = Kvm::new().unwrap().create_vm().unwrap();
        let region = |start, bytes, protection| Region {
            start: GuestAddress(start),
            mapping: Arc::new(Mapping::anonymous(bytes, protection).unwrap()),
        };
        let ram = region(0, RAM_BYTES, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
        let rom = region(ROM_START, ROM_BYTES, ProtFlags::PROT_READ);
        let windows = Windows::new().unwrap();
        let slots = [(&ram, 0), (&rom, KVM_MEM_READONLY), (windows.region(), KVM_MEM_READONLY)];
        for (slot, (region, flags)) in (0..).zip(slots) {
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: region.start.0,
                memory_size: region.mapping.bytes(),
                userspace_addr: region.mapping.host_address(),
            };
            // SAFETY: the guest is gone before its memory: it is the first field of what owns both.
            unsafe { vm.set_user_memory_region(region) }.unwrap();
        }
        let memory = DeviceMemory::new(vec![ram], vec![rom]).unwrap();
        write_page_tables(&memory);
        let mut code = program.0.clone();
        code.extend([0xe6, DONE_PORT as u8]);
        memory.write_slice(&code, GuestAddress(CODE)).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        enter_ring_3(&vcpu);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let console = ConsoleLog::new(None);
        let workers = Box::new(events.handle());
        let transport = MmioTransport::new(
            Box::new(Rng),
            windows.window(0),
            vec![event()],
            event(),
            memory.clone(),
            workers,
            console.clone(),
        );
        let rom_writes = nix::sys::eventfd::EventFd::new().unwrap();
        let counter = rom_writes.as_fd().try_clone_to_owned().unwrap();
        let rom = Rom::new(ROM_START..ROM_START + ROM_BYTES, Some(counter));
        let window = Windows::at(IOAPIC_START.into(), 1).unwrap().window(0);
        let ioapic = Ioapic::new(window, Box::new(()), Registers::default()).unwrap();
        let bus = Bus::new(vec![transport], ioapic, rom, Answer::None, console, Arc::default());
        Some(Self { vcpu, bus, memory, rom_writes, _vm: vm })
    }

    /// Runs the guest to its end, and returns what it has read.
    fn run(&mut self) -> Vec<u32> {
        let mut values = Vec::new();
        for _ in 0..EXITS_MAX {
            match self.vcpu.run().unwrap() {
                VcpuExit::MmioRead(_, data) => self.bus.mmio_read(data),
                VcpuExit::MmioWrite(address, data) => self.bus.mmio_write(address, data),
                VcpuExit::IoOut(VALUE_PORT, data) => {
                    values.push(u32::from_le_bytes(data.try_into().unwrap()))
                }
                VcpuExit::IoOut(DONE_PORT, _) => return values,
                other => panic!("the guest did what it was not told to: {other:?}"),
            }
        }
        panic!("the guest does not come to its end");
    }
}

/// The first 4 GiB as they are, in pages of 2 MiB that ring 3 may use.
fn write_page_tables(memory: &DeviceMemory) {
    const PRESENT_WRITABLE_USER: u64 = 7;
    const LARGE: u64 = 1 << 7;
    let put = |address: u64, entry: u64| memory.write_obj(entry, GuestAddress(address)).unwrap();
    put(TABLES, (TABLES + 0x1000) | PRESENT_WRITABLE_USER);
    for gigabyte in 0..4 {
        let directory = TABLES + 0x2000 + gigabyte * 0x1000;
        put(TABLES + 0x1000 + 8 * gigabyte, directory | PRESENT_WRITABLE_USER);
        for page in 0..512 {
            put(directory + 8 * page, gigabyte << 30 | page << 21 | LARGE | PRESENT_WRITABLE_USER);
        }
    }
}

/// Long mode at privilege level 3, which may use ports.
fn enter_ring_3(vcpu: &VcpuFd) {
    let mut sregs = vcpu.get_sregs().unwrap();
    let flat = |type_, selector, l| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1 - l,
        s: 1,
        l,
        g: 1,
        ..Default::default()
    };
    sregs.cs = flat(0xb, 0x1b, 1);
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = flat(0x3, 0x23, 0);
    }
    sregs.tr = kvm_segment { limit: 0x67, type_: 0xb, present: 1, ..Default::default() };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0011, TABLES, 0x20, 0x500);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&kvm_regs { rip: CODE, rflags: 0x3002, ..Default::default() }).unwrap();
}

/// What the guest has read, and the guest; nothing where there is no KVM.
fn run(program: &Program, look: impl FnOnce(&[u32], &Guest)) {
    let events = EventLoop::<()>::new().unwrap();
    let handle = events.handle();
    let Some(mut guest) = Guest::new(program, &events) else { return };
    let thread = std::thread::spawn(|| events.run());
    let values = guest.run();
    look(&values, &guest);
    handle.stop(());
    thread.join().unwrap().unwrap();
}

#[test]
fn registers_are_written_in_words_and_every_other_access_is_without_effect() {
    let mut program = Program::default();
    program.register(0x70, 0).register(0x70, 1);
    for offset in 0..0x100 {
        for width in WIDTHS.into_iter().filter(|width| *width != 4 || offset % 4 != 0) {
            program.write(MMIO_START + offset, width, u64::MAX).read(MMIO_START + offset, width);
        }
    }
    program.read(MMIO_START, 4).read(STATUS, 4);
    run(&program, |values, _| {
        let last = values.last_chunk::<2>().unwrap();
        assert_eq!(last, &[0x7472_6976, 1], "the magic number, and the status as it was");
    });
}

#[test]
fn accesses_across_windows_and_to_nobody_are_survived() {
    let mut program = Program::default();
    for width in WIDTHS {
        for address in [MMIO_START - 1, MMIO_START + MMIO_WINDOW - 1, MMIO_START + 0x1_0000, 0xfff0_0000] {
            program.write(address, width, u64::MAX).read(address, width);
        }
    }
    program.read(STATUS, 4);
    run(&program, |values, _| assert_eq!(values.last(), Some(&0)));
}

#[test]
fn a_running_queue_cannot_be_changed_and_a_reset_may_come_in_the_middle() {
    let mut program = Program::default();
    for _ in 0..50 {
        program.start().request(BUFFER, 0x1_0000, 16);
        program.register(0x30, 0).register(0x38, 8).register(0x44, 0).register(0x80, 0x1234);
        program.read(MMIO_START + 0x44, 4).read(STATUS, 4).register(0x70, 0).read(STATUS, 4);
    }
    run(&program, |values, _| {
        for round in values.chunks(3) {
            assert_eq!(round, [1, 15, 0], "ready, running, and nothing after the reset");
        }
    });
}

#[test]
fn pmem_keeps_what_it_has_whoever_writes() {
    let mut program = Program::default();
    for width in WIDTHS {
        program.write(ROM_START + 3, width, u64::MAX).read(ROM_START + 3, width);
    }
    // Then by the device.
    program.start().request(ROM_START, 4096, 1).register(0x70, 0).read(ROM_START, 4);
    run(&program, |values, guest| {
        assert!(values.iter().all(|value| *value == 0), "{values:x?}");
        assert_eq!(guest.rom_writes.read().unwrap(), 4);
        let mut rom = vec![1; 4096];
        guest.memory.read_slice(&mut rom, GuestAddress(ROM_START)).unwrap();
        assert!(rom.iter().all(|byte| *byte == 0));
    });
}
