//! A VM goes on from a machine that has booted before it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{BUSYBOX, Finished, Host, Process, image};

/// What a guest says that no two may say alike, its time of day, and the seconds that it has run.
const SAY: &str = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | xxd -p; date +%s; cut -d. -f1 /proc/uptime";
/// How far a guest's time may be from the host's, and how long it may have run: emulated ones are slow.
const SLACK: Duration = Duration::from_secs(60);

fn run(options: &[&str], app_options: &[&str], script: &str) -> Finished {
    let (busybox, host) = (image(BUSYBOX), Host::new());
    let arguments = [options, &[&busybox], app_options, &["--exec=/bin/sh", "--", "-c", script]].concat();
    Process::start(&mut host.run(&arguments)).finish().success()
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn guests_of_a_shape_start_alike_and_are_not() {
    // A shape that no other test has, so that the first makes its template.
    let guests = [(), ()].map(|()| {
        let finished = run(&["--timeline"], &["--memory=208Mi"], SAY);
        assert!(finished.stderr.contains("template-entry"), "{}", finished.stderr);
        let time = seconds_now();
        let text = finished.text();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let number = |at: usize| lines[at].parse::<u64>().unwrap();
        assert!(number(3).abs_diff(time) < SLACK.as_secs(), "{text}at {time}");
        assert!(number(4) < SLACK.as_secs(), "{text}");
        lines
    });
    let [first, second] = guests;
    for random in 0..3 {
        assert_ne!(first[random], second[random]);
    }
}

#[test]
fn all_of_its_processors_go_on() {
    for _ in 0..2 {
        let script =
            "for cpu in 0 1 2; do taskset $((1 << cpu)) sh -c 'echo $(nproc)'; done; sleep 0.1; nproc";
        assert_eq!(run(&[], &["--cpu=3"], script).text(), "1\n1\n1\n3\n");
    }
}

/// Who wants to see a kernel boot has one that boots.
#[test]
fn with_debug_the_kernel_boots() {
    let finished = run(&["--debug", "--timeline"], &[], "cat /proc/cmdline");
    assert!(finished.stderr.contains("kernel-entry"), "{}", finished.stderr);
    assert!(finished.stderr.contains("Linux version 6.12."), "{}", finished.stderr);
    let line = finished.text();
    assert!(line.contains("console=hvc0") && line.contains("virtio_mmio.device="), "{line}");
}
