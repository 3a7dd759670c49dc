//! Limits take effect.

use std::fs;
use std::time::Instant;

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

/// CPU time in `time -p`'s manner: user and system seconds against the clock.
#[test]
fn the_cpu_is_shared_as_limited() {
    let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let duration = |limit| {
        let begin = Instant::now();
        assert_eq!(limited(burn, "resource/cpu", limit).run().status.code(), Some(0));
        begin.elapsed()
    };
    let (whole, tenth) = (duration("1"), duration("100m"));
    assert!(tenth > 3 * whole, "{tenth:?} against {whole:?}");
}

#[test]
fn the_values_are_written() {
    let pod = limited("echo ready; sleep 1000", "resource/cpu", "250m");
    let mut running = pod.start();
    std::io::Read::read_exact(running.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let read = |file: &str| {
        let files = pod.cgroups().into_iter().map(|cgroup| cgroup.join("app").join(file));
        files.filter_map(|file| fs::read_to_string(file).ok()).next()
    };
    match read("cpu.max") {
        Some(v2) => {
            assert_eq!(v2, "25000 100000\n");
            assert_eq!(read("memory.max").unwrap(), format!("{}\n", 512 << 20));
        }
        None => {
            assert_eq!(read("cpu.cfs_quota_us").unwrap(), "25000\n");
            assert_eq!(read("memory.limit_in_bytes").unwrap(), format!("{}\n", 512 << 20));
        }
    }
    assert_ne!(read("cgroup.procs").unwrap(), "", "the app is in it");
}
