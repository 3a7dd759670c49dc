//! VMs of Firecracker, the peer of pods in VMs: with the same kernel, one vCPU, as much memory, a tap on the same bridge, and the same
//! tools. `tests/bench` makes what they start with, if it has found a `firecracker`; their init is `tests/bench-files/guest`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bridge::BRIDGE;
use crate::measure::run;
use crate::patience::{LIMIT, REPEATS};
use crate::{Bench, Error};

/// What rkt's VM has with an app that has the default limit.
const MEMORY_MIB: u32 = 576;
/// Where a guest has a shell for each connection.
const SHELL_PORT: u16 = 9000;
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What comes of a connection to a guest that does nothing any more.
const STANDS_STILL: [io::ErrorKind; 4] = [
    io::ErrorKind::WouldBlock,
    io::ErrorKind::TimedOut,
    io::ErrorKind::HostUnreachable,
    io::ErrorKind::ConnectionRefused,
];

/// A VM that serves, and has commands carried out.
#[derive(Debug)]
pub struct Guest {
    machine: Child,
    address: Ipv4Addr,
    tap: String,
}

/// The program, if this machine has it.
fn program(bench: &Bench) -> Option<PathBuf> {
    Some(bench.work.join("bin/firecracker")).filter(|program| program.exists())
}

impl Guest {
    /// Starts one that has this address, and waits until it serves.
    pub fn start(bench: &Bench, address: Ipv4Addr) -> Result<Self, Error> {
        for _ in 0..REPEATS {
            let mut guest = Self::boot(bench, address)?;
            match guest.run("true")? {
                Some(_) => return Ok(guest),
                None => guest.stop()?,
            }
        }
        Err("Firecracker's VM does not start".into())
    }

    fn boot(bench: &Bench, address: Ipv4Addr) -> Result<Self, Error> {
        let program = program(bench).ok_or("no firecracker on this machine")?;
        let tap = format!("peer{}", address.octets()[3]);
        run(Command::new("ip").args(["tuntap", "add", &tap, "mode", "tap", "vnet_hdr"]))?;
        run(Command::new("ip").args(["link", "set", &tap, "master", BRIDGE, "up"]))?;
        let config = bench.work.join(format!("{tap}.json"));
        fs::write(&config, configuration(bench, address, &tap).to_string())?;
        let mut command = Command::new(program);
        command.args(["--no-api", "--config-file"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self { machine: command.spawn()?, address, tap })
    }

    /// What a shell prints that gets this line; nothing, if it does not end.
    pub fn run(&self, line: &str) -> Result<Option<String>, Error> {
        match self.told(line) {
            Ok(told) => Ok(Some(told)),
            Err(error) if STANDS_STILL.contains(&error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn told(&self, line: &str) -> io::Result<String> {
        let mut told = String::new();
        let mut shell = self.connect()?;
        shell.set_read_timeout(Some(LIMIT))?;
        writeln!(shell, "{line}")?;
        shell.shutdown(Shutdown::Write)?;
        shell.read_to_string(&mut told)?;
        Ok(told)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let (begin, shell) = (Instant::now(), SocketAddr::from((self.address, SHELL_PORT)));
        loop {
            match TcpStream::connect_timeout(&shell, LIMIT) {
                Err(_) if begin.elapsed() < LIMIT => sleep(RETRY_INTERVAL),
                connected => return connected,
            }
        }
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.machine.kill()?;
        self.machine.wait()?;
        run(Command::new("ip").args(["link", "del", &self.tap])).map(drop)
    }
}

fn configuration(bench: &Bench, address: Ipv4Addr, tap: &str) -> serde_json::Value {
    let [.., last] = address.octets();
    json!({
        "boot-source": {
            "kernel_image_path": bench.work.join("bin/vmlinux"),
            "initrd_path": bench.work.join("guest.cpio"),
            // The kernel leaves to init what it does not know itself.
            "boot_args": format!("quiet reboot=t panic=-1 address={address}"),
        },
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
        "network-interfaces": [{
            "iface_id": "eth0",
            "guest_mac": format!("02:09:00:00:00:{last:02x}"),
            "host_dev_name": tap,
        }],
    })
}
