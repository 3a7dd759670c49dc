//! Several apps in a pod.

use std::time::{Duration, Instant};

use crate::harness::{BUSYBOX, Host, Process, image};

/// The arguments of `rkt run` for busybox apps of these names and scripts.
fn apps(apps: &[(&str, &str)]) -> Vec<String> {
    let arguments = apps.iter().enumerate().flat_map(|(index, (name, script))| {
        let separator = (index > 0).then(|| "---".to_owned());
        let app = [&image(BUSYBOX), &format!("--name={name}"), "--exec=/bin/sh", "--", "-c", script];
        separator.into_iter().chain(app.map(str::to_owned)).collect::<Vec<_>>()
    });
    arguments.collect()
}

fn run(host: &Host, list: &[(&str, &str)]) -> crate::harness::Finished {
    let arguments = apps(list);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Process::start(&mut host.run(&arguments)).finish()
}

/// The lines of `output` that bear an app's name, without it.
fn lines_of(output: &str, app: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.split_once(app).map(|(_, text)| text));
    lines.map(|text| text.trim_start_matches([']', ':', ' ']).to_owned()).collect()
}

#[test]
fn lines_bear_the_name_of_their_app() {
    let host = Host::new();
    let script = |word: &str| format!("for i in 1 2 3; do echo {word} $i; done; echo bad {word} >&2");
    let finished = run(&host, &[("left", &script("one")), ("right", &script("two"))]).success();
    let output = finished.text();
    assert_eq!(output.lines().count(), 6, "{output}");
    assert_eq!(lines_of(&output, "left"), ["one 1", "one 2", "one 3"], "{output}");
    assert_eq!(lines_of(&output, "right"), ["two 1", "two 2", "two 3"], "{output}");
    assert_eq!(lines_of(&finished.stderr, "left"), ["bad one"], "{}", finished.stderr);
}

#[test]
fn the_pod_exits_as_the_first_app_that_failed() {
    let host = Host::new();
    run(&host, &[("good", "sleep 1; exit 0"), ("bad", "sleep 2; exit 5")]).exited(5);
    assert_eq!((host.status("good").as_str(), host.status("bad").as_str()), ("0", "5"));
}

#[test]
fn a_failure_ends_the_other_apps() {
    let host = Host::new();
    let begin = Instant::now();
    let finished = run(&host, &[("bad", "sleep 1; exit 7"), ("endless", "exec sleep 1000")]);
    finished.exited(7);
    assert!(begin.elapsed() < Duration::from_secs(600));
    assert_eq!(host.status("bad"), "7");
    // sleep takes SIGTERM.
    assert_eq!(host.status("endless"), "143");
}

/// The first app serves the number of its server's process until the second one, which has it from there, ends that.
#[test]
fn apps_share_the_network_and_the_processes_but_no_files() {
    let host = Host::new();
    let serve = "mkdir /www; sh -c 'echo $$ >/www/pid; exec httpd -f -p 7000 -h /www'; echo ended by $?";
    let fetch = "until pid=$(wget -q -O - http://127.0.0.1:7000/pid 2>/dev/null); do sleep 0.2; done; \
                 ls /www 2>&1; kill $pid";
    let finished = run(&host, &[("first", serve), ("second", fetch)]).success();
    let output = finished.text();
    // 128 and SIGTERM.
    assert_eq!(lines_of(&output, "first"), ["ended by 143"], "{output}");
    assert_eq!(lines_of(&output, "second"), ["ls: /www: No such file or directory"], "{output}");
}

#[test]
fn apps_of_one_name_are_refused() {
    let host = Host::new();
    let finished = run(&host, &[("twin", "exit 0"), ("twin", "exit 0")]).exited(254);
    assert!(finished.stderr.contains("twin"), "{}", finished.stderr);
    assert!(host.pods().is_empty());
}
