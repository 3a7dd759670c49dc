//! Many pods, one after the other and at once: whatever one of them leaves adds up.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::world::{World, bridge, left};
use crate::harness::{Process, effort, is_throw_away_host};

const AT_ONCE: usize = 20;
/// The first pods of a host fill caches of its kernel's.
const WARM_UP: u64 = 10;
/// What a pod would have to leave so that it shows: an open file, or a part of the memory that the smallest VM takes.
const FILES_EACH: u64 = 1;
const KIB_EACH: u64 = 256;
const PAGE_KIB: u64 = 4;

/// What the whole machine has in use.
#[derive(Debug)]
struct InUse {
    files: u64,
    kib: u64,
    cgroups: usize,
    processes: usize,
}

impl InUse {
    fn now() -> Self {
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        let number = |text: &str| text.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let field = |name: &str| number(meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap());
        Self {
            files: number(&fs::read_to_string("/proc/sys/fs/file-nr").unwrap()),
            kib: field("MemTotal:") - field("MemAvailable:") - free_beside_kib(),
            cgroups: folders(Path::new("/sys/fs/cgroup")),
            processes: fs::read_dir("/proc").unwrap().flatten().filter(is_process).count(),
        }
    }
}

/// What the kernel keeps free for each processor by itself, up to some tens of MiB, and does not count as available.
fn free_beside_kib() -> u64 {
    let zones = fs::read_to_string("/proc/zoneinfo").unwrap();
    let pages = zones.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    pages.map(|count| count.trim().parse::<u64>().unwrap() * PAGE_KIB).sum()
}

/// Kernel threads come and go with the work.
fn is_process(entry: &fs::DirEntry) -> bool {
    fs::read_link(entry.path().join("exe")).is_ok()
        && entry.file_name().to_string_lossy().parse::<u32>().is_ok()
}

fn folders(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir() && !path.is_symlink()).map(|path| 1 + folders(&path)).sum()
}

#[test]
fn many_in_a_row_leave_nothing() {
    // As many as tell what a single one leaves.
    let in_a_row = effort(200, 60);
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/28"));
        let mut before = None;
        for count in 1..=in_a_row + WARM_UP {
            // Plugins take most of such a pod's time.
            match count % 5 {
                0 => world.sh("--net=lan", "ip -4 -o addr show eth0 | grep -q 10.9.0. && exit 3").exited(3),
                _ => world.sh("--net=none", "exit 3").exited(3),
            };
            if count % 10 == 0 {
                world.gc().success();
            }
            if count == WARM_UP {
                before = Some(InUse::now());
            }
        }
        assert_eq!(left(), Vec::<String>::new());
        assert!(world.host.pods().is_empty());
        let (before, after) = (before.unwrap(), InUse::now());
        println!("before {before:?}, after {after:?}");
        // Others work on any other machine, and what they do would be taken for pods'.
        if is_throw_away_host() {
            assert_eq!((after.cgroups, after.processes), (before.cgroups, before.processes));
            assert!(after.files < before.files + in_a_row * FILES_EACH, "{before:?} {after:?}");
            assert!(after.kib < before.kib + in_a_row * KIB_EACH, "{before:?} {after:?}");
        }
    });
}

#[test]
fn twenty_at_once() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        // Twenty that look around again and again would leave an emulated machine no time.
        let waiting = "trap 'exit 0' TERM; echo ready; sleep 1000 & wait";
        let mut pods: Vec<Process> = (0..AT_ONCE).map(|_| world.start("--net=lan", waiting)).collect();
        pods.iter_mut().for_each(|pod| pod.wait_for_line("ready"));
        let list = world.finish(world.rkt().args(["list", "--no-legend"])).success().text();
        let mut addresses: Vec<&str> =
            list.split("lan:ip4=").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), AT_ONCE, "{list}");
        pods.iter().for_each(|pod| pod.signal(Signal::SIGTERM));
        pods.into_iter().for_each(|pod| drop(pod.finish().success()));
        world.gc().success();
        assert!(world.host.pods().is_empty());
    });
}
