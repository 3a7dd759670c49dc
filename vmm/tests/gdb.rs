//! A debugger at a guest kernel's first instructions. `RKT_TEST_KERNEL` names the kernel; it needs KVM.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use vmm::gdb::Gdb;
use vmm::layout::PVH_INFO_START;
use vmm::{Exit, Leaves, Machine, MachineConfig, Shape, Start, VcpuCount, probe};

/// Where a register is in the answer to `g`.
const RBX: usize = 8;
const RIP: usize = 16 * 8;

/// A client of the remote serial protocol.
struct Client(UnixStream);

impl Client {
    fn connect(path: &Path) -> Self {
        let mut client = Self(UnixStream::connect(path).unwrap());
        assert!(client.ask("qSupported:swbreak+;hwbreak+;vContSupported+").contains("hwbreak+"));
        // Nobody reads an acknowledgement of the last answer.
        assert_eq!(client.ask("QStartNoAckMode"), "OK");
        client
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut next = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            byte[0]
        };
        while next() != b'$' {}
        let text = std::iter::from_fn(|| Some(next()).filter(|byte| *byte != b'#')).collect();
        let _sum = (next(), next());
        expand(text)
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.answer()
    }

    fn registers(&mut self) -> Vec<u8> {
        let text = self.ask("g");
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    fn rip(&mut self) -> u64 {
        number(&self.registers(), RIP)
    }

    /// Goes on at `address`.
    fn jump(&mut self, address: u64) {
        let mut registers = self.registers();
        registers[RIP..RIP + 8].copy_from_slice(&address.to_le_bytes());
        let digits: String = registers.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.ask(&format!("G{digits}")), "OK");
    }

    /// Executes one instruction of the first processor.
    fn step(&mut self) -> u64 {
        let stop = self.ask("vCont;s:1");
        assert!(stop.starts_with("T05") && stop.contains("thread:"), "{stop}");
        self.rip()
    }
}

/// What is repeated: a character, `*`, and how often more, plus 29.
fn expand(packed: Vec<u8>) -> String {
    let mut text: Vec<u8> = Vec::new();
    let mut packed = packed.into_iter();
    while let Some(byte) = packed.next() {
        match byte {
            b'*' => text.extend(vec![*text.last().unwrap(); usize::from(packed.next().unwrap() - 29)]),
            byte => text.push(byte),
        }
    }
    String::from_utf8(text).unwrap()
}

fn number(registers: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(registers[at..at + 8].try_into().unwrap())
}

fn machine(listener: UnixListener) -> Machine {
    let kernel = File::open(std::env::var("RKT_TEST_KERNEL").unwrap()).unwrap();
    let kvm = probe::open_checked().unwrap();
    let cpuid = Leaves::from_kvm(&kvm, VcpuCount::new(2).unwrap(), None).unwrap();
    Machine::build(MachineConfig {
        confined: false,
        gdb: Some(Gdb::new(listener)),
        ..MachineConfig::new(kvm, Shape::new(cpuid, 128 << 20), Start::Kernel(kernel))
    })
    .unwrap()
}

/// A breakpoint in hardware, and from there one in software. QEMU's emulation has neither in a guest of its guest: it does not look at the
/// debug registers of one, and does not let its `int3` leave it. There they are only set and taken away.
fn reach_breakpoints(client: &mut Client, [first, second, third]: [u64; 3]) {
    let emulated = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG");
    client.jump(first);
    let original = client.ask(&format!("m{third:x},1"));
    for (kind, name, address) in [(1, "hwbreak", second), (0, "swbreak", third)] {
        assert_eq!(client.ask(&format!("Z{kind},{address:x},1")), "OK");
        if !emulated {
            let stop = client.ask("vCont;c");
            assert!(stop.starts_with("T05") && stop.contains(name), "{stop}");
            assert_eq!(client.rip(), address);
        }
        assert_eq!(client.ask(&format!("z{kind},{address:x},1")), "OK");
    }
    assert_eq!(client.ask(&format!("m{third:x},1")), original);
}

#[test]
fn a_guest_is_debugged_from_its_first_instruction_on() {
    let path = std::env::temp_dir().join(format!("gdb-{}.socket", std::process::id()));
    let machine = machine(UnixListener::bind(&path).unwrap());
    let running = std::thread::spawn(move || machine.run());

    let mut client = Client::connect(&path);
    let threads = client.ask("qfThreadInfo");
    assert_eq!(threads.split(',').count(), 2, "{threads}");
    let registers = client.registers();
    assert_eq!(number(&registers, RBX), PVH_INFO_START, "as the PVH protocol has it");

    // Each step is one further instruction.
    let first = number(&registers, RIP);
    let [second, third] = [client.step(), client.step()];
    assert!(first < second && second < third && third < first + 32, "{first:#x} {second:#x} {third:#x}");

    // Once more from the beginning, with registers and memory that can be written.
    client.jump(first);
    assert_eq!(client.step(), second);
    let scratch = PVH_INFO_START - 8;
    assert_eq!(client.ask(&format!("M{scratch:x},4:0badcafe")), "OK");
    assert_eq!(client.ask(&format!("m{scratch:x},4")), "0badcafe");
    assert!(client.ask("mffff00000000,1").starts_with('E'), "where there is no memory");
    reach_breakpoints(&mut client, [first, second, third]);

    // It runs until it is interrupted; another debugger finds it running, and ends it.
    client.send("vCont;c");
    client.0.write_all(&[3]).unwrap();
    assert!(client.answer().starts_with("T02"));
    assert_eq!(client.ask("D"), "OK");
    drop(client);
    let mut client = Client::connect(&path);
    assert!(client.rip() > 0);
    client.send("k");
    assert_eq!(running.join().unwrap().unwrap(), Exit::Stopped);
    std::fs::remove_file(&path).unwrap();
}
