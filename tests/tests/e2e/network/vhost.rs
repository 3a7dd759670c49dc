//! Who moves the packets of micro-VMs: the host's kernel where it has vhost-net, else the VMM.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::world::{World, bridge};
use super::{assert_echoed, connect};
use crate::harness::{BUSYBOX, Finished, Process, is_throw_away_host, stage1};

const DEVICE: &str = "/dev/vhost-net";

/// Runs a test where it is about something: with VMs, on a host that has the device.
fn run(test: impl FnOnce(&World)) {
    if stage1() != "kvm" {
        return;
    }
    // The emulated host has it, so there the tests are none that skip all.
    if Path::new(DEVICE).exists() || is_throw_away_host() {
        World::run(|world| {
            world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
            test(world);
        });
    }
}

/// Sees to it that this world has something else there.
fn instead_of_device(other: &str) {
    mount(Some(other), DEVICE, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A pod that sends back what it hears, until it has been asked for much; what it has said to be debugged.
fn echo_much(world: &World) -> Finished {
    let mut command = world.command("--net=lan:IP=10.9.0.77", BUSYBOX);
    command.args(["--debug", "--exec=/bin/sh", "--", "-c", "echo ready; exec nc -ll -p 8000 -e /bin/cat"]);
    let mut echo = Process::start(&mut command);
    echo.wait_for_line("ready");
    let sent: Vec<u8> = (0..4_u32 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    assert_echoed(connect("10.9.0.77:8000"), &sent);
    echo.signal(Signal::SIGTERM);
    echo.finish()
}

#[test]
fn the_kernel_moves_packets() {
    run(|world| {
        let said = echo_much(world).stderr;
        assert!(said.contains("eth0 is served by the host's kernel (vhost-net)"), "{said}");
    });
}

#[test]
fn the_vmm_moves_packets_where_the_kernel_cannot() {
    run(|world| {
        // A node without a driver, as there is one without the module.
        let node = "/var/lib/no-driver";
        mknod(node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(4000, 0)).unwrap();
        instead_of_device(node);
        let said = echo_much(world).stderr;
        assert!(said.contains("eth0 is served by the VMM"), "{said}");
    });
}

#[test]
fn what_is_no_vhost_ends_the_pod_before_its_start() {
    run(|world| {
        instead_of_device("/dev/null");
        let finished = world.sh("--net=lan", "echo started").exited(254);
        assert!(finished.stdout.is_empty(), "{}", finished.text());
        assert!(finished.stderr.contains("vhost-net"), "{}", finished.stderr);
    });
}
