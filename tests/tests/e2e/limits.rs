//! The effects of limits on what an app can use.

use serde_json::json;

use crate::harness::{Aci, Finished, Host, Process, stage1};

fn with(options: &[&str], script: &str) -> Finished {
    Process::start(&mut Host::new().shell(options, script)).finish()
}

/// `dd` holds a block in memory; not one that is more than all memory of a guest, which refuses that at once.
fn allocate(mib: u32) -> String {
    format!("exec dd if=/dev/zero of=/dev/null bs={mib}M count=1")
}

#[test]
fn memory_below_the_limit_is_there() {
    with(&["--memory=128Mi"], &allocate(64)).success();
}

#[test]
fn memory_above_the_limit_kills() {
    with(&["--memory=64Mi"], &allocate(80)).exited(137);
}

#[test]
fn the_default_limits_memory_too() {
    with(&[], &allocate(530)).exited(137);
}

/// The memory of one app is no other's.
#[test]
fn a_killed_neighbour_does_no_harm() {
    let host = Host::new();
    let finished = Process::start(
        &mut host.shell(&["--memory=64Mi"], "dd if=/dev/zero of=/dev/null bs=100M count=1; exit 3"),
    );
    finished.finish().exited(3);
}

#[test]
fn cpu_time_is_a_share_of_the_clocks() {
    let seconds = 4.0;
    let script = format!("timeout {seconds} sh -c 'while :; do :; done'; times");
    let output = with(&["--cpu=200m"], &script).success().text();
    // The second line is the children's.
    let used: f64 = output.lines().nth(1).unwrap().split_whitespace().map(time_of).sum();
    // A fifth; what is coarse in it are the ends and the tick.
    assert!(used > 0.02 * seconds && used < 0.32 * seconds, "{used} s of {seconds} s ({output})");
}

/// Of a text like `0m1.25s`.
fn time_of(text: &str) -> f64 {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
    minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
}

#[test]
fn limits_without_sense_are_refused() {
    for option in ["--memory=16m", "--memory=much", "--cpu=0", "--cpu=-1", "--memory=99999999Ti"] {
        let host = Host::new();
        let finished = Process::start(&mut host.shell(&[option], "exit 0")).finish();
        let value = option.split_once('=').unwrap().1;
        assert!(matches!(finished.code, 2 | 254), "{option}: {} {}", finished.code, finished.stderr);
        assert!(finished.stderr.contains(value.trim_start_matches('-')), "{option}: {}", finished.stderr);
        assert!(host.pods().is_empty(), "{option}");
    }
}

#[test]
fn rates_take_a_machine_of_ones_own() {
    let host = Host::empty();
    if stage1() == "kvm" {
        return;
    }
    for name in ["resource/block-bandwidth", "resource/block-iops"] {
        let isolators = json!([{ "name": name, "value": { "default": true, "limit": "2M" } }]);
        let app = json!({ "exec": ["/bin/true"], "user": "0", "group": "0", "isolators": isolators });
        let finished = Process::start(&mut host.run(&[&Aci::new(app, &[]).path()])).finish().exited(254);
        assert!(
            finished.stderr.contains(name) && finished.stderr.contains("--stage1=kvm"),
            "{}",
            finished.stderr
        );
    }
    assert!(host.pods().is_empty());
}
