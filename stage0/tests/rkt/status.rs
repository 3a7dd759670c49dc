//! `rkt status` and `rkt cat-manifest`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::host::{Host, finished, is_root};
use crate::pods::{lock, run, running};

#[test]
fn of_a_pod_that_runs_and_then_does_not() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (uuid, pod, lock) = running(&host);
    let text = || host.rkt(&["status", &uuid]).success().stdout;
    let lines =
        |text: &str| text.lines().map(|line| line.split_once('=').unwrap().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&text()), ["state", "created", "networks", "exited"], "{}", text());
    fs::write(pod.join("ppid"), "41\n").unwrap();
    assert!(text().contains("\npid=41\n"), "{}", text());
    fs::write(pod.join("pid"), "42\n").unwrap();
    assert_eq!(lines(&text()), ["state", "created", "started", "networks", "pid", "exited"], "{}", text());
    assert!(
        text().starts_with("state=running\ncreated=20")
            && text().ends_with("UTC\nnetworks=\npid=42\nexited=false\n")
    );

    let json = |format: &str| {
        let printed = host.rkt(&["status", format, &uuid[..6]]).success().stdout;
        (serde_json::from_str::<serde_json::Value>(&printed).unwrap(), printed)
    };
    let (value, printed) = json("--format=json");
    assert_eq!((&value["name"], &value["state"]), (&uuid.as_str().into(), &"running".into()));
    assert_eq!(
        (&value["app_names"], &value["apps"][0]["state"]),
        (&serde_json::json!(["test"]), &"created".into())
    );
    assert!(value["apps"][0]["image_id"].as_str().unwrap().starts_with("sha512-"), "{value}");
    assert!(value["started_at"].as_u64() >= value["created_at"].as_u64(), "{value}");
    assert_eq!(printed.lines().count(), 1);
    symlink("ready", pod.join("stage1/rootfs/rkt/supervisor-status")).unwrap();
    assert_eq!(json("--format=json").0["apps"][0]["state"], "running");

    let networks =
        r#"[{"netName":"front","ifName":"eth0","ip":"192.0.2.7","mask":"255.255.255.0","args":""}]"#;
    fs::write(pod.join("net-info.json"), networks).unwrap();
    assert!(text().contains("\nnetworks=front:ip4=192.0.2.7\n"), "{}", text());
    assert_eq!(json("--format=json").0["networks"][0]["ip"], "192.0.2.7");

    fs::write(pod.join("stage1/rootfs/rkt/status/test"), "5").unwrap();
    // Not only here: a process that another test starts just now may have it, too.
    lock.unlock().unwrap();
    assert!(text().ends_with("pid=42\nexited=true\napp-test=5\n"), "{}", text());
    let (value, printed) = json("--format=json-pretty");
    assert_eq!((&value["apps"][0]["state"], &value["apps"][0]["exit_code"]), (&"exited".into(), &5.into()));
    assert!(value["apps"][0]["finished_at"].as_u64() > Some(1_000_000_000_000_000_000), "{value}");
    assert!(printed.contains("\n\t\"name\""), "{printed}");
}

#[test]
fn of_a_pod_that_never_ran() {
    let host = Host::new();
    let uuid = "11111111-2222-4333-8444-555555555555";
    fs::create_dir_all(host.data().join("pods/prepare").join(uuid)).unwrap();
    assert_eq!(host.rkt(&["status", "--wait", "1111"]).success().stdout, "state=aborted prepare\n");
    host.rkt(&["cat-manifest", "1111"]).refused(&["has no manifest", uuid]);
}

#[test]
fn waiting() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let pod = host.data().join("pods/run").join(&uuid);
    host.rkt(&["status", "--wait", &uuid]).success();
    host.rkt(&["status", "--wait-ready", &uuid]).refused(&["is exited and will not become ready"]);
    let lock = lock(&pod);
    let begin = Instant::now();
    host.rkt(&["status", "--wait=300ms", &uuid]).refused(&["status: ", "timed out", "has not ended"]);
    host.rkt(&["status", "--wait-ready=1s", &uuid]).refused(&["timed out", "is not ready"]);
    assert!(begin.elapsed() >= Duration::from_millis(1300));
    let waiting = |flag| {
        let mut command = host.command(&["status", flag, &uuid]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (ready, mut ended) = (waiting("--wait-ready"), waiting("--wait"));
    symlink("ready", pod.join("stage1/rootfs/rkt/supervisor-status")).unwrap();
    let ready = finished(ready.wait_with_output().unwrap()).success().stdout;
    assert!(ready.starts_with("state=running\n"), "{ready}");
    assert!(ended.try_wait().unwrap().is_none());
    // Not only here: a process that another test starts just now may have it, too.
    lock.unlock().unwrap();
    let ended = finished(ended.wait_with_output().unwrap()).success().stdout;
    assert!(ended.starts_with("state=exited\n"), "{ended}");
    host.rkt(&["status", "--wait", "--wait-ready", &uuid]).refused(&["cannot be used with"]);
    host.rkt(&["status", "--wait=soon", &uuid]).refused(&["soon", "duration"]);
}

#[test]
fn the_manifest() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let uuid = run(&host);
    let whole = fs::read(host.data().join("pods/run").join(&uuid).join("pod")).unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    for (flag, lines) in [("--pretty-print=true", 10..), ("--pretty-print=false", 1..)] {
        let printed = host.rkt(&["cat-manifest", flag, &uuid[..8]]).success().stdout;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), whole);
        assert!(lines.contains(&printed.lines().count()), "{printed}");
        assert_eq!(printed.contains("\n\t\"acKind\""), flag.ends_with("true"), "{printed}");
    }
    host.rkt(&["cat-manifest", "zzz"]).refused(&["cat-manifest: no matches found"]);
}
