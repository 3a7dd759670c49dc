//! What goes wrong in one app is its own matter: its neighbours go on, and its end says what happened.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, wait_until};

/// Says goodbye when it is told to end.
const OTHER: &str = "trap 'kill $!; echo bye; exit 0' TERM; echo ready; sleep 1000 & wait";

/// A pod of these apps, each with its flags and its script, and of one that does no harm.
fn pod(host: &Host, apps: &[(&str, &[&str], &str)]) -> Process {
    let busybox = image(BUSYBOX);
    let mut command = host.run(&["--exit-policy=until-all"]);
    for (name, flags, script) in apps.iter().chain(&[("other", &[][..], OTHER)]) {
        command.args([&busybox, &format!("--name={name}"), "--exec=/bin/sh"]).args(*flags);
        command.args(["--", "-c", script, "---"]);
    }
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("other: ready");
    pod
}

/// Ends it, when the neighbour is seen to be well.
fn end(host: &Host, pod: Process) -> Finished {
    let script = "echo said >/dev/shm/word && cat /dev/shm/word";
    let mut enter = host.rkt();
    enter.args(["enter", "--app=other", &host.uuid(), "sh", "-c", script]);
    assert_eq!(Process::start(&mut enter).finish().success().text(), "said\n");
    pod.signal(Signal::SIGTERM);
    let finished = pod.finish();
    assert!(finished.text().contains("other: bye\n"), "{}{}", finished.text(), finished.stderr);
    finished
}

#[test]
fn neighbours_go_on() {
    let host = Host::new();
    let memory = "--memory=64Mi";
    let pod = pod(
        &host,
        &[
            ("eater", &[memory], "exec dd if=/dev/zero of=/dev/null bs=100M count=1"),
            ("killer", &[memory], "for s in KILL TERM INT SEGV STOP; do kill -$s 1; done; exit 7"),
            // A daemon, by two forks and a session of its own.
            ("parent", &[memory], "(setsid sh -c 'sleep 54321 & exec sleep 54321' &); exit 3"),
            ("chatty", &[memory, "--stdout=log", "--log-max-size=64Ki"], "yes | head -c 3000000; exit 4"),
            ("filler", &[memory], "dd if=/dev/zero of=/dev/shm/fill bs=1M count=70; exit 5"),
            (
                "bomb",
                &[memory, "--pids=32", "--kill-timeout=0"],
                "f() { f | f & }; f 2>/dev/null; exec sleep 1000",
            ),
            ("deaf", &[memory, "--kill-timeout=0"], "trap '' TERM; exec sleep 1000"),
            ("nobody", &[memory, "--user=nobody-here"], "exit 6"),
        ],
    );
    let status = |app: &str| host.pods()[0].join("stage1/rootfs/rkt/status").join(app);
    let ending = ["eater", "killer", "parent", "chatty", "filler", "nobody"];
    wait_until("ended", || ending.iter().all(|app| status(app).exists()));
    let finished = end(&host, pod);
    for (app, wanted) in
        [("eater", "137"), ("killer", "7"), ("parent", "3"), ("chatty", "4"), ("deaf", "137"), ("other", "0")]
    {
        assert_eq!(host.status(app), wanted, "{app}: {}", finished.stderr);
    }
    for words in
        ["app \"eater\" ran out of memory", "cannot start app \"nobody\"", "\"nobody-here\" is not in"]
    {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("app \"other\""), "{}", finished.stderr);
}

/// A small file system; gone with this value.
struct SmallDisk<'a>(&'a Host);

impl<'a> SmallDisk<'a> {
    fn below(host: &'a Host) -> Self {
        mount(Some("none"), host.path(), Some("tmpfs"), MsFlags::empty(), Some("size=96m")).unwrap();
        Self(host)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// The disk of the pod's directory: where its layers are, its logs and its state.
#[test]
fn a_disk_that_an_app_fills() {
    let host = Host::empty();
    let disk = SmallDisk::below(&host);
    // It comes to its own end, though the pod is told to end meanwhile.
    let script = "trap '' TERM; dd if=/dev/zero of=/fill bs=64k; echo full; yes | head -c 200000 >&2; exit 5";
    let mut pod = pod(&host, &[("filler", &["--stderr=inherit,log"], script)]);
    pod.wait_for_line("filler: full");
    let finished = end(&host, pod).exited(5);
    assert!(finished.stderr.contains("dd: error writing '/fill'"), "{}", finished.stderr);
    assert!(finished.stderr.contains("No space left on device"), "{}", finished.stderr);
    host.collect_garbage().success();
    assert!(host.pods().is_empty());
    drop(disk);
}
