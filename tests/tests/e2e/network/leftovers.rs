//! Networks leave nothing, however their pods end. The world checks that at the end of every test, too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use serde_json::json;

use super::world::{World, bridge, left, ptp};
use crate::crash::{Points, Scenario, Victims};
use crate::harness::{BUSYBOX, Process, effort, stage1};

pub fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not in time");
}

/// Removes a cgroup and those of its apps, if nothing is left in them. It may never have been made.
fn is_removed(cgroup: &Path) -> bool {
    if !cgroup.exists() {
        return true;
    }
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let apps = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    apps.chain([cgroup.to_owned()]).all(|directory| fs::remove_dir(directory).is_ok())
}

/// A pod with the network `net` that was killed with its parent.
fn killed(world: &World, net: &str) {
    let mut pod = world.start(net, "echo ready; sleep 1000");
    pod.wait_for_line("ready");
    pod.signal(Signal::SIGKILL);
    pod.finish();
    assert!(!left().is_empty(), "there is something to collect");
}

/// How many pods follow each other; `RKT_TEST_PODS` says how many instead.
fn pods() -> u32 {
    let enough = effort(210, 20);
    std::env::var("RKT_TEST_PODS").map_or(enough, |pods| pods.parse().unwrap())
}

/// However pods end: addresses are given again.
#[test]
fn addresses_do_not_run_out() {
    World::run(|world| {
        // 13 of the addresses are for pods.
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/28"));
        world.plugin("bad", "[ $CNI_COMMAND = DEL ] || exit 1");
        let half = [bridge("lan", "10.9.0.0/28"), json!({"type": "bad"})];
        let half = json!({"cniVersion": "0.4.0", "name": "half", "plugins": half});
        world.configure("20-half.conflist", &half);
        for number in 1..=pods() {
            match number % 5 {
                0 => killed(world, "--net=lan"),
                // The second attachment fails half-way, after the first is made.
                1 => drop(world.sh("--net=lan,half", "true").exited(254)),
                _ => drop(world.sh("--net=lan", "true").success()),
            }
            if number % 10 == 0 {
                world.gc().success();
            }
        }
        world.gc().success();
        assert_eq!(left(), Vec::<String>::new());
    });
}

/// The directory of a pod is all that a reboot leaves of it, and what plugins have on disk.
#[test]
fn a_pod_that_ended_with_the_machine_is_collected() {
    World::run(|world| {
        world.configure("10-line.conf", &ptp("line", "10.7.0.0/24"));
        killed(world, "--net=line,default");
        let pod = world.host.pods().remove(0);
        wait_for(|| umount2(&pod.join("net/namespace"), MntFlags::MNT_DETACH).is_ok());
        world.gc().success();
        // The kernel removes the lines of a namespace that nobody has in its own time.
        wait_for(|| left().is_empty());
        assert!(world.host.pods().is_empty());
    });
}

#[test]
fn a_killed_pod_is_collected() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/28"));
        killed(world, "--net=lan,default");
        world.gc().success();
        assert_eq!(left(), Vec::<String>::new());
        assert!(world.host.pods().is_empty());
    });
}

#[test]
fn a_killed_pod_is_removed() {
    World::run(|world| {
        killed(world, "--net");
        let uuid = world.host.pods()[0].file_name().unwrap().to_owned();
        world.finish(world.rkt().arg("rm").arg(uuid)).success();
        assert_eq!(left(), Vec::<String>::new());
    });
}

/// As a crash of the machine leaves it, after which somebody has tidied up by hand.
#[test]
fn a_pod_whose_directory_is_gone_is_collected() {
    World::run(|world| {
        world.configure("10-line.conf", &ptp("line", "10.7.0.0/24"));
        killed(world, "--net=line");
        let pod = world.host.pods().remove(0);
        let cgroups = fs::read_to_string(pod.join("subcgroup")).unwrap_or_default();
        umount2(&pod.join("net/namespace"), MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir_all(&pod).unwrap();
        // Nobody else knows of these any more.
        cgroups.lines().for_each(|cgroup| wait_for(|| is_removed(Path::new(cgroup))));
        let mut alive = world.start("--net=line", "echo ready; sleep 1000");
        alive.wait_for_line("ready");
        let before = left().len();
        world.gc().success();
        let after = left();
        assert!(after.len() < before && after.iter().any(|file| file.contains("/results/")), "{after:#?}");
        alive.signal(Signal::SIGTERM);
        alive.finish();
    });
}

#[test]
fn a_plugin_that_fails_half_way() {
    World::run(|world| {
        world.plugin(
            "bad",
            "[ $CNI_COMMAND = DEL ] && exit 0\necho '{\"code\":99,\"msg\":\"no luck\"}'; exit 1",
        );
        let line = ptp("line", "10.7.0.0/24");
        let plugins = [line.clone(), json!({"type": "bad"})];
        world.configure(
            "10-line.conflist",
            &json!({"cniVersion": "1.0.0", "name": "line", "plugins": plugins}),
        );
        let finished = world.sh("--net=default,line", "true").exited(254);
        for word in ["\"line\"", "net.d/bad", "add eth0", "no luck (code 99)"] {
            assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
        }
        assert_eq!(left(), Vec::<String>::new());
    });
}

/// A pod whose start hangs in a plugin, after another one has done its part.
fn hanging(world: &World) -> Process {
    let begun = world.net_d().join("begun");
    world.plugin(
        "slow",
        &format!("[ $CNI_COMMAND = DEL ] || {{ touch {}; exec sleep 1000; }}", begun.display()),
    );
    world.configure(
        "10-line.conflist",
        &json!({"cniVersion": "1.0.0", "name": "line", "plugins": [ptp("line", "10.7.0.0/24"), {"type": "slow"}]}),
    );
    let pod = world.start("--net=line", "true");
    wait_for(|| begun.exists());
    pod
}

#[test]
fn a_start_that_is_interrupted() {
    World::run(|world| {
        let pod = hanging(world);
        pod.signal(Signal::SIGTERM);
        pod.finish().exited(128 + 15);
        assert_eq!(left(), Vec::<String>::new());
    });
}

#[test]
fn a_start_that_is_killed() {
    World::run(|world| {
        let pod = hanging(world);
        pod.signal(Signal::SIGKILL);
        pod.finish();
        assert!(!left().is_empty(), "there is something to collect");
        world.gc().success();
        assert_eq!(left(), Vec::<String>::new());
    });
}

/// However far the pod's parent has come, and whatever plugins it leaves running.
#[test]
fn a_parent_that_is_killed_at_any_point() {
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/28"));
        let begin = || {
            let mut command = world.command("--net=lan", BUSYBOX);
            command.arg("--exec=/bin/true");
            ((), command)
        };
        let points = if stage1() == "nspawn" { Points::All } else { Points::Some(6) };
        let scenario = Scenario { name: "run --net, its parent", victims: Victims::First, points };
        scenario.crash(begin, |(), when| {
            println!("{when}");
            wait_for(|| {
                world.gc().success();
                left().is_empty() && world.host.pods().is_empty()
            });
        });
    });
}
