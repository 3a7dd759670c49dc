//! Features that are tested by themselves elsewhere, together.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Aci, BUSYBOX, Finished, Host, Process, image, stage1, wait_until};

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

fn idle(script: &str) -> String {
    format!("{script}; trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
}

/// The app is another user than root of a pod with users of its own, and is started again with what it has written to a
/// volume of the host.
#[test]
fn private_users_with_a_volume_restarts_logs_and_entering() {
    if stage1() == "kvm" {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let source = folder.path().join("data");
    fs::create_dir(&source).unwrap();
    chown(&source, Some(1000), Some(2000)).unwrap();
    let (host, busybox) = (Host::new(), image(BUSYBOX));
    let count =
        "n=$(($(cat /v/n 2>/dev/null || echo 0) + 1)); echo $n >/v/n; echo start $n; [ $n = 3 ] || exit $n";
    let start = |volume: &str| {
        let mut command = host.run(&["--private-users", volume, &busybox, "--mount=volume=v,target=/v"]);
        command.args(["--user=app", "--group=staff", "--restart=on-failure", "--stdout=log"]);
        Process::start(command.args(["--exec=/bin/sh", "--", "-c", &idle(count)]))
    };
    let ready = || host.pods().len() == 1 && rkt(&host, &["logs", &host.uuid()]).text().ends_with("ready\n");
    let mut pod = start(&format!("--volume=v,kind=host,source={},idmap=true", source.display()));
    let mut is_shifted = true;
    wait_until("ready or refused", || !pod.runs() || ready());
    if !pod.runs() {
        // Not every file system can be shifted: tmpfs since Linux 6.3.
        let refused = pod.finish().exited(254);
        assert!(refused.stderr.contains("idmapped"), "{}", refused.stderr);
        host.collect_garbage().success();
        is_shifted = false;
        pod = start("--volume=v,kind=empty,uid=1000,gid=2000");
        wait_until("ready", ready);
    }
    let uuid = host.uuid();
    assert_eq!(rkt(&host, &["logs", &uuid]).success().text(), "start 1\nstart 2\nstart 3\nready\n");
    let script = "id -u; id -g; cat /v/n; stat -c '%u %g' /v/n; tr -s ' ' </proc/self/uid_map; : >/v/entered";
    let entered = rkt(&host, &["enter", &uuid, "sh", "-c", script]).success().text();
    let prepared = fs::read_to_string(host.pods()[0].join("private-users-prepared")).unwrap();
    let (shift, count) = prepared.split_once(':').unwrap();
    assert_eq!(entered, format!("1000\n2000\n3\n1000 2000\n 0 {shift} {count}\n"));
    if is_shifted {
        for name in ["n", "entered"] {
            let metadata = fs::metadata(source.join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (1000, 2000), "{name}");
        }
    }
    let log = fs::metadata(host.pods()[0].join("logs/busybox/1.log")).unwrap();
    assert_eq!((log.uid(), log.mode() & 0o007), (0, 0), "nothing of the pod's");
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
}

/// Limits and devices are the cgroup's matter, which the pod's root is not above.
#[test]
fn private_users_with_limits_and_devices() {
    if stage1() == "kvm" {
        return;
    }
    let (host, busybox) = (Host::new(), image(BUSYBOX));
    let script = "exec 2>&1; dd if=/dev/zero of=/dev/null bs=100M count=1; echo $?; \
        (i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i + 1)); done); echo $?; mknod /tmp/kmsg c 1 11 || echo no node; \
        for f in /dev/kmsg /dev/kvm /dev/mem; do [ -e $f ] && echo $f; done; echo x >/dev/null && echo null; exit 9";
    let app = ["--memory=64Mi", "--pids=30", "--exec=/bin/sh", "--", "-c", script];
    let mut command = host.run(&["--private-users", &busybox]);
    let finished = Process::start(command.args(app)).finish().exited(9);
    let text = finished.text();
    assert!(text.contains("137\n") && text.contains("can't fork") && text.contains("no node\n"), "{text}");
    assert!(text.ends_with("no node\nnull\n"), "{text}");
    assert!(finished.stderr.contains("ran out of memory"), "{}", finished.stderr);
}

/// What enters an app is confined as it is: so each is asked from inside.
#[test]
fn two_apps_with_different_confinement() {
    let (host, busybox) = (Host::new(), image(BUSYBOX));
    let show = "id -u; grep -E '^(CapBnd|CapEff|Seccomp):' /proc/self/status | tr '\\n\\t' '  '; ulimit -n; \
        mkdir /dev/shm/$$ 2>&1 | grep -o 'cross-device'; dd if=/dev/zero of=/dev/null bs=80M count=1 2>/dev/null; echo $?";
    let mut command = host.run(&[&busybox, "--name=one", "--caps-retain=CAP_CHOWN,CAP_NET_ADMIN"]);
    command.args(["--seccomp=mode=remove,errno=EXDEV,mkdir,mkdirat", "--rlimit=NOFILE=100", "--memory=64Mi"]);
    command.args(["--exec=/bin/sh", "--", "-c", &idle(show), "---"]);
    command.args([&busybox, "--name=two", "--user=app", "--group=staff", "--caps-remove=CAP_CHOWN"]);
    command.args(["--rlimit=NOFILE=200:300", "--memory=128Mi", "--exec=/bin/sh", "--", "-c", &idle(show)]);
    let mut pod = Process::start(&mut command);
    let says = |app: &str, wanted: &str| {
        let app = format!("--app={app}");
        let entered = rkt(&host, &["enter", &app, &host.uuid(), "sh", "-c", show]).success().text();
        assert_eq!(entered, wanted);
    };
    pod.wait_for_line("one: ready");
    rkt(&host, &["status", "--wait-ready", &host.uuid()]).success();
    let caps =
        |effective: &str, bounding: &str| format!("CapEff: {effective} CapBnd: {bounding} Seccomp: 2 ");
    let one = caps("0000000000001001", "0000000000001001");
    says("one", &format!("0\n{one}100\ncross-device\n137\n"));
    let two = caps("0000000000000000", "00000000a80425fa");
    says("two", &format!("1000\n{two}200\n0\n"));
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
}

#[test]
fn a_read_only_root_and_handlers() {
    let host = Host::empty();
    let say = |who: &str| {
        format!(
            "(: >/srv/{who}) 2>&1 | grep -o 'Read-only'; echo {who} >>/v/said; (: >/tmp/{who}) 2>/dev/null; tail -n 3 /v/said"
        )
    };
    let app = json!({
        "exec": ["/bin/sh", "-c", say("app")], "user": "1000", "group": "2000",
        "mountPoints": [{ "name": "v", "path": "/v" }],
        "eventHandlers": [
            { "name": "pre-start", "exec": ["/bin/sh", "-c", say("pre")] },
            { "name": "post-stop", "exec": ["/bin/sh", "-c", say("post")] },
        ],
    });
    let aci = Aci::new(app, &[]);
    let mut command = host.run(&["--volume=v,kind=empty,mode=0777", &aci.path(), "--readonly-rootfs"]);
    let finished = Process::start(&mut command).finish();
    // The file is root's, who came first.
    let wanted = "Read-only\npre\nRead-only\npre\nRead-only\npre\npost\n";
    assert_eq!(finished.text(), wanted, "{}", finished.stderr);
}
