//! Commands in running apps.

use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::pod::{Pod, Running, needs_kvm, shell, text, wait_until};
use crate::terminal::Session;

const IDLE: &str = "trap 'exit 0' TERM; echo ready $$; while :; do sleep 0.05; done";

/// Starts a pod; the number of its app's process.
fn start(directory: &Pod) -> (Running, String) {
    let mut pod = directory.start();
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{line}")).to_owned();
    (pod, pid)
}

fn sh(directory: &Pod, script: &str) -> Output {
    directory.enter("app", &["sh", "-c", script]).output().unwrap()
}

fn prints(directory: &Pod, script: &str) -> String {
    let output = sh(directory, script);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{script}");
    text(&output.stdout)
}

#[test]
fn all_that_confines_the_app() {
    needs_kvm!();
    let isolators = json!([
        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]}},
        {"name": "os/linux/no-new-privileges", "value": true},
    ]);
    let section = json!({"exec": ["/bin/sh", "-c", IDLE], "isolators": isolators,
        "environment": [{"name": "A", "value": "b"}]});
    let directory = Pod::new().with("app", section);
    let (_pod, pid) = start(&directory);
    let status = |process: &str| {
        prints(
            &directory,
            &format!("grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/{process}/status"),
        )
    };
    assert_eq!(status("self"), status(&pid));
    assert!(status("self").contains("CapEff:\t0000000000000401"), "{}", status("self"));
    for file in ["cgroup", "mountinfo", "oom_score_adj"] {
        let both = prints(&directory, &format!("cat /proc/self/{file}; echo --; cat /proc/{pid}/{file}"));
        let (own, of_app) = both.split_once("--\n").unwrap();
        assert_eq!(own, of_app, "{file}");
    }
    let environment = prints(&directory, "env");
    assert!(environment.contains("A=b\n") && environment.contains("AC_APP_NAME=app\n"), "{environment}");
    for (script, code) in [("exit 42", 42), ("kill -KILL $$", 137)] {
        assert_eq!(sh(&directory, script).status.code(), Some(code), "{script}");
    }
    let missing = directory.enter("app", &["/no/such"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(254));
    assert!(text(&missing.stderr).contains("\"/no/such\": it is not in the image"), "{missing:?}");
}

#[test]
fn streams_are_carried_byte_for_byte() {
    needs_kvm!();
    let directory = shell(IDLE);
    let (mut pod, _) = start(&directory);
    let input: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut command = directory.enter("app", &["sh", "-c", "cat; echo err >&2"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), "err\n"));
    assert!(output.stdout == input, "{} bytes", output.stdout.len());
    assert_eq!(prints(&directory, "(trap '' HUP; sleep 1000) & echo left"), "left\n");
    // The pod's own streams are not disturbed, and its end ends what has been entered.
    let mut command = directory.enter("app", &["sh", "-c", "echo here; sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.exit_code(), 0);
    wait_until("the session has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(sh(&directory, "true").status.code(), Some(254));
}

#[test]
fn clients_that_go_end_their_commands() {
    needs_kvm!();
    let directory = shell(IDLE);
    let (_pod, _) = start(&directory);
    for script in ["echo here; exec sleep 2345", "trap '' HUP; echo here; sleep 2345; sleep 2345"] {
        let mut child = directory.enter("app", &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(prints(&directory, "ps").contains("sleep 2345"));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the command has ended", || !prints(&directory, "ps").contains("sleep 2345"));
    }
}

#[test]
fn a_terminal() {
    needs_kvm!();
    let section = json!({"exec": ["/bin/sh", "-c", IDLE], "environment": [{"name": "PS1", "value": "> "}]});
    let directory = Pod::new().with("app", section);
    let (_pod, _) = start(&directory);
    let mut session = Session::of(directory.enter("app", &["sh"]).env("TERM", "vt52"));
    session.expect("> ");
    session.type_in("test -t 0 && test -t 1 && test -t 2 && echo all of$((1+1)) $TERM\n");
    session.expect("all of2 vt52");
    session.type_in("stty size\n");
    session.expect("33 99");
    session.resize(44, 111);
    session.type_in("until [ \"$(stty size)\" = '44 111' ]; do sleep 0.05; done; echo resized$((5+5))\n");
    session.expect("resized10");
    session.type_in("sh -c 'echo asleep$((3+3)); exec sleep 1000'\n");
    session.expect("asleep6");
    session.type_in("\x03");
    session.expect("> ");
    session.type_in("exit 7\n");
    assert_eq!(session.pod.exit_code(), 7);
    assert!(!session.is_raw(), "the terminal is as it was");
}
