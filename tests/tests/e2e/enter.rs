//! Commands in running apps: `rkt enter`.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Finished, Host, Process, image};
use crate::terminal::Session;

/// Tells its number, then waits to be ended.
const IDLE: &str = "trap 'exit 0' TERM; echo $$ >/tmp/pid; echo ready; while :; do sleep 0.1; done";

/// A host with one running pod, whose app idles.
struct World {
    pod: Process,
    host: Host,
}

impl World {
    fn new(options: &[&str]) -> Self {
        let host = Host::new();
        let mut pod = Process::start(&mut host.shell(options, IDLE));
        pod.wait_for_line("ready");
        Self { pod, host }
    }

    fn enter(&self, command: &[&str]) -> Command {
        let mut enter = self.host.rkt();
        enter.args(["enter", &self.host.uuid()]).args(command);
        enter
    }

    fn sh(&self, script: &str) -> Finished {
        Process::start(&mut self.enter(&["sh", "-c", script])).finish()
    }

    fn end(self) {
        self.pod.signal(Signal::SIGTERM);
        self.pod.finish().success();
    }
}

#[test]
fn the_exit_status_is_the_commands() {
    let world = World::new(&[]);
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
        assert_eq!(world.sh(script).exited(code).stderr, "", "{script}");
    }
    let missing = Process::start(&mut world.enter(&["/no/such"])).finish().exited(254);
    assert!(missing.stderr.contains("/no/such"), "{}", missing.stderr);
    world.end();
}

/// Root's command, if he says so: the confinement is the app's, the pod is not left.
#[test]
fn a_privileged_command_is_roots() {
    let options = [
        "--user=33",
        "--caps-retain=CAP_KILL",
        "--seccomp=mode=remove,errno=EPERM,mkdir",
        "--rlimit=NOFILE=64",
    ];
    let world = World::new(&options);
    let script = "id -u; mkdir /tmp/made && echo made; ulimit -n; grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; \
        head -c3 /proc/1/comm >/dev/null && cat /tmp/pid; cut -d: -f3 /proc/self/cgroup | sort -u";
    let confined = world.sh(script);
    assert!(
        confined.text().starts_with("33\n64\n") && confined.stderr.contains("mkdir"),
        "{}",
        confined.text()
    );
    let uuid = world.host.uuid();
    for flag in ["--privileged", "--privileged=true"] {
        let mut enter = world.host.rkt();
        enter.args(["enter", flag, &uuid, "sh", "-c", script]);
        let text = Process::start(&mut enter).finish().success().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1]), ("0", "made"), "{text}");
        assert_ne!(lines[2], "64", "{text}");
        let effective = u64::from_str_radix(lines[3].split_whitespace().last().unwrap(), 16).unwrap();
        // CAP_SYS_ADMIN, and CAP_KILL that the app has.
        assert_eq!(effective & (1 << 21 | 1 << 5), 1 << 21 | 1 << 5, "{text}");
        assert!(text.contains("NoNewPrivs:\t0") && text.contains("Seccomp:\t0"), "{text}");
        // It sees its cgroup as the top, as the app does.
        assert_eq!(lines.last(), Some(&"/"), "{text}");
        let mut exec = world.host.rkt();
        exec.args(["app", "exec", flag, &uuid, "rmdir", "/tmp/made"]);
        Process::start(&mut exec).finish().success();
    }
    world.end();
}

/// What upstream's enter gave away (CVE-2019-10144, -10145, -10147).
#[test]
fn a_command_is_as_confined_as_its_app() {
    for options in [&[][..], &["--user=33", "--group=34"], &["--memory=64Mi"]] {
        let world = World::new(options);
        let wanted = "Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp";
        let status = |process: &str| {
            world.sh(&format!("grep -E '^({wanted}):' /proc/{process}/status")).success().text()
        };
        let of_app = status("$(cat /tmp/pid)");
        assert_eq!(status("self"), of_app, "{options:?}");
        assert!(of_app.contains("CapBnd:\t0000") && of_app.lines().count() >= 9, "{of_app}");
        let script = "cat /proc/self/cgroup; echo --; cat /proc/$(cat /tmp/pid)/cgroup";
        let cgroups = world.sh(script).success().text();
        let (own, of_app) = cgroups.split_once("--\n").unwrap();
        assert_eq!(own, of_app, "{options:?}");
        world.end();
    }
    let world = World::new(&["--user=33", "--group=34"]);
    assert_eq!(world.sh("id -u; id -g").success().text(), "33\n34\n");
    world.end();
}

#[test]
fn a_command_shares_the_apps_world() {
    let world = World::new(&["--environment=GREETING=hello"]);
    assert_eq!(world.sh("echo $GREETING").success().text(), "hello\n");
    world.sh("echo written >/tmp/file").success();
    assert_eq!(world.sh("cat /tmp/file; hostname | cut -c1-4").success().text(), "written\nrkt-\n");
    let marker = format!("sleep {}", 200_000 + std::process::id());
    assert!(world.sh(&format!("{marker} & ps")).success().text().contains(&marker));
    world.end();
}

#[test]
fn streams_are_carried() {
    let world = World::new(&[]);
    let input: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut command = world.enter(&["sh", "-c", "cat; echo err >&2"]);
    let finished = Process::start_with_input(&mut command, input.clone()).finish().success();
    assert!(finished.stdout == input, "{} bytes", finished.stdout.len());
    assert_eq!(finished.stderr, "err\n");
    world.end();
}

#[test]
fn a_terminal_and_the_apps_shell() {
    let world = World::new(&[]);
    let mut session = Session::start(world.enter(&[]), 24, 80);
    session.expect("# ");
    session.type_in("echo $((6 * 7)); stty size\n");
    session.expect("\n42\r\n24 80\r\n");
    session.resize(43, 132);
    session.type_in("until [ \"$(stty size)\" = '43 132' ]; do sleep 0.1; done; echo re''sized\n");
    session.expect("resized\r\n");
    session.type_in("sh -c \"echo wai''ting; exec sleep 1000\"\n");
    session.expect("waiting\r\n");
    session.type_in("\x03");
    session.expect("# ");
    session.type_in("exit 9\n");
    assert_eq!(session.finish(), 9);
    world.end();
}

#[test]
fn a_client_that_goes_ends_its_command() {
    let world = World::new(&[]);
    let mut client = Process::start(&mut world.enter(&["sh", "-c", "echo here; exec sleep 54321"]));
    client.wait_for_line("here");
    client.signal(Signal::SIGKILL);
    client.finish();
    world.sh("while ps | grep -q '[s]leep 54321'; do sleep 0.1; done").success();
    world.end();
}

#[test]
fn the_end_of_the_pod() {
    let world = World::new(&[]);
    let mut client = Process::start(&mut world.enter(&["sh", "-c", "echo here; sleep 1000"]));
    client.wait_for_line("here");
    let World { pod, host } = world;
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
    client.finish().exited(137);
    let refused = Process::start(host.rkt().args(["enter", &host.uuid(), "true"])).finish().exited(254);
    assert!(refused.stderr.contains("is exited, not running"), "{}", refused.stderr);
}

#[test]
fn a_client_that_does_not_read_does_not_keep_the_pod() {
    let world = World::new(&[]);
    // More than the pipe that nobody reads holds, and less than there is room for on the way there.
    let script = "head -c 100000 /dev/zero; : >/tmp/written; exec sleep 1000";
    let mut client = Process::start(&mut world.enter(&["sh", "-c", script]));
    world.sh("until [ -e /tmp/written ]; do sleep 0.1; done").success();
    let World { pod, host } = world;
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
    assert!(client.runs(), "it has output to deliver");
    drop(client);
    host.collect_garbage().success();
}

#[test]
fn which_app() {
    let host = Host::new();
    let app = |name: &str| {
        let name = format!("--name={name}");
        [image(crate::harness::BUSYBOX), name, "--exec=/bin/sh".into(), "--".into(), "-c".into(), IDLE.into()]
    };
    let mut command = host.run(&[]);
    command.args(app("one")).arg("---").args(app("two"));
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("two: ready");
    let enter = |arguments: &[&str]| Process::start(host.rkt().arg("enter").args(arguments)).finish();
    let uuid = host.uuid();
    let refused = enter(&[&uuid, "true"]).exited(254);
    assert!(refused.stderr.contains("--app: one, two"), "{}", refused.stderr);
    let name = enter(&["--app=two", &uuid, "sh", "-c", "echo $AC_APP_NAME"]).success();
    assert_eq!(name.text(), "two\n");
    assert!(enter(&["--app=three", &uuid, "true"]).exited(254).stderr.contains("no app \"three\""));
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
}
