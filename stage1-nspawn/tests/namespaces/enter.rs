//! Commands in running apps.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::pod::{Pod, Running, shell, text, wait_until};
use crate::terminal::Session;

/// Waits for the end of its standard input, which is /dev/null: until it is stopped.
const IDLE: &str = "echo $$ >/pid; trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";

fn enter(directory: &Pod, command: &[&str]) -> Command {
    enter_app(directory, "app", command)
}

fn enter_app(directory: &Pod, app: &str, command: &[&str]) -> Command {
    let app = format!("--appname={app}");
    directory.entrypoint("enter", &[&["--pid=1", &app, "--"], command].concat())
}

fn sh(directory: &Pod, script: &str) -> Output {
    enter(directory, &["sh", "-c", script]).output().unwrap()
}

fn start(directory: &Pod) -> Running {
    let mut pod = directory.start();
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    pod
}

fn idle_with(mut section: Value) -> Pod {
    section["exec"] = json!(["/bin/sh", "-c", IDLE]);
    Pod::new().with("app", section)
}

/// What a command prints, without errors.
fn prints(directory: &Pod, script: &str) -> String {
    let output = sh(directory, script);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{script}");
    text(&output.stdout)
}

fn write_bytes(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
}

#[test]
fn exit_statuses_and_signals() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137), ("kill $$", 143)] {
        let output = sh(&directory, script);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(code), ""), "{script}");
    }
}

#[test]
fn all_that_confines_the_app() {
    let isolators = json!([
        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]}},
        {"name": "os/linux/no-new-privileges", "value": true},
        {"name": "os/linux/oom-score-adj", "value": 321},
    ]);
    let user = json!({"user": "web", "group": "www", "supplementaryGIDs": [77], "workingDirectory": "/etc"});
    let directories = [
        json!({"isolators": isolators}),
        json!({"isolators": isolators})
            .as_object()
            .map(|root| {
                let mut root = root.clone();
                root.extend(user.as_object().unwrap().clone());
                Value::Object(root)
            })
            .unwrap(),
    ];
    for section in directories {
        let as_root = section.get("user").is_none();
        let mut section = section;
        section["exec"] =
            json!(["/bin/sh", "-c", "trap 'exit 0' TERM; echo ready $$; while :; do sleep 0.05; done"]);
        let directory = Pod::new().with("app", section);
        let mut pod = directory.start();
        let mut line = String::new();
        BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix("ready ").unwrap();
        let wanted = "Uid:|Gid:|Groups:|Cap|NoNewPrivs:|Seccomp:|SigBlk:|SigIgn:";
        let status =
            |process: &str| prints(&directory, &format!("grep -E '^({wanted})' /proc/{process}/status"));
        assert_eq!(status("self"), status(pid));
        assert!(status("self").contains("NoNewPrivs:\t1"), "{}", status("self"));
        assert!(!as_root || status("self").contains("CapEff:\t0000000000000401"), "{}", status("self"));
        assert!(as_root || status("self").contains("Uid:\t33\t33\t33\t33"), "{}", status("self"));
        let same = |file: &str| {
            let both = prints(&directory, &format!("cat /proc/self/{file}; echo --; cat /proc/{pid}/{file}"));
            let (own, of_app) = both.split_once("--\n").unwrap();
            assert_eq!(own, of_app, "{file}");
            own.to_owned()
        };
        same("cgroup");
        assert_eq!(same("oom_score_adj"), "321\n");
        if as_root {
            same("mountinfo");
        }
        let namespaces = prints(&directory, "pwd; ls -l /proc/self/ns 2>/dev/null | grep -c .");
        assert!(namespaces.starts_with(if as_root { "/\n" } else { "/etc\n" }), "{namespaces}");
        let capabilities = ["mnt", "pid", "net", "uts", "ipc", "user"];
        let supervisor = std::fs::read_to_string(directory.path("pid")).unwrap();
        for namespace in capabilities.iter().filter(|name| **name != "mnt") {
            let outside = std::fs::read_link(format!("/proc/{}/ns/{namespace}", supervisor.trim())).unwrap();
            let inside = prints(&directory, &format!("stat -c %N /proc/self/ns/{namespace}"));
            assert!(inside.contains(outside.to_str().unwrap()), "{namespace}: {inside}");
        }
        pod.signal(Signal::SIGTERM);
        pod.exit_code();
    }
}

#[test]
fn a_cgroup_that_is_the_apps() {
    let limit = json!([{"name": "resource/memory", "value": {"limit": "32Mi"}}]);
    let directory = idle_with(json!({"isolators": limit}));
    let _pod = start(&directory);
    let mut child = enter(&directory, &["sh", "-c", "echo here; exec sleep 1000"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    for cgroup in directory.cgroups() {
        let processes = std::fs::read_to_string(cgroup.join("app/cgroup.procs")).unwrap();
        let programs: Vec<_> = processes
            .lines()
            .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap())
            .collect();
        assert!(programs.iter().any(|program| program.contains("1000")), "{programs:?}");
    }
    assert!(!directory.cgroups().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_environment_and_the_files_of_the_app() {
    let directory = idle_with(json!({"environment": [{"name": "A", "value": "b c"}]}));
    let _pod = start(&directory);
    let mut command = enter(&directory, &["env"]);
    let output = command.env("SECRET", "of the caller").env("TERM", "xterm").output().unwrap();
    let environment = text(&output.stdout);
    assert!(environment.contains("A=b c\n") && environment.contains("AC_APP_NAME=app\n"), "{environment}");
    assert!(!environment.contains("SECRET") && !environment.contains("TERM="), "{environment}");
    prints(&directory, "echo written >/file");
    assert_eq!(prints(&directory, "cat /file"), "written\n");
    assert!(directory.path("overlay/app/upper/file").exists());
    assert_eq!(prints(&directory, "ls /proc/self/fd | grep -c ."), "4\n", "no descriptor leaks in");
}

#[test]
fn streams_are_carried_byte_for_byte() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    let input: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut command = enter(&directory, &["sh", "-c", "cat; echo err >&2"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), "err\n"));
    assert!(output.stdout == input);
    // The end of the input is passed on while the output stays open.
    assert_eq!(prints(&directory, "cat; echo end"), "end\n");
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    let mut child = enter(&directory, &["yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(child.stdout.take());
    wait_until("yes has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGPIPE));
}

#[test]
fn what_the_command_leaves_does_not_hold_the_streams() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    let begin = Instant::now();
    assert_eq!(prints(&directory, "(trap '' HUP TERM; sleep 1000) & echo left"), "left\n");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(!prints(&directory, "ps").contains("sleep 1000"));
}

#[test]
fn a_terminal() {
    let directory = idle_with(json!({"environment": [{"name": "PS1", "value": "> "}]}));
    let _pod = start(&directory);
    let mut session = Session::of(enter(&directory, &["sh"]).env("TERM", "vt52"));
    session.expect("> ");
    assert!(session.is_raw());
    session.type_in("test -t 0 && test -t 1 && test -t 2 && echo all of$((1+1)) $TERM\n");
    session.expect("all of2 vt52");
    session.type_in("stty size; cat /proc/$$/cgroup | grep -c .\n");
    session.expect("33 99");
    session.resize(44, 111);
    session.type_in("until test \"$(stty size)\" = '44 111'; do sleep 0.05; done; echo re''sized\n");
    session.expect("resized");
    session.type_in("sh -c 'echo asleep$((3+3)); exec sleep 1000'\n");
    session.expect("asleep6");
    session.type_in("\x03");
    session.expect("> ");
    session.type_in("exit 7\n");
    assert_eq!(session.pod.exit_code(), 7);
    assert!(!session.is_raw(), "the terminal is as it was");
}

#[test]
fn without_a_terminal_for_its_output_a_command_has_none() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    assert_eq!(prints(&directory, "test -t 0 || test -t 1 || test -t 2 || printf 'a\\nb'"), "a\nb");
}

#[test]
fn a_client_that_goes_ends_its_command() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    for (script, marker) in [
        ("echo here; exec sleep 2345", "sleep 2345"),
        ("trap '' HUP; echo here; sleep 3456; sleep 3456", "sleep 3456"),
    ] {
        let mut child = enter(&directory, &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(prints(&directory, "ps").contains(marker));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the command has ended", || !prints(&directory, "ps").contains(marker));
    }
    let mut session = Session::of(&mut enter(&directory, &["sh", "-c", "echo on it; sleep 4567"]));
    session.expect("on it");
    kill(Pid::from_raw(session.pod.0.id().cast_signed()), Signal::SIGKILL).unwrap();
    wait_until("the command has ended", || !prints(&directory, "ps").contains("sleep 4567"));
}

#[test]
fn a_client_that_is_terminated_restores_its_terminal() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    let mut session = Session::of(&mut enter(&directory, &["sh", "-c", "echo on it; sleep 1000"]));
    session.expect("on it");
    assert!(session.is_raw());
    session.pod.signal(Signal::SIGTERM);
    assert_eq!(session.pod.exit_code(), 143);
    assert!(!session.is_raw());
}

#[test]
fn the_end_of_the_pod_is_the_end_of_its_sessions() {
    let directory = shell(IDLE);
    let mut pod = start(&directory);
    let mut command = enter(&directory, &["sh", "-c", "echo here; cat; sleep 1000"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    write_bytes(&mut child, b"x");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(), 0);
    wait_until("the session has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    let output = sh(&directory, "true");
    assert_eq!(output.status.code(), Some(254));
    assert!(text(&output.stderr).contains("cannot reach the pod"), "{}", text(&output.stderr));
}

#[test]
fn a_client_that_does_not_read_does_not_keep_the_pod() {
    let directory = shell(IDLE);
    let mut pod = start(&directory);
    let mut session = Session::of(&mut enter(&directory, &["sh", "-c", "echo on it; exec yes"]));
    session.expect("on it");
    session.pod.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(), 0);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    session.pod.signal(Signal::SIGCONT);
}

#[test]
fn what_cannot_be_run() {
    let ends = json!({"exec": ["/bin/true"]});
    let stays =
        json!({"exec": ["/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"]});
    let directory = Pod::new().with("ends", ends).with("stays", stays);
    let _pod = start(&directory);
    wait_until("one app has ended", || directory.status("ends") == "0");
    for (app, command, why) in [
        ("stays", "/no/such", "\"/no/such\": it is not in the image"),
        ("stays", "nothing", "cannot find \"nothing\" in the image"),
        ("stays", "/etc", "is a directory"),
        ("ends", "true", "app \"ends\" has ended"),
        ("other", "true", "no app \"other\""),
    ] {
        let output = enter_app(&directory, app, &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(254), "{app} {command}");
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
    let long = "x".repeat(100_000);
    let output = enter_app(&directory, "stays", &["echo", &long]).output().unwrap();
    assert!(
        output.status.code() == Some(254) && text(&output.stderr).contains("limit"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn many_at_a_time_and_no_more() {
    let directory = shell(IDLE);
    let _pod = start(&directory);
    let open: Vec<Child> = (0..16)
        .map(|_| {
            let mut command = enter(&directory, &["sh", "-c", "echo here; read line"]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
            child
        })
        .collect();
    let refused = sh(&directory, "true");
    assert_eq!(refused.status.code(), Some(254));
    assert!(text(&refused.stderr).contains("16 sessions"), "{}", text(&refused.stderr));
    for mut child in open {
        write_bytes(&mut child, b"go\n");
        assert!(child.wait().unwrap().success());
    }
    wait_until("there is room again", || sh(&directory, "true").status.success());
}
