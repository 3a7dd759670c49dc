//! `--stage1=fly`, whatever the isolation under test is: what an app has there, what it is refused, and what is left of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Aci, BUSYBOX, Entry, Finished, Host, Process, image, wait_until};
use crate::terminal::Session;
use crate::volumes::{Mounted, directory};

/// `rkt run` of busybox with a script, with these flags of the pod, and of the app.
fn fly(host: &Host, pod: &[&str], app: &[&str], script: &str) -> Command {
    let mut command = host.rkt();
    command.args(["run", "--stage1=fly"]).args(pod).arg(image(BUSYBOX)).args(app);
    command.args(["--exec=/bin/sh", "--", "-c", script]);
    command
}

fn run(host: &Host, pod: &[&str], app: &[&str], script: &str) -> Finished {
    Process::start(&mut fly(host, pod, app, script)).finish()
}

/// The same with an image of this app section.
fn run_aci(host: &Host, app: Value, entries: &[Entry<'_>], flags: &[&str]) -> Finished {
    let aci = Aci::new(app, entries);
    Process::start(host.rkt().args(["run", "--stage1=fly", &aci.path()]).args(flags)).finish()
}

/// A pod that waits for its end.
fn start(host: &Host, app: &[&str], script: &str) -> Process {
    let script = format!("{script}; echo ready; while :; do sleep 0.1; done");
    let mut pod = Process::start(&mut fly(host, &[], app, &script));
    pod.wait_for_line("ready");
    pod
}

fn rkt(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().args(arguments)).finish()
}

fn state(host: &Host) -> String {
    let status = rkt(host, &["status", &host.uuid()]).success().text();
    status.lines().next().unwrap().trim_start_matches("state=").to_owned()
}

#[test]
fn the_app_is_the_process_that_was_started() {
    let host = Host::new();
    let pod = start(&host, &[], "echo $$ >/pid");
    let pid = pod.pid().to_string();
    let status = rkt(&host, &["status", "--wait-ready", &host.uuid()]).success().text();
    assert!(status.starts_with("state=running\n") && status.contains(&format!("\npid={pid}\n")), "{status}");
    let written = host.pods()[0].join("overlay/busybox/upper/pid");
    assert_eq!(fs::read_to_string(written).unwrap().trim(), pid);
    let listed = rkt(&host, &["list", "--no-legend"]).success().text();
    assert!(listed.contains("running"), "{listed}");
    pod.signal(Signal::SIGKILL);
    assert_eq!(pod.finish().code, -9);
    // Nobody was there to see how it ended, and nobody says so.
    let status = rkt(&host, &["status", &host.uuid()]).success().text();
    assert!(status.starts_with("state=exited\n") && status.ends_with("exited=true\n"), "{status}");
    host.collect_garbage().success();
    assert!(host.pods().is_empty());
}

#[test]
fn the_end_is_the_apps_own() {
    let host = Host::new();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", -15)] {
        assert_eq!(run(&host, &[], &[], script).exited(code).stderr, "", "{script}");
    }
    let missing =
        Process::start(host.rkt().args(["run", "--stage1=fly", &image(BUSYBOX), "--exec=/no/such"]));
    assert!(missing.finish().exited(254).stderr.contains("/no/such"));
}

#[test]
fn an_app_has_the_hosts_namespaces_but_for_mounts() {
    let host = Host::new();
    let script = "for n in net pid ipc uts user mnt; do readlink /proc/self/ns/$n; done; hostname";
    let finished = run(&host, &[], &[], script).success();
    let mut lines: Vec<String> = finished.text().lines().map(str::to_owned).collect();
    let hostname = lines.pop().unwrap();
    assert_eq!(hostname, nix::unistd::gethostname().unwrap().to_str().unwrap());
    let of_host = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let mounts = lines.pop().unwrap();
    assert!(mounts != of_host("mnt"), "{mounts}");
    assert_eq!(lines, ["net", "pid", "ipc", "uts", "user"].map(of_host));
}

/// The host's /dev, /proc and /sys, what is mounted there later among it; nothing the other way, and nothing else of the host.
#[test]
fn an_app_has_its_own_root_and_the_hosts_devices() {
    let host = Host::new();
    let mount_points = "cut -d' ' -f5,7- /proc/self/mountinfo";
    let finished = run(&host, &[], &[], &format!("ls -d /dev/pts /proc/1/root /sys/kernel; {mount_points}"));
    let text = finished.success().text();
    for line in text.lines() {
        let outside = !["/ ", "/dev", "/proc", "/sys"].iter().any(|place| line.starts_with(place));
        assert!(!outside && !line.contains(" shared:"), "{line}");
    }
    let mut pod = Process::start(&mut fly(
        &host,
        &[],
        &[],
        "mount -t tmpfs own /srv && mount -t tmpfs own /dev/shm && echo mounted >/dev/shm/file && echo ready; read word",
    ));
    pod.wait_for_line("ready");
    let of_host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!of_host.contains(" tmpfs own ") && !Path::new("/dev/shm/file").exists(), "{of_host}");
    pod.signal(Signal::SIGKILL);
    pod.finish();
    let readonly = run(&host, &[], &["--readonly-rootfs"], "touch /x || echo refused; touch /dev/null");
    assert_eq!(readonly.success().text(), "refused\n");
}

#[test]
fn users_groups_and_capabilities() {
    let owned = Entry { mode: 0o644, owner: (4321, 8765), ..Entry::program("owned", b"") };
    let entries = [owned];
    let host = Host::empty();
    let show = "id -u; id -g; grep -E '^(Groups|CapEff):' /proc/self/status | tr '\\t' ' '";
    for (user, group, said) in [
        ("app", "staff", "1000\n2000\nGroups: 7 9 \nCapEff: 0000000000000000\n"),
        ("12", "13", "12\n13\nGroups: 7 9 \nCapEff: 0000000000000000\n"),
        ("/owned", "/owned", "4321\n8765\nGroups: 7 9 \nCapEff: 0000000000000000\n"),
    ] {
        let app = json!({
            "exec": ["/bin/sh", "-c", show], "user": user, "group": group, "supplementaryGIDs": [9, 7],
        });
        assert_eq!(run_aci(&host, app, &entries, &[]).success().text(), said, "{user}");
    }
    let nobody = json!({ "exec": ["/bin/true"], "user": "nope", "group": "0" });
    assert!(run_aci(&host, nobody, &[], &[]).exited(254).stderr.contains("nope"));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find(|line| line.starts_with("CapEff:")).unwrap();
    let host = Host::new();
    // What the caller has, of which we know the names.
    assert_eq!(run(&host, &[], &[], "grep ^CapEff: /proc/self/status").success().text().trim(), own);
}

#[test]
fn what_an_app_asks_for_confines_it() {
    let host = Host::new();
    let app = [
        "--caps-retain=CAP_KILL",
        "--seccomp=mode=remove,errno=EXDEV,mkdir",
        "--rlimit=NOFILE=64:64",
        "--oom-score-adj=77",
    ];
    let script = "grep -E '^(CapBnd|Seccomp|NoNewPrivs):' /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj; \
        mkdir /x 2>&1 | grep -o ross";
    let text = run(&host, &[], &app, script).text();
    assert_eq!(text, "CapBnd:\t0000000000000020\nNoNewPrivs:\t0\nSeccomp:\t2\n64\n77\nross\n");
    let free = run(&host, &[], &[], "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status").success();
    assert_eq!(free.text(), "NoNewPrivs:\t0\nSeccomp:\t0\n");
}

#[test]
fn environment_directory_and_streams() {
    let host = Host::new();
    let mut command = fly(
        &host,
        &["--set-env=OF_POD=1"],
        &["--environment=OF_APP=2", "--working-dir=/tmp"],
        "env | sort; pwd; cat; echo said >&2; ls -l /proc/$$/fd 2>/dev/null | grep -c pods",
    );
    command.env("OF_CALLER", "0");
    let finished = Process::start_with_input(&mut command, b"input\n".to_vec()).finish().success();
    let text = finished.text();
    for line in ["AC_APP_NAME=busybox", "OF_APP=2", "OF_POD=1", "container=rkt", "/tmp", "input"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("OF_CALLER") && !text.contains("RKT_LOCK_FD"), "{text}");
    // The lock is all that it has of rkt's.
    assert!(text.ends_with("\n1\n"), "{text}");
    assert_eq!(finished.stderr, "said\n");
    let mut command = fly(&host, &[], &["--stdin=null", "--stderr=null"], "cat; echo lost >&2; echo kept");
    let finished = Process::start_with_input(&mut command, b"input\n".to_vec()).finish().success();
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("kept\n", ""));
}

#[test]
fn a_terminal_is_the_callers_own() {
    let host = Host::new();
    for pod in [&[][..], &["--interactive"]] {
        let script = "tty; stty size; trap 'echo inter''rupted; exit 5' INT; echo re''ady; while :; do sleep 0.1; done";
        let mut session = Session::start(fly(&host, pod, &[], script), 24, 80);
        session.expect("/dev/pts/");
        session.expect("24 80\r\n");
        session.expect("ready\r\n");
        session.type_in("\x03");
        session.expect("interrupted\r\n");
        assert_eq!(session.finish(), 5, "{pod:?}");
    }
    let pod = start(&host, &[], "true");
    let mut enter = host.rkt();
    let uuid = rkt(&host, &["list", "--no-legend", "--full"]).success().text();
    let uuid = uuid.lines().find(|line| line.contains("running")).unwrap().split_whitespace().next().unwrap();
    enter.args(["enter", uuid]).env("TERM", "dumb");
    let mut session = Session::start(enter, 24, 80);
    session.expect("# ");
    session.type_in("echo $TERM $(stty size); exit 9\n");
    session.expect("dumb 24 80\r\n");
    assert_eq!(session.finish(), 9);
    pod.signal(Signal::SIGKILL);
    pod.finish();
}

#[test]
fn volumes() {
    let (host, (folder, source)) = (Host::new(), directory());
    fs::create_dir(folder.path().join("inner")).unwrap();
    fs::write(folder.path().join("word"), "said\n").unwrap();
    let inner = Mounted::at(folder.path().join("inner"));
    let target = "--mount=volume=v,target=/srv/v";
    let volume = |options: &str| format!("--volume=v,kind=host,source={source}{options}");
    let script = "cat /srv/v/word && echo heard >/srv/v/answer && echo deep >/srv/v/inner/file";
    assert_eq!(run(&host, &[&volume(""), target], &[], script).success().text(), "said\n");
    assert_eq!(fs::read_to_string(folder.path().join("answer")).unwrap(), "heard\n");
    let script = "for f in /srv/v/new /srv/v/inner/new; do touch $f; done; cat /srv/v/inner/file";
    let finished = run(&host, &[&volume(",readOnly=true"), target], &[], script).success();
    assert_eq!((finished.text().as_str(), finished.stderr.matches("Read-only").count()), ("deep\n", 2));
    let flat = run(&host, &[&volume(",recursive=false"), target], &[], "ls /srv/v/inner | wc -l");
    assert_eq!(flat.success().text(), "0\n");
    let file = format!("--volume=f,kind=host,source={source}/word,readOnly=true");
    let finished = run(&host, &[&file, "--mount=volume=f,target=/etc/word"], &[], "cat /etc/word");
    assert_eq!(finished.success().text(), "said\n");
    let empty = ["--volume=e,kind=empty,mode=1750,uid=7,gid=8", "--mount=volume=e,target=/srv/e"];
    let finished = run(&host, &empty, &[], "stat -c '%a %u %g' /srv/e; touch /srv/e/x");
    assert_eq!(finished.success().text(), "1750 7 8\n");
    drop(inner);
}

#[test]
fn a_pre_start_handler_runs_as_root() {
    let host = Host::empty();
    let app = |handler: Value| {
        json!({
            "exec": ["/bin/sh", "-c", "cat /run/made; id -u"], "user": "1000", "group": "2000",
            "eventHandlers": [{ "name": "pre-start", "exec": handler }],
        })
    };
    let good = app(json!(["/bin/sh", "-c", "id -u; echo by handler >/run/made"]));
    assert_eq!(run_aci(&host, good, &[], &[]).success().text(), "0\nby handler\n1000\n");
    for (handler, word) in [(json!(["/bin/false"]), "status 1"), (json!(["/nothing"]), "not in the image")] {
        let finished = run_aci(&host, app(handler), &[], &[]).exited(254);
        assert!(
            finished.stderr.contains("pre-start") && finished.stderr.contains(word),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn what_needs_more_is_refused_before_anything_is_made() {
    let host = Host::new();
    for flag in ["--net=none", "--net=default", "--hostname=h", "--private-users", "--cgroup-parent=/a"] {
        let refused = run(&host, &[flag], &[], "true").exited(254);
        assert!(refused.stderr.contains(flag) && refused.stderr.contains("fly"), "{}", refused.stderr);
    }
    for (flag, named) in [
        ("--memory=64Mi", "resource/memory (--memory)"),
        ("--cpu=500m", "resource/cpu (--cpu)"),
        ("--cpu-shares=100", "(--cpu-shares)"),
        ("--pids=100", "(--pids)"),
        ("--restart=always", "--restart=always"),
        ("--kill-timeout=5s", "--kill-timeout"),
        ("--stdin=stream", "--stdin=stream"),
        ("--stdout=log", "--stdout=log"),
        ("--stderr=inherit,log", "--stderr=inherit,log"),
        ("--stdin=tty", "--stdin=tty"),
        ("--annotation=appc.io/executor/supports-systemd-notify=true", "supports-systemd-notify=false"),
    ] {
        let refused = run(&host, &[], &[flag], "true").exited(254);
        assert!(refused.stderr.contains(named) && refused.stderr.contains("fly"), "{}", refused.stderr);
    }
    let busybox = image(BUSYBOX);
    let two = [&busybox, "--exec=/bin/true", "---", &busybox, "--name=b", "--exec=/bin/true"];
    let refused = Process::start(host.rkt().args(["run", "--stage1=fly"]).args(two)).finish().exited(254);
    assert!(refused.stderr.contains("pods of one app"), "{}", refused.stderr);
    let handler = json!({
        "exec": ["/bin/true"], "user": "0", "group": "0",
        "eventHandlers": [{ "name": "post-stop", "exec": ["/bin/true"] }],
    });
    assert!(run_aci(&host, handler, &[], &[]).exited(254).stderr.contains("post-stop"));
    let ports = json!({
        "exec": ["/bin/true"], "user": "0", "group": "0", "ports": [{ "name": "web", "port": 80, "protocol": "tcp" }],
    });
    let refused = run_aci(&host, ports, &[], &["--port=web:8080"]).exited(254);
    assert!(refused.stderr.contains("--port"), "{}", refused.stderr);
    assert!(host.pods().is_empty());
}

#[test]
fn a_command_in_the_app() {
    let host = Host::new();
    let app = ["--user=33", "--group=34", "--caps-retain=CAP_KILL", "--environment=GREETING=hello"];
    let pod = start(&host, &app, "echo made >/tmp/file");
    let enter = |script: &str| {
        let mut command = host.rkt();
        command.args(["enter", &host.uuid(), "sh", "-c", script]);
        Process::start_with_input(&mut command, b"input\n".to_vec()).finish()
    };
    let text = enter("cat /tmp/file; cat; echo $GREETING; id -u; id -g").success().text();
    assert_eq!(text, "made\ninput\nhello\n33\n34\n");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap().display().to_string();
    let of_command = enter("readlink /proc/self/ns/mnt; grep CapBnd /proc/self/status").success().text();
    assert_eq!(of_command, format!("{}\nCapBnd:\t0000000000000020\n", namespace(&pod.pid().to_string())));
    enter("exit 9").exited(9);
    let missing = rkt(&host, &["enter", &host.uuid(), "/no/such"]).exited(254);
    assert!(missing.stderr.contains("/no/such"), "{}", missing.stderr);
    pod.signal(Signal::SIGKILL);
    pod.finish();
}

#[test]
fn stop_tells_the_app_itself() {
    let host = Host::new();
    for (flags, signal) in [(&[][..], "TERM"), (&["--kill-signal=SIGUSR1"], "USR1")] {
        let pod = start(&host, flags, &format!("trap 'echo orderly; exit 7' {signal}"));
        rkt(&host, &["stop", &host.uuid()]).success();
        assert_eq!(pod.finish().exited(7).text(), "orderly\n");
        host.collect_garbage().success();
    }
    let stubborn = start(&host, &[], "trap '' TERM");
    rkt(&host, &["stop", "--force", &host.uuid()]).success();
    assert_eq!(stubborn.finish().code, -9);
}

/// The host's PID namespace ends nothing with the app.
#[test]
fn what_the_app_leaves_behind_keeps_the_pod() {
    let host = Host::new();
    let run_and_leave = || {
        let script = "sleep 1000 >/dev/null 2>&1 </dev/null & exit 0";
        run(&host, &[], &[], script).success();
        assert_eq!(state(&host), "running");
    };
    run_and_leave();
    assert_eq!(rkt(&host, &["enter", &host.uuid(), "pwd"]).success().text(), "/srv\n");
    host.collect_garbage().success();
    assert_eq!(host.pods().len(), 1);
    rkt(&host, &["stop", &host.uuid()]).success();
    wait_until("ended", || state(&host) == "exited");
    host.collect_garbage().success();
    run_and_leave();
    rkt(&host, &["stop", "--force", &host.uuid()]).success();
    wait_until("ended", || state(&host) == "exited");
}

/// Without the lock's descriptor the pod seems to have ended; its files stay for as long as its processes need them.
#[test]
fn a_pod_whose_app_has_closed_the_lock_is_not_collected() {
    let host = Host::new();
    let close = "for fd in $(ls /proc/self/fd); do [ $fd -lt 3 ] || eval \"exec $fd>&-\"; done 2>/dev/null";
    let pod = start(&host, &[], close);
    assert_eq!(state(&host), "exited");
    let pid = pod.pid().to_string();
    let kept = host.collect_garbage();
    assert!(kept.code != 0 && kept.stderr.contains(&pid), "{}", kept.stderr);
    assert_eq!(host.pods().len(), 1);
    pod.signal(Signal::SIGKILL);
    pod.finish();
}

/// A user who makes an overlay of the pod's path, in namespaces of his own, is taken for nobody of the pod.
#[test]
fn an_impostor_is_no_process_of_the_pod() {
    let host = Host::new();
    run(&host, &[], &[], "true").success();
    let layer = format!("/mnt/{}/overlay/busybox/upper", host.uuid());
    let script = format!(
        "mount -t tmpfs none /mnt && mkdir -p /mnt/lower /mnt/work /mnt/root {layer} && \
        mount -t overlay none -o lowerdir=/mnt/lower,upperdir={layer},workdir=/mnt/work /mnt/root && \
        echo ready && exec sleep 1000"
    );
    let mut command = Command::new("unshare");
    let mut impostor =
        Process::start(command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]));
    impostor.wait_for_line("ready");
    host.collect_garbage().success();
    assert!(host.pods().is_empty() && impostor.runs());
}

/// At whatever moment of its start.
#[test]
fn a_kill_leaves_nothing() {
    let host = Host::new();
    for pause_us in (0..24_000).step_by(2_000) {
        let pod = Process::start(&mut fly(&host, &[], &[], "sleep 0.05"));
        let pid: Pid = pod.pid();
        std::thread::sleep(std::time::Duration::from_micros(pause_us));
        kill(pid, Signal::SIGKILL).unwrap();
        pod.finish();
    }
    // The harness looks at what is left, once it is collected.
}

#[test]
fn what_needs_a_parent_of_the_pod_is_refused() {
    let host = Host::new();
    let pod = start(&host, &[], "true");
    let uuid = host.uuid();
    for (arguments, entrypoint) in [
        (vec!["attach", &uuid], "attach"),
        (vec!["status", "--stats", &uuid], "stats"),
        (vec!["app", "stop", &uuid, "--app=busybox"], "app"),
    ] {
        let refused = rkt(&host, &arguments).exited(254).stderr;
        assert!(refused.contains(&format!("no {entrypoint} entrypoint")), "{refused}");
    }
    pod.signal(Signal::SIGKILL);
    pod.finish();
}
