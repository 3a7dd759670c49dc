//! Limits take effect.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::pod::{Pod, text};

fn limited(script: &str, isolator: &str, limit: &str) -> Pod {
    let isolators = json!([{"name": isolator, "value": {"limit": limit}}]);
    Pod::new().with("app", json!({"exec": ["/bin/sh", "-c", script], "isolators": isolators}))
}

#[test]
fn too_much_memory_is_fatal() {
    let take = "dd if=/dev/zero of=/dev/null bs=64M count=1 && echo survived";
    let output = limited(take, "resource/memory", "32Mi").run();
    assert!(!text(&output.stdout).contains("survived"), "{output:?}");
    assert_eq!(limited(take, "resource/memory", "256Mi").run().status.code(), Some(0));
    let output = limited("exec dd if=/dev/zero of=/dev/null bs=64M count=1", "resource/memory", "32Mi").run();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
}

/// The CPU time that a process has had, in seconds (proc_pid_stat(5): utime and stime).
fn cpu_time(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

#[test]
fn the_cpu_is_throttled() {
    let pod = limited("echo ready; while :; do :; done", "resource/cpu", "100m");
    let mut running = pod.start();
    std::io::Read::read_exact(running.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let procs = pod.cgroups().into_iter().map(|cgroup| cgroup.join("app/cgroup.procs"));
    let procs = procs.map(|procs| fs::read_to_string(procs).unwrap()).next().unwrap();
    let (begin, before) = (Instant::now(), cpu_time(procs.trim()));
    std::thread::sleep(Duration::from_secs(3));
    let share = (cpu_time(procs.trim()) - before) / begin.elapsed().as_secs_f64();
    assert!(share > 0.02 && share < 0.15, "a tenth of a core was asked for: {share}");
}

#[test]
fn the_values_are_written() {
    let isolators = json!([
        {"name": "resource/cpu", "value": {"limit": "250m"}},
        {"name": "os/linux/cpu-shares", "value": 2048},
    ]);
    let script = "echo ready; sleep 1000";
    let pod = Pod::new().with("app", json!({"exec": ["/bin/sh", "-c", script], "isolators": isolators}));
    let mut running = pod.start();
    std::io::Read::read_exact(running.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let read = |file: &str| {
        let files = pod.cgroups().into_iter().map(|cgroup| cgroup.join("app").join(file));
        files.filter_map(|file| fs::read_to_string(file).ok()).next()
    };
    match read("cpu.max") {
        Some(v2) => {
            assert_eq!(v2, "25000 100000\n");
            assert_eq!(read("cpu.weight").unwrap(), "200\n");
            assert_eq!(read("memory.max").unwrap(), format!("{}\n", 512 << 20));
        }
        None => {
            assert_eq!(read("cpu.cfs_quota_us").unwrap(), "25000\n");
            assert_eq!(read("cpu.shares").unwrap(), "2048\n");
            assert_eq!(read("memory.limit_in_bytes").unwrap(), format!("{}\n", 512 << 20));
        }
    }
    assert_ne!(read("cgroup.procs").unwrap(), "", "the app is in it");
}
