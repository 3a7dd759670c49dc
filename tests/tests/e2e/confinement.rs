//! What an app is given, and what it cannot reach.

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1};

fn with(host: &Host, options: &[&str], script: &str) -> Finished {
    Process::start(&mut host.shell(options, script)).finish()
}

#[test]
fn user_group_directory_and_environment() {
    let host = Host::new();
    let options =
        ["--user=app", "--group=staff", "--working-dir=/srv/kept", "--environment=COLOUR=light blue"];
    let script = "id -u; id -g; pwd; echo $COLOUR; echo $GREETER; echo $AC_APP_NAME";
    let finished = with(&host, &options, script).success();
    assert_eq!(finished.text(), "1000\n2000\n/srv/kept\nlight blue\nbusybox\nbusybox\n");
    let finished = with(&host, &["--user=1234", "--group=5678"], "id -u; id -g").success();
    assert_eq!(finished.text(), "1234\n5678\n");
}

#[test]
fn an_unknown_user_is_an_error() {
    let finished = with(&Host::new(), &["--user=nobody-here"], "exit 0").exited(254);
    assert!(finished.stderr.contains("nobody-here"), "{}", finished.stderr);
}

#[test]
fn a_host_name_of_its_own() {
    let host = Host::new();
    let named = host.run(&["--hostname=web", &image(BUSYBOX), "--exec=/bin/hostname"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&named.stdout), "web\n", "{}", String::from_utf8_lossy(&named.stderr));
    assert!(host.sh("hostname").success().text().starts_with("rkt-"));
}

#[test]
fn only_the_pods_own_processes() {
    let output = Host::new().sh("ls -d /proc/[0-9]* | wc -l; echo $$").success().text();
    let counted: usize = output.lines().next().unwrap().parse().unwrap();
    let outside = std::fs::read_dir("/proc").unwrap().count();
    assert!(counted < outside, "{counted} of {outside}");
}

#[test]
fn no_network_but_loopback() {
    let output = Host::new().sh("ip -o link | cut -d: -f2; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up");
    let text = output.success().text();
    let mut lines = text.lines();
    assert_eq!(lines.next().map(str::trim), Some("lo"), "{text}");
    assert_eq!(lines.next_back(), Some("up"), "{text}");
    assert!(!text.contains("eth0"), "{text}");
}

#[test]
fn the_usual_file_systems() {
    let script = "cut -d' ' -f2 /proc/mounts; \
                  echo x >/tmp/x && echo y >/run/y && echo z >/dev/shm/z && head -c 8 /dev/urandom | wc -c";
    let output = Host::new().sh(script).success().text();
    for directory in ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"] {
        assert!(output.lines().any(|line| line == directory), "{directory}: {output}");
    }
    assert!(output.ends_with("8\n"), "{output}");
}

/// Root in a pod, as which most images run, is not the host's. What is tried would do no harm; the reasons tell that it was
/// tried, and what kept it from being done.
#[test]
fn root_cannot_do_everything() {
    let attempts = [
        ("mount -t tmpfs none /tmp", "permission denied"),
        ("mount -o remount,rw sysfs /sys", "permission denied"),
        ("mknod /dev/kvm c 10 232 && : </dev/kvm", "can't open /dev/kvm: Operation not permitted"),
        ("mknod /dev/loop b 7 0 && : </dev/loop", "can't open /dev/loop: Operation not permitted"),
        ("mknod /zero c 1 5 && : </zero", "can't open /zero: Permission denied"),
        ("echo 0 >/proc/sys/kernel/panic", "Read-only file system"),
        ("echo 3 >/proc/sys/vm/drop_caches", "Read-only file system"),
        // Not every kernel has this one.
        (
            "f=/proc/sysrq-trigger; if [ -e $f ]; then echo h >$f; else echo no Read-only file system; fi",
            "Read-only file system",
        ),
        ("date -s @$(date +%s)", "can't set date: Operation not permitted"),
        ("insmod /bin/busybox", "can't insert '/bin/busybox': Operation not permitted"),
        ("chroot /proc/1/root /bin/true", "/proc/1/root': Permission denied"),
        ("ls /proc/1/root/", "/proc/1/root/: Permission denied"),
    ];
    // One line for each.
    let script: String =
        attempts.iter().map(|(attempt, _)| format!("({attempt}) 2>&1 | tr '\\n' ' '; echo\n")).collect();
    let output = Host::new().sh(&script).success().text();
    assert_eq!(output.lines().count(), attempts.len(), "{output}");
    for ((attempt, reason), said) in attempts.iter().zip(output.lines()) {
        assert!(said.contains(reason), "{attempt}: {said}");
    }
}

/// What tells of the machine, its firmware and its kernel, or of others' keys.
#[test]
fn the_machines_own_files_are_hidden() {
    let files = "/proc/config.gz /proc/kallsyms /proc/kcore /proc/keys /proc/sched_debug /proc/timer_list";
    let directories =
        "/sys/devices/virtual/powercap /sys/firmware /sys/fs /sys/hypervisor /sys/module /sys/power";
    let script = format!(
        "for f in {files}; do [ ! -e $f ] || [ $(head -c 9 $f | wc -c) = 0 ] || echo $f; done; \
        for d in {directories}; do [ -z \"$(ls -A $d 2>/dev/null)\" ] || echo $d; (mkdir $d/x) 2>/dev/null && echo $d; done; \
        (: >>/proc/kallsyms) 2>/dev/null && echo written; echo over"
    );
    let host = Host::new();
    for user in ["--user=0", "--user=1000"] {
        assert_eq!(with(&host, &[user], &script).success().text(), "over\n", "{user}");
    }
    let image = image(BUSYBOX);
    let mut open =
        host.run(&["--insecure-options=image,paths", &image, "--exec=/bin/sh", "--", "-c", &script]);
    let seen = Process::start(&mut open).finish().success().text();
    for path in ["/proc/kallsyms", "/sys/fs", "/sys/module"] {
        assert!(seen.lines().any(|line| line == path), "every kernel has {path}: {seen}");
    }
}

/// A node of a disk may be made, as packages that are unpacked do; nobody gets at the disk. In a VM it is the pod's own
/// writable layer and the images.
#[test]
fn no_disk_can_be_opened() {
    let script = "exec 2>&1; \
        for disk in $(cat /sys/class/block/*/dev) 7:0; do \
            mknod /dev/disk b ${disk%:*} ${disk#*:} || exit 1; \
            for open in ': </dev/disk' ': >>/dev/disk'; do \
                (eval $open) 2>&1 | grep -q 'Operation not permitted' || echo \"not refused: $disk $open\"; \
            done; \
            rm /dev/disk; \
        done; \
        cat /sys/class/block/*/dev | wc -l";
    let output = Host::new().sh(script).success().text();
    let disks: usize = output.trim().parse().unwrap_or_else(|_| panic!("{output}"));
    assert!(disks > 0, "there is something to be kept from");
}

#[test]
fn the_usual_devices() {
    let script = "exec 2>&1; \
        ls /dev | tr '\\n' ' '; \
        for device in zero full random urandom; do head -c 2 /dev/$device | wc -c; done; \
        echo x >/dev/null && echo null; : <>/dev/ptmx && echo ptmx; \
        mknod /dev/mine c 1 3 && echo x >/dev/mine && echo mine; \
        (: <>/dev/tty) 2>&1 | grep -o 'No such device'";
    let output = Host::new().sh(script).text();
    let names = "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(output, format!("{names} 2\n2\n2\n2\nnull\nptmx\nmine\nNo such device\n"));
}

#[test]
fn every_device_if_the_user_wants_so() {
    let script = "mknod /dev/log c 1 11 && : >>/dev/log && echo opened";
    let host = Host::new();
    let (options, image) = ("--insecure-options=image,paths", image(BUSYBOX));
    let mut command = host.run(&[options, &image, "--exec=/bin/sh", "--", "-c", script]);
    assert_eq!(Process::start(&mut command).finish().success().text(), "opened\n");
}

#[test]
fn system_calls_are_filtered_for_every_user() {
    let host = Host::new();
    let script =
        "grep ^Seccomp: /proc/self/status; unshare -m true && echo unshared; mkdir /tmp/x && rmdir /tmp/x";
    for user in ["--user=0", "--user=1000"] {
        let finished = with(&host, &[user], script).success();
        assert_eq!(finished.text(), "Seccomp:\t2\n", "{user}");
        assert!(finished.stderr.contains("not permitted"), "{}", finished.stderr);
    }
    let open = ["--insecure-options=image,seccomp", "--caps-retain=CAP_SYS_ADMIN"];
    assert_eq!(with(&host, &open, script).success().text(), "Seccomp:\t0\nunshared\n");
}

#[test]
fn a_system_call_is_refused_as_was_asked_for() {
    let host = Host::new();
    let script = "mkdir /tmp/x; echo $?; ls -d /tmp";
    for user in ["--user=0", "--user=1000"] {
        let finished =
            with(&host, &[user, "--seccomp=mode=remove,errno=EXDEV,mkdir,mkdirat"], script).success();
        assert_eq!(finished.text(), "1\n/tmp\n", "{user}");
        assert!(finished.stderr.contains("cross-device"), "{}", finished.stderr);
        // 128 and SIGSYS.
        let finished = with(&host, &[user, "--seccomp=mode=remove,mkdir"], script).success();
        assert_eq!(finished.text(), "159\n/tmp\n", "{user}");
        let finished = with(&host, &[user, "--seccomp=mode=retain,@rkt/default-whitelist"], script).success();
        assert_eq!(finished.text(), "0\n/tmp\n", "{user}");
        let finished = with(&host, &[user, "--seccomp=mode=retain,read,write"], "exit 0");
        finished.exited(159);
    }
}

#[test]
fn capabilities_are_those_that_were_asked_for() {
    let host = Host::new();
    let script = "grep ^CapEff: /proc/self/status";
    for (options, set) in [
        (&[][..], "00000000a80425fb"),
        (&["--caps-retain=CAP_CHOWN,CAP_NET_ADMIN"][..], "0000000000001001"),
        (&["--caps-remove=CAP_CHOWN"][..], "00000000a80425fa"),
        (&["--user=1000"][..], "0000000000000000"),
    ] {
        assert_eq!(with(&host, options, script).success().text(), format!("CapEff:\t{set}\n"), "{options:?}");
    }
}

#[test]
fn limits_of_processes() {
    let host = Host::new();
    let script = "ulimit -n; ulimit -Hn; ulimit -c";
    let options = ["--rlimit=NOFILE=100:200", "--rlimit=CORE=0"];
    for user in ["--user=0", "--user=1000"] {
        let finished = with(&host, &[user, options[0], options[1]], script).success();
        assert_eq!(finished.text(), "100\n200\n0\n", "{user}");
    }
}

#[test]
fn confinement_without_sense_is_refused() {
    for (option, expected) in [
        ("--seccomp=mode=remove,mkdri", "mkdri"),
        ("--seccomp=mode=remove,execve", "execve"),
        ("--seccomp=mkdir", "mode="),
        ("--caps-retain=CAP_FLY", "CAP_FLY"),
        ("--rlimit=NOFILE=2:1", "above the hard limit"),
        ("--rlimit=FILES=2", "FILES"),
    ] {
        let host = Host::new();
        let finished = with(&host, &[option], "exit 0").exited(254);
        assert!(finished.stderr.contains(expected), "{option}: {}", finished.stderr);
        assert!(host.pods().is_empty(), "{option}");
    }
}

/// Likewise; a host with SELinux has policies that this test does not know.
#[test]
fn an_selinux_context_is_refused_where_there_is_none() {
    let host = Host::new();
    let is_vm = stage1() == "kvm";
    if is_vm || !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let why = if is_vm { "use --stage1=nspawn" } else { "no SELinux" };
        let option = "--selinux-context=system_u:system_r:container_t:s0:c1,c2";
        let refused = with(&host, &[option], "exit 0").exited(254);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    let refused = with(&host, &["--selinux-context=system_u:system_r"], "exit 0").exited(254);
    assert!(refused.stderr.contains("USER:ROLE:TYPE:LEVEL"), "{}", refused.stderr);
    assert!(host.pods().is_empty());
}
