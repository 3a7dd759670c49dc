//! Apps' logs: `--stdout=log` and `rkt logs`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Finished, Host, Process, effort, image, sizes, stage1, wait_until};

fn logs(host: &Host, arguments: &[&str]) -> Finished {
    Process::start(host.rkt().arg("logs").arg(host.uuid()).args(arguments)).finish()
}

/// The files of the only pod's log of busybox, the oldest first.
fn files(host: &Host) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let mut files: Vec<PathBuf> = sizes(&host.pods()[0].join("logs/busybox")).into_keys().collect();
    files.sort_by_key(number);
    files
}

/// `command` in a mount namespace of its own, after a shell script that gets `argument`.
fn in_namespace(script: &str, argument: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-e", "-c", &format!("{script}; shift; exec \"$@\""), "sh", argument]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

#[test]
fn what_an_app_writes_comes_back_byte_for_byte() {
    let host = Host::new();
    let forged = "2026-11-25T17:00:00.000000000Z stderr F forged";
    let script = format!("printf 'one\\n{forged}\\n\\0\\377\\r\\n'; echo err >&2; printf 'no end'");
    let options = ["--stdout=log", "--stderr=inherit,log"];
    let ran = Process::start(&mut host.shell(&options, &script)).finish().success();
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("", "err\n"));
    let shown = logs(&host, &[]).success();
    let wanted = [b"one\n", forged.as_bytes(), b"\n\0\xff\r\nno end"].concat();
    assert!(shown.stdout == wanted, "{:?}", shown.text());
    assert_eq!(shown.stderr, "err\n");
    let raw = fs::read(&files(&host)[0]).unwrap();
    let raw = String::from_utf8_lossy(&raw);
    let first = raw.lines().find(|line| line.ends_with(" stdout F one")).unwrap();
    let (time, _) = first.split_once(' ').unwrap();
    assert!(time.len() == "2026-11-25T17:00:00.000000000Z".len() && time.ends_with('Z'), "{first}");
    assert!(raw.contains(" stderr F err\n") && raw.ends_with(" stdout P no end\n"), "{raw}");

    assert_eq!(logs(&host, &["--tail=1", "--app=busybox"]).success().text(), "no end");
    assert_eq!(logs(&host, &["--since=1h", "--follow"]).success().stdout, wanted, "it has ended");
    assert_eq!(logs(&host, &["--since=9999-01-01T00:00:00Z"]).success().text(), "");
    assert_eq!(logs(&host, &[&format!("--since={time}"), "--tail=9"]).success().stdout, wanted);
    assert!(logs(&host, &["--app=other"]).exited(254).stderr.contains("no app \"other\""));
}

#[test]
fn following_several_apps_until_the_pod_ends() {
    let host = Host::new();
    let script = "trap 'echo last; exit 0' TERM; echo first; while :; do sleep 0.1; done";
    let app = |name: &str| {
        let name = format!("--name={name}");
        [
            image(BUSYBOX),
            name,
            "--stdout=log".into(),
            "--exec=/bin/sh".into(),
            "--".into(),
            "-c".into(),
            script.into(),
        ]
    };
    let mut command = host.run(&[]);
    command.args(app("one")).arg("---").args(app("two"));
    let quiet = [&image(BUSYBOX), "--name=quiet", "--stdout=null", "--exec=/bin/echo", "--", "unheard"];
    command.arg("---").args(quiet);
    let pod = Process::start(&mut command);
    wait_until("logged", || host.pods().first().is_some_and(|pod| pod.join("logs/two/1.log").exists()));
    let mut all = Process::start(host.rkt().args(["logs", "-f", &host.uuid()]));
    all.wait_for_line("two: first");
    let mut one = Process::start(host.rkt().args(["logs", "-f", "--app=one", &host.uuid()]));
    one.wait_for_line("first");
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.finish().success().text(), "");
    let rest = all.finish().success().text();
    assert!(rest.contains("one: last\n") && rest.contains("two: last\n"), "{rest}");
    assert_eq!(one.finish().success().text(), "last\n");
    let refused = logs(&host, &["--app=quiet"]).exited(254);
    assert!(refused.stderr.contains("--stdout=log"), "{}", refused.stderr);
}

#[test]
fn a_log_is_bounded_whatever_the_app_writes() {
    let host = Host::new();
    let (bytes, lines) = effort((200_000_000, 1_000_000), (5_000_000, 50_000));
    let script = format!(
        "{{ head -c {bytes} /dev/zero; echo; seq {lines}; }} >&2; trap 'exit 0' TERM; echo done; \
        sleep 1000 & wait"
    );
    let options = ["--stderr=log", "--log-max-size=256Ki", "--log-max-files=3"];
    let mut pod = Process::start(&mut host.shell(&options, &script));
    pod.wait_for_line("done");
    if stage1() == "nspawn" {
        let status = fs::read_to_string(format!("/proc/{}/status", pod.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
        assert!(peak.trim().parse::<u64>().unwrap() < 16 << 10, "{status}");
    }
    pod.signal(Signal::SIGTERM);
    assert_eq!(pod.finish().success().stderr, "");
    let files = files(&host);
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 256 << 10));
    let text = logs(&host, &[]).success().stderr;
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 5000 && numbers.ends_with(&[lines]));
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none is missing");
}

#[test]
fn a_full_disk_does_not_stop_the_app() {
    if stage1() == "kvm" {
        // The pod's parent has the same code, and a disk with room for a VM's writable layer takes long to fill.
        return;
    }
    let host = Host::new();
    // A record has some forty bytes before its content, here with none.
    let script = "yes '' | head -n 1000000; echo alive >&2";
    let options = ["--stdout=log", "--log-max-size=1Gi"];
    let run = host.shell(&options, script);
    let disk = "mount -t tmpfs -o size=24m none \"$1\"";
    let finished =
        Process::start(&mut in_namespace(disk, host.path().to_str().unwrap(), &run)).finish().success();
    assert!(finished.stderr.contains("alive\n"), "{}", finished.stderr);
    assert_eq!(
        finished.stderr.matches("the log of app \"busybox\" is incomplete").count(),
        1,
        "{}",
        finished.stderr
    );
}

#[test]
fn journald_gets_the_log_if_it_is_there() {
    let host = Host::new();
    let socket = host.path().join("journal");
    let journald = UnixDatagram::bind(&socket).unwrap();
    let reader = std::thread::spawn(move || {
        let mut entries = Vec::new();
        let mut bytes = [0; 32 << 10];
        while !entries.last().is_some_and(|entry: &String| entry.contains("RKT_STREAM=stderr")) {
            let count = journald.recv(&mut bytes).unwrap();
            entries.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
        entries
    });
    let run =
        host.shell(&["--stdout=log", "--stderr=log"], "echo one; echo MESSAGE=two; sleep 0.3; echo err >&2");
    let journal = "mount -t tmpfs none /run; mkdir -p /run/systemd/journal; : >/run/systemd/journal/socket; \
        mount --bind \"$1\" /run/systemd/journal/socket";
    Process::start(&mut in_namespace(journal, socket.to_str().unwrap(), &run)).finish().success();
    let entries = reader.join().unwrap();
    assert_eq!(entries.len(), 3, "{entries:?}");
    let uuid = host.uuid();
    assert!(entries.iter().all(|entry| entry.contains(&format!("RKT_POD_UUID={uuid}\n"))), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.contains("RKT_APP_NAME=busybox\n")), "{entries:?}");
    assert!(entries[1].ends_with("MESSAGE\n\x0b\0\0\0\0\0\0\0MESSAGE=two\n"), "{entries:?}");
    assert!(entries[2].contains("PRIORITY=3\n"), "{entries:?}");
    // And the files have it all the same.
    assert_eq!(logs(&host, &[]).success().text(), "one\nMESSAGE=two\n");
}

#[test]
fn what_cannot_be() {
    let host = Host::new();
    for (options, wanted) in [
        (&["--stdin=tty", "--stdout=log"][..], "a terminal is all three"),
        (&["--log-max-size=1Mi"], "no log"),
        (&["--stdout=log,null"], "--stdout"),
        (&["--stdout=log", "--log-max-size=1Ki"], "--log-max-size"),
    ] {
        let refused = Process::start(&mut host.shell(options, "true")).finish().exited(254);
        assert!(refused.stderr.contains(wanted), "{options:?}: {}", refused.stderr);
    }
    let both = [image(BUSYBOX), "--stdin=inherit".into()];
    let mut command = host.run(&[]);
    command.args(&both).args(["--name=one", "---"]).args(&both);
    let refused = Process::start(&mut command).finish().exited(254);
    assert!(refused.stderr.contains("only one app"), "{}", refused.stderr);
    assert!(host.pods().is_empty(), "nothing was made");
}
