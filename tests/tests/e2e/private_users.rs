//! Pods with a user namespace of their own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, DEBIAN, Finished, Host, Process, image, stage1, wait_until};

const PRIVATE: &str = "--private-users";

/// A VM has users of its own: there is nothing to test but that.
fn is_vm() -> bool {
    stage1() == "kvm"
}

fn run(host: &Host, pod: &[&str], app: &[&str], script: &str) -> Finished {
    let busybox = image(BUSYBOX);
    let rest = ["--exec=/bin/sh", "--", "-c", script];
    let arguments: Vec<&str> = [pod, &[PRIVATE, busybox.as_str()], app, &rest].concat();
    Process::start(&mut host.run(&arguments)).finish()
}

/// The host's number of the pod's root, from the pod's only directory.
fn shift(host: &Host) -> u32 {
    let text = fs::read_to_string(host.pods()[0].join("private-users-prepared")).unwrap();
    let (shift, count) = text.split_once(':').unwrap();
    assert_eq!(count, "65536");
    shift.parse().unwrap()
}

#[test]
fn the_pods_root_is_not_the_hosts() {
    let host = Host::new();
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c '%u %g' / /bin/busybox /srv; \
        grep ^CapEff: /proc/self/status; cat /proc/1/environ; mknod /tmp/zero c 1 5; echo 0 >/proc/sys/kernel/panic; \
        mkdir /srv/a && chown 5:6 /srv/a && chmod 4755 /srv/kept/file && rm -r /srv/emptied && mkdir /srv/emptied && \
        ls -ld /srv/a /srv/kept/file | awk '{print $1, $3, $4}'; ls /srv/emptied | wc -l";
    let finished = run(&host, &[], &[], script);
    if is_vm() {
        assert_eq!(finished.code, 254);
        assert!(finished.stderr.contains("--stage1=nspawn") && host.pods().is_empty(), "{}", finished.stderr);
        return;
    }
    let text = finished.text();
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let root = shift(&host);
    let map = format!("0 {root} 65536");
    let expected = [
        &map,
        &map,
        "0",
        "0 0",
        "0 0",
        "0 0",
        "CapEff: 00000000a80425fb",
        "drwxr-xr-x 5 6",
        "-rwsr-xr-x root root",
        "0",
    ];
    assert_eq!(lines, expected, "{}", finished.stderr);
    for refused in ["/proc/1/environ", "/tmp/zero", "kernel/panic"] {
        assert!(finished.stderr.contains(refused), "{refused}: {}", finished.stderr);
    }
    // Nothing on the host belongs to its root that the pod has written, set-user-ID least of all.
    let upper = host.pods()[0].join("overlay/busybox/upper");
    for (path, uid, gid) in [("srv/a", root + 5, root + 6), ("srv/kept/file", root, root), ("", root, root)] {
        let metadata = fs::metadata(upper.join(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (uid, gid), "{path}");
    }
}

#[test]
fn whoever_the_app_is_devices_terminals_and_entering_work() {
    if is_vm() {
        return;
    }
    let host = Host::new();
    let script = "for device in zero full random urandom; do head -c 2 /dev/$device | wc -c; done; \
        echo x >/dev/null && : <>/dev/ptmx && ls -l /proc/self/ns/user | sed 's/.*-> //'; id -u; echo ready; \
        until [ -e /tmp/done ]; do sleep 0.1; done";
    let busybox = image(BUSYBOX);
    let mut command = host.run(&[PRIVATE, &busybox, "--user=app", "--exec=/bin/sh", "--", "-c", script]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("ready");
    let enter = "readlink /proc/self/ns/user; cat /proc/self/uid_map | tr -s ' '; id -u; grep ^CapEff: /proc/self/status; touch /tmp/done";
    let entered =
        Process::start(host.rkt().args(["enter", &host.uuid(), "sh", "-c", enter])).finish().success().text();
    let inside: Vec<&str> = entered.lines().collect();
    let own = fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    assert_ne!(inside[0], own);
    assert_eq!(inside[1].trim(), format!("0 {} 65536", shift(&host)));
    assert_eq!(inside[2..], ["1000", "CapEff:\t0000000000000000"]);
    pod.finish().success();
}

#[test]
fn volumes_are_the_pods_or_keep_their_owners() {
    if is_vm() {
        return;
    }
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let source = folder.path().join("data");
    fs::create_dir(&source).unwrap();
    chown(&source, Some(3), Some(4)).unwrap();
    let volume = format!("--volume=host,kind=host,source={}", source.display());
    let flags = [
        "--volume=empty,kind=empty,uid=7,gid=8",
        "--mount=volume=empty,target=/empty",
        "--mount=volume=host,target=/host",
    ];
    let script =
        "stat -c '%u %g' /empty /host; touch /empty/x && echo can; touch /host/x 2>/dev/null || echo cannot";
    let output = run(&host, &[&flags[..], &[&volume]].concat(), &[], script).success().text();
    assert_eq!(output, "7 8\n65534 65534\ncan\ncannot\n");
    host.collect_garbage().success();
    // Not every file system can be shifted: tmpfs since Linux 6.3.
    let shifted = format!("{volume},idmap=true");
    let finished =
        run(&host, &[&flags[..], &[&shifted]].concat(), &[], "stat -c '%u %g' /host; touch /host/x; echo");
    if finished.code == 254 {
        assert!(finished.stderr.contains("idmapped"), "{}", finished.stderr);
    } else {
        assert_eq!(finished.success().text(), "3 4\n\n");
        assert_eq!(fs::metadata(source.join("x")).unwrap().uid(), 0);
    }
}

#[test]
fn pods_that_live_at_once_share_no_users_and_a_kill_frees_them() {
    if is_vm() {
        return;
    }
    let hosts = [Host::new(), Host::new(), Host::new()];
    let pods: Vec<Process> = hosts
        .iter()
        .map(|host| {
            let busybox = image(BUSYBOX);
            let arguments = [PRIVATE, &busybox, "--exec=/bin/sh", "--", "-c", "echo ready; exec sleep 1000"];
            let mut pod = Process::start(&mut host.run(&arguments));
            pod.wait_for_line("ready");
            pod
        })
        .collect();
    let shifts: BTreeSet<u32> = hosts.iter().map(shift).collect();
    assert_eq!(shifts.len(), 3);
    // Another test's collection may have removed it.
    let path = |shift: u32| format!("/run/rkt/private-users/{shift}");
    let locked = |shift: u32| fs::File::open(path(shift)).is_ok_and(|file| file.try_lock().is_err());
    hosts[0].collect_garbage().success();
    assert!(shifts.iter().all(|shift| locked(*shift)));
    for pod in pods {
        pod.signal(Signal::SIGKILL);
        pod.finish();
    }
    let begin = std::time::Instant::now();
    while shifts.iter().any(|shift| locked(*shift)) {
        assert!(begin.elapsed() < crate::harness::LIMIT, "still locked");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A pod of another test may have got the users meanwhile.
    let is_left = |shift: u32| Path::new(&path(shift)).exists() && !locked(shift);
    wait_until("removed", || {
        hosts[0].collect_garbage().success();
        !shifts.iter().any(|shift| is_left(*shift))
    });
}

#[test]
fn packages_that_change_owners_work() {
    if is_vm() {
        return;
    }
    let host = Host::with_images(&[DEBIAN]);
    let debian = image(DEBIAN);
    // Copies up, whiteouts, owners and file capabilities; dpkg does all of it.
    let script = "set -e; cp -a /etc/passwd /tmp/p; chown 33:33 /tmp/p; stat -c %u:%g /tmp/p; mv /var/cache /var/cache2; \
        useradd -m -u 1234 someone && stat -c %u /home/someone; su someone -c 'id -u; touch /home/someone/x'; \
        stat -c %U:%u /etc/shadow";
    let mut command = host.run(&[PRIVATE, &debian, "--exec=/bin/bash", "--", "-c", script]);
    assert_eq!(Process::start(&mut command).finish().success().text(), "33:33\n1234\n1234\nroot:0\n");
}

#[test]
fn the_hosts_network_is_still_the_hosts() {
    if is_vm() {
        return;
    }
    let host = Host::new();
    let finished = run(
        &host,
        &["--net=host"],
        &["--caps-retain=CAP_NET_ADMIN,CAP_NET_BIND_SERVICE"],
        "ls /sys/class/net | grep -c lo; ip link set lo mtu 1280 2>&1; ls -d /sys/kernel",
    );
    let text = finished.success().text();
    assert!(text.starts_with('1') && text.contains("not permitted"), "{text}");
    assert!(Path::new("/sys/class/net/lo").exists());
}
