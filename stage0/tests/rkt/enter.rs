//! `rkt enter`, from the command line to the stage1's entrypoint.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::host::{Host, finished, is_root};
use crate::pods::{lock, run};

#[test]
fn the_entrypoint_is_called_by_its_interface() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let pod = host.data().join("pods/run").join(&uuid);
    host.rkt(&["enter", &uuid, "ls"]).refused(&["enter: ", &uuid, "is exited, not running"]);
    let _lock = lock(&pod);
    fs::write(pod.join("pid"), "4711\n").unwrap();
    for (arguments, called) in [
        (&[&uuid[..8]][..], "--pid=4711 --appname=test -- /bin/sh"),
        (&["--app=test", &uuid, "ls", "--app=x", "--debug", "--", "-l"], "-- ls --app=x --debug -- -l"),
        (&[&uuid, "--", "ls", "-l"], "--appname=test -- ls -l"),
    ] {
        let finished = host.rkt(&[&["enter"], arguments].concat());
        assert_eq!(finished.code, 7, "the exit status is passed on: {}", finished.stderr);
        let line = finished.stdout.lines().next().unwrap();
        assert!(line.starts_with("arguments: --pid=4711 ") && line.ends_with(called), "{line}");
        assert!(finished.stdout.contains(&format!("directory: {}\n", pod.display())));
    }
    host.rkt(&["enter", "--app=other", &uuid]).refused(&["no app \"other\"", "test"]);
    host.rkt(&["enter", "--app=A", &uuid]).refused(&["enter: ", "--app"]);
    host.rkt(&["enter"]).refused(&["UUID"]);
    host.rkt(&["enter", "zzz"]).refused(&["no matches found"]);
}

/// Of a pod that has only just started nobody knows yet whom to enter; one that has ended meanwhile will not tell.
#[test]
fn a_pod_that_has_just_begun_is_waited_for() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let pod = host.data().join("pods/run").join(&uuid);
    let enter = || {
        let mut command = host.command(&["enter", &uuid, "ls"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let locked = lock(&pod);
    let entering = enter();
    std::thread::sleep(Duration::from_millis(300));
    fs::write(pod.join("pid"), "4711\n").unwrap();
    let entered = finished(entering.wait_with_output().unwrap());
    assert!(entered.code == 7 && entered.stdout.contains("--pid=4711"), "{}", entered.stderr);
    fs::remove_file(pod.join("pid")).unwrap();
    let entering = enter();
    std::thread::sleep(Duration::from_millis(300));
    locked.unlock().unwrap();
    finished(entering.wait_with_output().unwrap()).refused(&["is exited, not running"]);
}
