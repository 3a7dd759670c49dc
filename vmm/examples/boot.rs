//! Boots a kernel and shows what it says: for tests, measurements and debugging.
//!
//! `boot KERNEL [--template FILE] [--pmem FILE] [--block FILE] [--tap NAME] [--vcpus N] [--memory-mib N] [--quiet] [PARAMETERS...]`
//!
//! With `--template` it makes a template in FILE first, and goes on from that.
//!
//! The console goes to stderr, the timeline to stdout in nanoseconds of `CLOCK_MONOTONIC`.

use std::error::Error;
use std::fs::File;
use std::io::Write;

use vmm::virtio::block::BlockConfig;
use vmm::virtio::net::{self, NetConfig};
use vmm::virtio::throttle::Throttle;
use vmm::{Leaves, Machine, MachineConfig, Shape, Start, Template, VcpuCount, probe, template};

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
    let (kvm, mut vcpus) = (probe::open_kvm()?, VcpuCount::ONE);
    let shape = Shape::new(Leaves::from_kvm(&kvm, vcpus, None)?, 128 << 20);
    let mut config = MachineConfig {
        confined: false,
        console: Some(Box::new(|bytes| drop(std::io::stderr().write_all(bytes)))),
        ..MachineConfig::new(kvm, shape, Start::Kernel(kernel))
    };
    let mut template = None;
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
                tap: net::tap::open(&value()?, net::tap::Queues::One)?,
                mac: MAC,
                mover: net::Mover::Vmm(net::Throttles::default()),
            }),
            "--vcpus" => vcpus = VcpuCount::new(value()?.parse()?).ok_or("1 to 32 processors")?,
            "--memory-mib" => config.shape.memory_bytes = value()?.parse::<u64>()? << 20,
            "--quiet" => config.console = None,
            "--template" => template = Some(value()?),
            parameter => config.shape.command_line = format!("{} {parameter}", config.shape.command_line),
        }
    }
    config.shape.cpuid = Leaves::from_kvm(&config.kvm, vcpus, None)?;
    match template {
        Some(path) => keep(config, &path),
        None => Ok(config),
    }
}

/// The machine as one that goes on from a template in `path`.
fn keep(config: MachineConfig, path: &str) -> Result<MachineConfig, Box<dyn Error>> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let key = [0; 32];
    template::make(&config.kvm, &config.shape, config.start.file(), &file, &key)?;
    let template = Template::open(open(path)?, &key, &config.shape)?.ok_or("it is no template")?;
    Ok(MachineConfig { start: Start::Template(template), ..config })
}

fn open(path: &str) -> Result<File, String> {
    File::open(path).map_err(|error| format!("{path}: {error}"))
}

fn open_to_write(path: &str) -> Result<File, String> {
    File::options().read(true).write(true).open(path).map_err(|error| format!("{path}: {error}"))
}
