//! Boots a kernel and shows what it says: for tests, measurements and debugging.
//!
//! `boot KERNEL [--pmem FILE] [--block FILE] [--tap NAME] [--vcpus N] [--memory-mib N] [--quiet] [PARAMETERS...]`
//!
//! The console goes to stderr, the timeline to stdout in nanoseconds of `CLOCK_MONOTONIC`.

use std::error::Error;
use std::fs::File;
use std::io::Write;

use vmm::virtio::block::BlockConfig;
use vmm::virtio::net::{self, NetConfig};
use vmm::virtio::throttle::Throttle;
use vmm::{Machine, MachineConfig, VcpuCount, probe};

/// The guest's address on a tap: locally administered.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn main() -> Result<(), Box<dyn Error>> {
    let config = parse(std::env::args().skip(1))?;
    let machine = Machine::build(config)?;
    let timeline = machine.timeline();
    let ended = machine.run();
    for mark in timeline.marks() {
        println!("{:?} {}", mark.phase, mark.monotonic_ns);
    }
    match ended {
        Ok(exit) => println!("{exit:?}"),
        Err(error) => {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                eprintln!("boot: {error}");
                cause = error.source();
            }
            std::process::exit(1);
        }
    }
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<MachineConfig, Box<dyn Error>> {
    let kernel = open(&arguments.next().ok_or("no kernel given")?)?;
    let mut config = MachineConfig {
        confined: false,
        console: Some(Box::new(|bytes| drop(std::io::stderr().write_all(bytes)))),
        ..MachineConfig::new(probe::open_kvm()?, VcpuCount::ONE, 128 << 20, kernel)
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--pmem" => config.pmem.push(open(&value()?)?),
            "--block" => config.blocks.push(BlockConfig {
                file: open_to_write(&value()?)?,
                read_only: false,
                throttle: Throttle::default(),
            }),
            "--tap" => config.nets.push(NetConfig {
                tap: net::tap::open(&value()?)?,
                mac: MAC,
                throttles: net::Throttles::default(),
            }),
            "--vcpus" => config.vcpus = VcpuCount::new(value()?.parse()?).ok_or("1 to 32 processors")?,
            "--memory-mib" => config.memory_bytes = value()?.parse::<u64>()? << 20,
            "--quiet" => config.console = None,
            parameter => config.command_line = format!("{} {parameter}", config.command_line),
        }
    }
    Ok(config)
}

fn open(path: &str) -> Result<File, String> {
    File::open(path).map_err(|error| format!("{path}: {error}"))
}

fn open_to_write(path: &str) -> Result<File, String> {
    File::options().read(true).write(true).open(path).map_err(|error| format!("{path}: {error}"))
}
